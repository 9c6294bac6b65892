"""The `anthropic` library, on an engine that serves its API and on one that does not."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

HELLO = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def client(proxy_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=proxy_url, api_key="a-key", max_retries=0) as client:
        yield client


def test_message(client: anthropic.Anthropic, model: str, echoes: bool) -> None:
    answer = client.messages.create(
        model=model, max_tokens=5, extra_body={"temperature": 0}, system="Be brief.", messages=HELLO
    )
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "max_tokens")
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens == 5
    assert answer.usage.input_tokens > 0
    if echoes:
        assert answer.content[0].text == "one two three one two"


def test_streamed_message(client: anthropic.Anthropic, model: str, echoes: bool) -> None:
    with client.messages.stream(
        model=model, max_tokens=5, extra_body={"temperature": 0}, messages=HELLO
    ) as stream:
        said = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert said
    assert said == answer.content[0].text
    assert not echoes or said == "one two three one two"
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 5


def test_raw_events(client: anthropic.Anthropic, model: str) -> None:
    kinds = [
        event.type for event in client.messages.create(model=model, max_tokens=2, messages=HELLO, stream=True)
    ]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    assert "message_delta" in kinds


def test_stop_sequences(client: anthropic.Anthropic, model: str, echoes: bool) -> None:
    answer = client.messages.create(model=model, max_tokens=9, messages=HELLO, stop_sequences=[" three"])
    if echoes:
        assert answer.content[0].text == "one two"
        assert answer.stop_reason in ("stop_sequence", "end_turn")


def test_tokens_are_counted(client: anthropic.Anthropic, model: str) -> None:
    short = client.messages.count_tokens(model=model, messages=HELLO).input_tokens
    longer = client.messages.count_tokens(
        model=model, messages=[{"role": "user", "content": "one two three " * 9}]
    ).input_tokens
    assert 3 <= short < longer


def test_errors_are_of_the_librarys_kinds(client: anthropic.Anthropic, model: str) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no model is called") as caught:
        client.messages.create(model="nothing-like-it", max_tokens=1, messages=HELLO)
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=model, max_tokens=1, messages=[])
