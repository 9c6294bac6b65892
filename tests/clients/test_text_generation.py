"""The `text-generation` library (TGI's own client), on engines of both kinds."""

from __future__ import annotations

import pytest
from text_generation import Client
from text_generation.errors import ValidationError


@pytest.fixture
def client(proxy_url: str, model: str) -> Client:
    return Client(f"{proxy_url}/tgi/{model}")


def test_generate(client: Client, echoes: bool) -> None:
    answer = client.generate("one two three", max_new_tokens=5)
    assert answer.generated_text
    assert answer.details is not None
    assert answer.details.finish_reason.value == "length"
    assert answer.details.generated_tokens == 5
    assert not echoes or answer.generated_text == "one two three one two"


def test_streamed(client: Client, echoes: bool) -> None:
    events = list(client.generate_stream("one two three", max_new_tokens=5))
    said = "".join(event.token.text for event in events if not event.token.special)
    assert events[-1].generated_text == said
    assert events[-1].details is not None
    assert events[-1].details.generated_tokens == 5
    assert not echoes or said == "one two three one two"


def test_chat(client: Client, echoes: bool) -> None:
    answer = client.chat(messages=[{"role": "user", "content": "one two three"}], max_tokens=5)
    assert answer.choices[0].message.content
    assert answer.usage["completion_tokens"] == 5
    assert not echoes or answer.choices[0].message.content == "one two three one two"


def test_streamed_chat(client: Client, echoes: bool) -> None:
    asked = [{"role": "user", "content": "one two three"}]
    chunks = list(client.chat(messages=asked, max_tokens=5, stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said
    assert not echoes or said == "one two three one two"


def test_stop_sequences_stay_in_the_text(client: Client, echoes: bool) -> None:
    answer = client.generate("one two three", max_new_tokens=9, stop_sequences=[" two"])
    if echoes:
        assert answer.generated_text == "one two"


def test_errors_are_of_the_librarys_kinds(client: Client, proxy_url: str) -> None:
    with pytest.raises(ValidationError, match="no model is called"):
        Client(f"{proxy_url}/tgi/nothing-like-it").generate("a")
    # the library itself refuses what it knows to be wrong
    with pytest.raises(ValidationError):
        client.generate("a", max_new_tokens=10_000_000)
