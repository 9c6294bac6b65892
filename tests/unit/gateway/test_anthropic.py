from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import InvalidFieldError, ModelyardError, NotSupportedError, UpstreamBrokenError
from modelyard.gateway.answers import Shape, error_body, error_event
from modelyard.gateway.dialects.anthropic.reply import ChunksToMessage, to_message
from modelyard.gateway.dialects.anthropic.request import to_chat

from .streaming import stream, whole

TOOL = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}


def asked(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"max_tokens": 9, "messages": list(messages), **more}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_whole_conversation() -> None:
    chat = to_chat(
        asked(
            user([{"type": "text", "text": "What is"}, {"type": "text", "text": "1 + 2?"}]),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}},
                ],
            },
            user(
                [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "3"}]},
                    {"type": "text", "text": "Well?"},
                ]
            ),
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            tools=[TOOL],
            tool_choice={"type": "any"},
            stop_sequences=["END"],
            temperature=0.5,
            stream=True,
        )
    )
    assert chat == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is\n1 + 2?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "t1", "content": "3"},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "description": "Adds.", "parameters": TOOL["input_schema"]},
            }
        ],
        "tool_choice": "required",
        "max_tokens": 9,
        "stop": ["END"],
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_images() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    chat = to_chat(asked(user([{"type": "image", "source": source}, {"type": "text", "text": "What?"}])))
    assert chat["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "text", "text": "What?"},
    ]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (asked(user("a"), top_k=5), "top_k"),
        (asked(user("a"), thinking={"type": "enabled", "budget_tokens": 1024}), "thinking"),
        (asked(user("a"), tools=[{"type": "web_search_20250305", "name": "web_search"}]), "web_search"),
        (asked(user([{"type": "document", "source": {}}])), "'document'"),
    ],
)
def test_what_cannot_be_said_is_refused(body: dict[str, Any], says: str) -> None:
    with pytest.raises(NotSupportedError, match=says):
        to_chat(body)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [user("a")]},
        asked(),
        asked(user(5)),
        asked(user([5])),
        asked({"role": "system", "content": "a"}),
        asked("a"),
        asked(user([{"type": "text"}])),
        asked(user([{"type": "image", "source": {}}])),
        asked(user("a"), tools=[{}]),
        asked(user("a"), tools=5),
        asked(user("a"), tools=[TOOL], tool_choice="auto"),
        asked(user("a"), stop_sequences="END"),
        {**asked(user("a")), "max_tokens": "9"},
    ],
)
def test_what_is_wrong_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError):
        to_chat(body)


def test_a_message() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    answer = {
        "choices": [{"message": {"content": "Hm.", "tool_calls": [call]}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    assert to_message(answer, "m", "r") == {
        "id": "msg_r",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "Hm."},
            {"type": "tool_use", "id": "c", "name": "add", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }


def test_an_answer_without_a_message_is_no_answer() -> None:
    with pytest.raises(ModelyardError, match="without a message"):
        to_message({"choices": []}, "m", "r")


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function} | ({"id": f"c{index}"} if name else {})]}


STREAM = stream(
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Let"}),
    chunk({"content": " me"}),
    chunk(call(0, "", "add")),
    chunk(call(0, '{"a":')),
    chunk(call(0, "1}")),
    chunk(call(1, "{}", "sub")),
    chunk({}, "tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
)


def events(data: bytes) -> list[dict[str, Any]]:
    found = []
    for event in data.split(b"\n\n")[:-1]:
        name, _, rest = event.partition(b"\n")
        told = json.loads(rest.removeprefix(b"data: "))
        assert name == b"event: " + told["type"].encode()
        found.append(told)
    return found


@given(cuts=st.lists(st.integers(0, 2000), max_size=30))
def test_a_stream_however_it_is_cut(cuts: list[int]) -> None:
    told = events(whole(lambda: ChunksToMessage("m", "r"), STREAM, cuts))
    assert [event["type"] for event in told] == [
        "message_start", "ping",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    starts = [event for event in told if event["type"] == "content_block_start"]
    assert [(item["index"], item["content_block"]["type"]) for item in starts] == [
        (0, "text"), (1, "tool_use"), (2, "tool_use"),
    ]  # fmt: skip
    assert starts[1]["content_block"] == {"type": "tool_use", "id": "c0", "name": "add", "input": {}}
    assert told[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert told[-2]["usage"] == {"input_tokens": 3, "output_tokens": 4}


def test_a_stream_that_stops_early_has_no_end() -> None:
    translator = ChunksToMessage("m", "r")
    assert b"message_stop" not in translator.feed(stream(chunk({"content": "a"}), done=False))
    with pytest.raises(UpstreamBrokenError):
        translator.end()
    assert translator.broken(UpstreamBrokenError("cut")).startswith(b"event: error\ndata: ")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (404, "not_found_error"),
     (413, "request_too_large"), (429, "rate_limit_error"), (501, "api_error"), (503, "overloaded_error")],
)  # fmt: skip
def test_errors(status: int, kind: str) -> None:
    error = ModelyardError("why", status=status, code="c")
    assert error_body(error, Shape.ANTHROPIC, "r") == {
        "type": "error",
        "error": {"type": kind, "message": "why", "code": "c"},
        "request_id": "r",
    }
    assert error_event(error, Shape.ANTHROPIC, "r").startswith(b"event: error\ndata: {")


@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": {"type": ["auto"]}, "tools": [TOOL]},
        {"tool_choice": {"type": "tool"}, "tools": [TOOL]},
        {"messages": [{"role": "assistant", "content": [{"type": ["text"]}]}]},
    ],
)
def test_a_type_that_is_no_word_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises((InvalidFieldError, NotSupportedError)):
        to_chat({**asked(user("x")), **more})


def test_a_tool_without_a_type_is_the_clients_own() -> None:
    assert to_chat(asked(user("x"), tools=[TOOL | {"type": None}])) == to_chat(asked(user("x"), tools=[TOOL]))


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_generation_that_was_given_up_has_no_end(reason: str) -> None:
    with pytest.raises(UpstreamBrokenError, match="gave the generation up"):
        to_message({"choices": [{"message": {"content": "a"}, "finish_reason": reason}]}, "m", "i")
    translator = ChunksToMessage("m", "i")
    said = translator.feed(stream({"choices": [{"delta": {"content": "a"}, "finish_reason": reason}]}))
    assert translator.fault is not None
    assert b"message_stop" not in said


def test_a_call_that_was_cut_says_so() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": "{"}}
    made = to_message({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "length"}]}, "m", "i")
    assert made["stop_reason"] == "max_tokens"
