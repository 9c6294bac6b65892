"""`huggingface_hub.InferenceClient`, on engines of both kinds."""

from __future__ import annotations

import pytest
from huggingface_hub import InferenceClient

ASKED = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def client(proxy_url: str, model: str) -> InferenceClient:
    return InferenceClient(f"{proxy_url}/tgi/{model}")


def test_text_generation(client: InferenceClient, echoes: bool) -> None:
    said = client.text_generation("one two three", max_new_tokens=5)
    assert said
    assert not echoes or said == "one two three one two"


def test_details(client: InferenceClient) -> None:
    answer = client.text_generation("one two three", max_new_tokens=5, details=True)
    assert answer.details is not None
    assert (answer.details.finish_reason, answer.details.generated_tokens) == ("length", 5)


def test_streamed_text_generation(client: InferenceClient, echoes: bool) -> None:
    pieces = list(client.text_generation("one two three", max_new_tokens=5, stream=True))
    assert len(pieces) > 1
    assert not echoes or "".join(pieces) == "one two three one two"


def test_chat_completion(client: InferenceClient, echoes: bool) -> None:
    answer = client.chat_completion(ASKED, max_tokens=5, temperature=0)
    assert answer.usage.completion_tokens == 5
    assert not echoes or answer.choices[0].message.content == "one two three one two"


def test_streamed_chat_completion(client: InferenceClient, echoes: bool) -> None:
    chunks = list(client.chat_completion(ASKED, max_tokens=5, stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said
    assert not echoes or said == "one two three one two"


def test_openai_routes_for_a_named_model(proxy_url: str, model: str, echoes: bool) -> None:
    client = InferenceClient(base_url=f"{proxy_url}/v1", api_key="a-key")
    answer = client.chat.completions.create(model=model, messages=ASKED, max_tokens=5)
    assert answer.choices[0].message.content
    assert not echoes or answer.choices[0].message.content == "one two three one two"
