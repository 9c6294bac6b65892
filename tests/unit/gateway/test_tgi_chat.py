from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import UpstreamBrokenError
from modelyard.gateway.answers import Shape
from modelyard.gateway.dialects.streams import Chained
from modelyard.gateway.dialects.tgi.chat import ForReader, for_reader, without_nulls
from modelyard.gateway.dialects.to_tgi.reply import Head
from modelyard.gateway.dialects.to_tgi.request import to_generate
from modelyard.gateway.dialects.to_tgi.stream import TgiToChunks

from .streaming import fed, messages, stream, whole


def reader(*, single_tool: bool = True) -> ForReader:
    return ForReader("r1", single_tool=single_tool, shape=Shape.TGI)


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


CHAT = stream(
    chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk({"content": "b"}, "length")
)


def test_nulls_are_dropped_where_they_say_nothing() -> None:
    tool = {"type": "function", "strict": None, "function": {"parameters": {"default": None}}}
    assert without_nulls(
        {
            "model": "tgi",
            "seed": None,
            "messages": [{"role": "user", "content": "hi", "name": None, "tool_calls": None}, "odd"],
            "tools": [tool],
        }
    ) == {
        "model": "tgi",
        "messages": [{"role": "user", "content": "hi"}, "odd"],
        "tools": [{"type": "function", "function": {"parameters": {"default": None}}}],
    }


def test_a_plain_answer_gets_the_keys_that_are_missing() -> None:
    made = for_reader({"id": "c", "choices": [{"index": 0}], "system_fingerprint": None})
    assert made == {
        "id": "c",
        "choices": [{"logprobs": None, "index": 0}],
        "system_fingerprint": "modelyard",
        "usage": None,
    }


def test_every_chunk_has_a_role_and_tool_calls_and_there_is_no_done() -> None:
    sent = messages(whole(reader, CHAT))
    assert [item["choices"][0]["delta"] for item in sent] == [
        {"role": "assistant", "content": "", "tool_calls": None},
        {"content": "a", "role": "assistant", "tool_calls": None},
        {"content": "b", "role": "assistant", "tool_calls": None},
    ]
    assert {item["system_fingerprint"] for item in sent} == {"modelyard"}


def call(**parts: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, **parts}]}


def test_one_tool_call_stands_alone_with_its_name_in_every_chunk() -> None:
    sent = stream(
        chunk(call(id="t1", type="function", function={"name": "f", "arguments": ""})),
        chunk(call(function={"arguments": "{}"})),
        chunk({}, "tool_calls"),
    )
    calls = [item["choices"][0]["delta"]["tool_calls"] for item in messages(whole(reader, sent))]
    assert calls == [
        {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "id": "t1", "type": "function", "function": {"name": None, "arguments": "{}"}},
        None,
    ]


def test_other_readers_get_the_list() -> None:
    listed = call(id="t1", function={"name": "f"})
    sent = messages(whole(lambda: reader(single_tool=False), stream(chunk(listed, "tool_calls"))))
    assert sent[0]["choices"][0]["delta"]["tool_calls"] == listed["tool_calls"]


@given(cuts=st.lists(st.integers(0, len(CHAT))))
def test_any_chunking_gives_the_same_stream(cuts: list[int]) -> None:
    assert whole(reader, CHAT, cuts) == whole(reader, CHAT)


@pytest.mark.parametrize("cut", [0, CHAT.index(b'"b"')])
def test_a_stream_that_stops_early_has_no_end(cut: int) -> None:
    one = reader()
    fed(one, CHAT[:cut])
    with pytest.raises(UpstreamBrokenError):
        one.end()


def chained() -> Chained:
    _, wanted = to_generate({"model": "tgi", "stream": True, "messages": [{"role": "user"}]}, chat=True)
    return Chained(TgiToChunks(wanted, Head("r1", 1), "r1"), reader())


TGI = stream(
    {"token": {"text": "a"}, "generated_text": None},
    {"token": {"text": "b"}, "generated_text": "ab", "details": {"finish_reason": "length", "input_length": 4}},
    done=False,
)  # fmt: skip


@given(cuts=st.lists(st.integers(0, len(TGI))))
def test_translators_chain(cuts: list[int]) -> None:
    sent = messages(whole(chained, TGI, cuts))
    assert [item["choices"][0]["delta"]["content"] for item in sent] == ["", "a", "b"]
    assert all("tool_calls" in item["choices"][0]["delta"] for item in sent)


def test_a_chain_breaks_as_its_parts_do() -> None:
    one = chained()
    fed(one, TGI[: TGI.index(b'"ab"')])
    assert not one.finished
    with pytest.raises(UpstreamBrokenError):
        one.end()
    other = chained()
    fed(other, stream({"error": "no", "error_type": "generation"}, done=False))
    assert other.fault is not None
    assert messages(other.broken(other.fault))[0]["error_type"] == "generation"
