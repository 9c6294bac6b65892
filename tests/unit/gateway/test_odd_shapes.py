"""What clients and engines send may have any shape: it is translated or refused, and nothing else happens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import ModelyardError, UpstreamError
from modelyard.gateway.answers import Shape
from modelyard.gateway.dialects.anthropic.reply import ChunksToMessage, to_message
from modelyard.gateway.dialects.anthropic.request import to_chat
from modelyard.gateway.dialects.streams import EventTranslator, reading
from modelyard.gateway.dialects.tgi.chat import ForReader
from modelyard.gateway.dialects.tgi.reply import from_completion
from modelyard.gateway.dialects.tgi.request import asked, to_completion
from modelyard.gateway.dialects.tgi.stream import CompletionToTgi
from modelyard.gateway.dialects.to_tgi.reply import Head, from_generate
from modelyard.gateway.dialects.to_tgi.request import to_generate
from modelyard.gateway.dialects.to_tgi.stream import TgiToChunks
from modelyard.gateway.events import event_bytes
from modelyard.gateway.in_band import in_band_error
from modelyard.gateway.json_text import written

ODD = (None, True, 0, -1, 1.5, "x", "", [], {}, [1], ["a"], [None], {"a": 1}, [[1]], [{}], 10**30)
LOGPROBS = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0, "b": -2.0}]}
PIECES: list[dict[str, Any]] = [
    {"choices": [{"text": "a", "token_ids": [5], "prompt_token_ids": [1], "logprobs": LOGPROBS}]},
    {"choices": [{"text": "", "token_ids": [6], "finish_reason": "stop", "stop_reason": "x"}]},
    {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 4}},
]
CALL = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"delta": {"role": "assistant", "content": "a"}}]},
    {"choices": [{"delta": {"tool_calls": [CALL]}}]},
    {"choices": [{"delta": {}, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 2}},
]
TOKEN = {"id": 1, "text": "a", "logprob": -1.0, "special": False}
DETAILS = {"finish_reason": "eos_token", "generated_tokens": 3, "tokens": [TOKEN], "top_tokens": [[TOKEN]]}
TOKENS: list[dict[str, Any]] = [
    {"index": 1, "token": TOKEN, "top_tokens": [TOKEN], "generated_text": None, "details": None},
    {"index": 2, "token": TOKEN, "generated_text": "aa", "details": DETAILS},
]
OPENAI: dict[str, Any] = {
    "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    "prompt": "x",
    "stop": ["a"],
    "seed": 1,
    "logprobs": 2,
    "response_format": {"type": "json_schema", "json_schema": {"schema": {"a": 1}}},
    "structured_outputs": {"json": {"a": 1}},
    "stream_options": {"include_usage": True},
}
TGI: dict[str, Any] = {
    "inputs": "x",
    "parameters": {
        "stop": ["a"],
        "seed": 1,
        "top_n_tokens": 2,
        "grammar": {"type": "json", "value": {"a": 1}},
    },
}
USED: dict[str, Any] = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
ANTHROPIC: dict[str, Any] = {
    "max_tokens": 3,
    "system": [{"type": "text", "text": "s"}],
    "messages": [
        {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "d"}}]},
        {"role": "assistant", "content": [USED]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "t"}]}]},
    ],
    "tools": [{"name": "f", "input_schema": {}}],
    "tool_choice": {"type": "tool", "name": "f"},
    "stop_sequences": ["q"],
}
ASKED = asked({"inputs": "p", "parameters": {"details": True, "top_n_tokens": 2}}, stream=True)
SEVERAL = asked(
    {"inputs": "p", "parameters": {"best_of": 2, "do_sample": True, "decoder_input_details": True}},
    stream=False,
)
WANTED = [
    to_generate({**OPENAI, "logprobs": 2, "structured_outputs": None}, chat=chat)[1] for chat in (True, False)
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """``whole`` with some of its values replaced by others."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        holder, key = draw(st.sampled_from(list(places(value))))
        holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        if not list(places(value)):
            break
    return value


@pytest.mark.parametrize(
    ("make", "events"),
    [
        (lambda: CompletionToTgi(ASKED, "i"), PIECES),
        (lambda: ChunksToMessage("m", "i"), CHUNKS),
        (lambda: ForReader("i", single_tool=True, shape=Shape.TGI), CHUNKS),
        (lambda: TgiToChunks(WANTED[0], Head("i", 1), "i"), TOKENS),
        (lambda: TgiToChunks(WANTED[1], Head("i", 1), "i"), TOKENS),
    ],
)
def test_streams(make: Callable[[], EventTranslator], events: list[dict[str, Any]]) -> None:
    @given(damaged(events))
    def go(odd: list[Any]) -> None:
        translator = make()
        for event in odd:
            translator.feed(event_bytes(written(event)))
        if translator.fault is None:
            try:
                translator.end()
            except UpstreamError:
                return

    go()


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (lambda answer: to_message(answer, "m", "i"), {"choices": [{"message": {"tool_calls": [CALL]}}]}),
        (lambda answer: from_completion(answer, SEVERAL), {"choices": [PIECES[0]["choices"][0]] * 2}),
        (lambda answer: from_generate(answer, WANTED[0], Head("i", 1), 1), {**TOKENS[1]}),
    ],
)
def test_answers(read: Callable[[Any], Any], answer: dict[str, Any]) -> None:
    @given(damaged(answer))
    def go(odd: dict[str, Any]) -> None:
        try:
            with reading():
                read(odd)
        except UpstreamError:
            return

    go()


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (lambda body: to_generate(body, chat=True), OPENAI),
        (lambda body: to_generate(body, chat=False), OPENAI),
        (lambda body: to_completion(asked(body, stream=False), "m"), TGI),
        (to_chat, ANTHROPIC),
    ],
)
def test_requests(read: Callable[[Any], Any], body: dict[str, Any]) -> None:
    @given(damaged(body))
    def go(odd: dict[str, Any]) -> None:
        status = 200
        try:
            read(odd)
        except ModelyardError as exc:
            status = exc.status
        assert status in (200, 400, 422, 501)

    go()


@given(
    damaged(
        {"error": {"message": "m", "type": "t", "code": 503}, "error_type": "overloaded", "object": "error"}
    )
)
def test_errors_in_a_stream(odd: dict[str, Any]) -> None:
    assert isinstance(in_band_error(event_bytes(written(odd))), UpstreamError | None)
