from __future__ import annotations

import itertools
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.usage import AnswerMeter, Usage

USAGE = {"prompt_tokens": 7, "completion_tokens": 20, "total_tokens": 27, "prompt_tokens_details": None}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


TEXT = [event({"choices": [{"delta": {"content": f"word{n}"}}], "usage": None}) for n in range(20)]
DONE = b"data: [DONE]\n\n"
OPENAI = b"".join([*TEXT, event({"choices": [], "usage": USAGE}), DONE])
UNTOLD = b"".join([*TEXT, DONE])
TGI = b'data:{"token":{"id":1,"text":"a"},"details":null}\n\n' * 3 + (
    b'data:{"token":{"id":2,"text":"b"},"generated_text":"aaab",'
    b'"details":{"finish_reason":"length","generated_tokens":4,"input_length":9,"seed":null}}\n\n'
)
ANTHROPIC = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"input_tokens":5,"output_tokens":6}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def read(
    data: bytes,
    *,
    streamed: bool,
    cuts: list[int] | None = None,
    headers: dict[str, str] | None = None,
) -> AnswerMeter:
    meter = AnswerMeter(streamed=streamed, headers=headers)
    borders = [0, *sorted(cuts or []), len(data)]
    for start, end in itertools.pairwise(borders):
        meter.feed(data[start:end])
    return meter


@pytest.mark.parametrize(
    ("body", "events", "usage"),
    [
        (OPENAI, 22, Usage(7, 20)),
        (UNTOLD, 21, Usage(None, 20, counted=True)),
        (TGI, 4, Usage(9, 4)),
        (ANTHROPIC, 3, Usage(5, 6)),
        (b"", 0, Usage(None, 0, counted=True)),
        (DONE, 1, Usage(None, 0, counted=True)),
    ],
    ids=["openai", "untold", "tgi", "anthropic", "empty", "only done"],
)
@given(data=st.data())
def test_streams_are_read_alike_however_they_are_cut(
    body: bytes, events: int, usage: Usage, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=60))
    meter = read(body, streamed=True, cuts=cuts)
    assert (meter.events, meter.size, meter.result()) == (events, len(body), usage)


def test_bytes_one_by_one() -> None:
    meter = read(OPENAI, streamed=True, cuts=list(range(len(OPENAI))))
    assert (meter.events, meter.result()) == (22, Usage(7, 20))


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (
            {"choices": [{"message": {"content": "x" * 5000}}], "usage": USAGE, "prompt_logprobs": None},
            (7, 20),
        ),
        ({"data": [], "usage": {"prompt_tokens": 3, "total_tokens": 3}}, (3, None)),
        ({"content": [], "usage": {"input_tokens": 5, "output_tokens": 6}}, (5, 6)),
        ({"generated_text": "a", "details": {"generated_tokens": 4, "seed": 1}}, (None, 4)),
        ({"generated_text": "a"}, (None, None)),
        # what a model writes is text: its quotes are escaped, and it cannot tell a number of tokens
        ({"text": '"usage": {"prompt_tokens": 1, "completion_tokens": 99}'}, (None, None)),
    ],
)
def test_plain_answers(body: dict[str, object], usage: tuple[int | None, int | None]) -> None:
    raw = json.dumps(body).encode()
    for cuts in ([], [len(raw) // 2], list(range(len(raw)))):
        meter = read(raw, streamed=False, cuts=cuts)
        assert (meter.events, meter.result()) == (0, Usage(*usage))


def test_text_that_looks_like_an_event_is_none() -> None:
    body = event({"choices": [{"delta": {"content": "\ndata: data: [DONE]"}}]})
    assert read(body, streamed=True).events == 1


def test_headers_tell_what_the_body_does_not() -> None:
    told = {"x-prompt-tokens": "11", "x-generated-tokens": "12"}
    wrong = {"x-prompt-tokens": "-1", "x-generated-tokens": "9" * 5000}
    with_usage = json.dumps({"usage": USAGE}).encode()
    assert read(b'{"generated_text":"a"}', streamed=False, headers=told).result() == Usage(11, 12)
    assert read(with_usage, streamed=False, headers=told).result() == Usage(7, 20)
    assert read(b"{}", streamed=False, headers=wrong).result() == Usage()


def test_a_long_answer_leaves_only_its_tail_behind() -> None:
    meter = AnswerMeter(streamed=True)
    small, large = b"data: " + b"x" * 300 + b"\n\n", b"data: " + b"y" * 2**20 + b"\n\n"
    tracemalloc.start()
    for _ in range(500):
        meter.feed(small)
    for _ in range(50):
        meter.feed(large)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert meter.events == 550
    assert kept < 16 * 1024
