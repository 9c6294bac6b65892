"""The `openai` library, on engines of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

Named = Callable[[str], str]
HELLO = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def client(proxy_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{proxy_url}/v1", api_key="a-key", max_retries=0) as client:
        yield client


def test_chat(client: openai.OpenAI, model: str, echoes: bool) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=5, temperature=0)
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"
    if echoes:
        assert answer.choices[0].message.content == "one two three one two"


def test_streamed_chat(client: openai.OpenAI, model: str, echoes: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=HELLO,
            max_tokens=5,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said
    assert not echoes or said == "one two three one two"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


def test_completion(client: openai.OpenAI, model: str, echoes: bool) -> None:
    answer = client.completions.create(model=model, prompt="one two three", max_tokens=4)
    assert answer.choices[0].text
    assert not echoes or answer.choices[0].text == "one two three one"


def test_streamed_completion(client: openai.OpenAI, model: str) -> None:
    chunks = list(client.completions.create(model=model, prompt="one two", max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def test_models(client: openai.OpenAI, model: str) -> None:
    assert model in {card.id for card in client.models.list()}
    assert client.models.retrieve(model).id == model


def test_errors_are_of_the_librarys_kinds(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError, match="no model is called"):
        client.chat.completions.create(model="nothing-like-it", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=[], max_tokens=1)


def test_embeddings(client: openai.OpenAI, model_named: Named) -> None:
    answer = client.embeddings.create(
        model=model_named("embedder"), input=["a cat", "a cat", "9 dogs"], encoding_format="float"
    )
    one, same, other = (item.embedding for item in answer.data)
    assert one == same != other
    assert answer.usage.prompt_tokens > 0


def test_response_is_found_again(client: openai.OpenAI, model_named: Named, echoes: bool) -> None:
    model = model_named("vllm-shaped")
    answer = client.responses.create(model=model, input="one two three", max_output_tokens=5)
    assert answer.output_text
    assert not echoes or answer.output_text == "one two three one two"
    if echoes:
        assert client.responses.retrieve(answer.id).output_text == answer.output_text
        following = client.responses.create(model=model, input="more", previous_response_id=answer.id)
        assert following.previous_response_id == answer.id
        assert client.responses.cancel(answer.id).id == answer.id
    with pytest.raises(openai.NotFoundError, match="no response"):
        client.responses.retrieve("resp_nobody_made")


def test_streamed_response(client: openai.OpenAI, model_named: Named, echoes: bool) -> None:
    model = model_named("vllm-shaped")
    events = list(client.responses.create(model=model, input="one two", max_output_tokens=3, stream=True))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    if echoes:
        assert client.responses.retrieve(events[0].response.id).status == "completed"


def test_an_engine_without_responses_is_told(client: openai.OpenAI, model_named: Named) -> None:
    with pytest.raises(openai.InternalServerError, match="does not serve /v1/responses"):
        client.responses.create(model=model_named("tgi-shaped"), input="one")


def test_a_route_for_another_task(client: openai.OpenAI, model_named: Named) -> None:
    with pytest.raises(openai.BadRequestError, match="is for the task 'generate'"):
        client.embeddings.create(model=model_named("vllm-shaped"), input="a")


def test_transcription(client: openai.OpenAI, model_named: Named) -> None:
    model = model_named("transcriber")
    sound = ("a.wav", b"what was said" * 1000, "audio/wav")
    assert client.audio.transcriptions.create(model=model, file=sound).text == "what was said" * 1000
    assert client.audio.translations.create(model=model, file=sound).text.startswith("what")


def test_speech(client: openai.OpenAI, model_named: Named) -> None:
    answer = client.audio.speech.create(model=model_named("speaker"), voice="any", input="say this")
    assert answer.content == b"say this"
