from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import UpstreamBrokenError, UpstreamBusyError
from modelyard.gateway.dialects.tgi.request import asked
from modelyard.gateway.dialects.tgi.stream import CompletionToTgi

from .streaming import fed, messages, stream, whole


def translator(**parameters: Any) -> CompletionToTgi:
    return CompletionToTgi(asked({"inputs": "hi", "parameters": parameters}, stream=True), "r1")


def piece(text: str, *ids: int, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": reason, "token_ids": list(ids), **more}
    return {"id": "cmpl-1", "choices": [choice]}


def counts(prompt: int, generated: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": generated}}


VLLM = stream(
    piece("/", 21, prompt_token_ids=[1, 2, 3]),
    piece("~", 100),
    piece(" é", 315, reason="length"),
    counts(3, 3),
)


def token(number: int, text: str, *, special: bool = False, logprob: float = 0.0) -> dict[str, Any]:
    return {"id": number, "text": text, "logprob": logprob, "special": special}


def test_each_token_is_an_event_and_the_last_has_the_text() -> None:
    assert messages(whole(lambda: translator(details=True, seed=5), VLLM)) == [
        {"index": 1, "token": token(21, "/"), "generated_text": None, "details": None},
        {"index": 2, "token": token(100, "~"), "generated_text": None, "details": None},
        {
            "index": 3,
            "token": token(315, " é"),
            "generated_text": "/~ é",
            "details": {"finish_reason": "length", "generated_tokens": 3, "seed": 5, "input_length": 3},
        },
    ]


def test_there_is_no_done_and_no_space_after_the_field() -> None:
    out = whole(translator, VLLM)
    assert b"[DONE]" not in out
    assert out.startswith(b'data:{"index":1')


def test_details_only_where_asked_for_and_the_prompt_too() -> None:
    last = messages(whole(lambda: translator(return_full_text=True), VLLM))[-1]
    assert last["details"] is None
    assert last["generated_text"] == "hi/~ é"


@pytest.mark.parametrize("done", [True, False])
def test_an_engine_need_not_send_counts_nor_done(done: bool) -> None:
    sent = stream(piece("a", 1), piece("b", 2, reason="stop", stop_reason="b"), done=done)
    last = messages(whole(lambda: translator(details=True), sent))[-1]
    assert last["generated_text"] == "ab"
    assert last["details"]["finish_reason"] == "stop_sequence"
    assert last["details"]["generated_tokens"] == 2


def test_an_end_token_is_special() -> None:
    sent = stream(piece("a", 1), piece("", 2, reason="stop"), counts(1, 2))
    assert [item["token"] for item in messages(whole(translator, sent))] == [
        token(1, "a"),
        token(2, "", special=True),
    ]


def test_an_end_in_a_piece_of_its_own_is_a_special_token_that_is_not_counted() -> None:
    first, last = ({"choices": [{"text": "a b", "finish_reason": None}]}, piece("", reason="stop"))
    events = messages(whole(lambda: translator(details=True), stream(first, last)))
    assert [item["token"] for item in events] == [token(0, "a b"), token(0, "", special=True)]
    assert events[-1]["details"]["generated_tokens"] == 1


def test_several_tokens_in_one_piece_are_several_events() -> None:
    events = messages(whole(lambda: translator(details=True), stream(piece("abc", 1, 2, 3, reason="length"))))
    assert [(item["index"], item["token"]["id"], item["token"]["text"]) for item in events] == [
        (1, 1, "abc"),
        (2, 2, ""),
        (3, 3, ""),
    ]
    assert [item["generated_text"] for item in events] == [None, None, "abc"]
    assert events[-1]["details"]["generated_tokens"] == 3


def test_likely_tokens_are_told_where_asked_for() -> None:
    logprobs = {"tokens": ["/"], "token_logprobs": [-0.5], "top_logprobs": [{"/": -0.5, "k": -0.7}]}
    sent = stream(piece("/", 21, reason="length", logprobs=logprobs))
    (event,) = messages(whole(lambda: translator(top_n_tokens=2), sent))
    assert event["token"]["logprob"] == -0.5
    assert event["top_tokens"] == [token(21, "/", logprob=-0.5), token(0, "k", logprob=-0.7)]


@given(cuts=st.lists(st.integers(0, len(VLLM))))
def test_any_chunking_gives_the_same_stream(cuts: list[int]) -> None:
    def make() -> CompletionToTgi:
        return translator(details=True)

    assert whole(make, VLLM, cuts) == whole(make, VLLM)


@given(cut=st.integers(0, VLLM.index(b"length")))
def test_a_stream_that_stops_early_has_no_end(cut: int) -> None:
    one = translator(details=True)
    out = fed(one, VLLM[:cut])
    assert all(item["generated_text"] is None for item in messages(out))
    with pytest.raises(UpstreamBrokenError):
        one.end()


def test_done_without_an_end_is_a_fault() -> None:
    one = translator()
    fed(one, stream(piece("a", 1)))
    assert isinstance(one.fault, UpstreamBrokenError)
    with pytest.raises(UpstreamBrokenError):
        one.end()


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_generation_that_was_given_up_is_a_fault(reason: str) -> None:
    one = translator()
    fed(one, stream(piece("a", 1, reason=reason)))
    assert isinstance(one.fault, UpstreamBrokenError)


def test_an_error_inside_the_stream_comes_after_what_was_said_before() -> None:
    sent = stream(piece("a", 1), {"error": {"message": "no memory", "code": 503}}, piece("b", 2))
    for cuts in ((), range(len(sent))):
        one = translator()
        out = fed(one, sent, list(cuts))
        assert [item["token"]["text"] for item in messages(out)] == ["a"]
        assert isinstance(one.fault, UpstreamBusyError)
        (told,) = messages(one.broken(one.fault))
        assert (told["error_type"], told["request_id"]) == ("overloaded", "r1")


@pytest.mark.parametrize("bad", [b"<html>", b"[1]", b'{"choices"'])
def test_garbage_is_a_fault(bad: bytes) -> None:
    one = translator()
    fed(one, stream(piece("a", 1), bad))
    assert one.fault is not None
    assert one.fault.code == "upstream_garbled"


def test_half_an_emoji_passes() -> None:
    sent = stream(b'{"choices":[{"text":"\\ud83d","finish_reason":"length","token_ids":[7]}]}')
    assert messages(whole(translator, sent))[0]["generated_text"] == "\ud83d"
