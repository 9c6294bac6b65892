from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import BadRequestError, NotSupportedError, UpstreamBrokenError, UpstreamBusyError
from modelyard.gateway.dialects.to_tgi.reply import Head, from_generate
from modelyard.gateway.dialects.to_tgi.request import Wanted, to_generate
from modelyard.gateway.dialects.to_tgi.stream import TgiToChunks, held_length

from .streaming import fed, messages, stream, whole

HEAD = Head("r1", 1000)


def generate(chat: bool = False, **body: Any) -> tuple[dict[str, Any], Wanted]:
    given_body = {
        "model": "m",
        **({"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}),
    }
    return to_generate({**given_body, **body}, chat=chat)


def test_openai_samples_by_default_and_writes_sixteen_tokens() -> None:
    assert generate()[0] == {
        "inputs": "hi",
        "parameters": {"details": True, "do_sample": True, "max_new_tokens": 16},
    }


def test_a_chat_is_written_as_lines() -> None:
    listed = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you"}]},
        {"role": "assistant", "content": None},
    ]
    body, wanted = generate(chat=True, messages=listed, max_completion_tokens=5, max_tokens=9)
    assert body["inputs"] == "system: Be brief.\nuser: Hello\nyou\nassistant: \nassistant:"
    assert body["parameters"]["max_new_tokens"] == 5
    assert wanted.chat


@pytest.mark.parametrize(
    ("asked", "parameters"),
    [
        ({"temperature": 0}, {"do_sample": False}),
        ({"top_p": 0, "temperature": 1}, {"do_sample": False}),
        ({"temperature": 0.5, "top_p": 1}, {"do_sample": True, "temperature": 0.5}),
        ({"top_p": 0.5}, {"do_sample": True, "top_p": 0.5}),
        ({"seed": 3, "frequency_penalty": 0, "top_k": -1}, {"do_sample": True, "seed": 3}),
        ({"frequency_penalty": 0.5, "top_k": 4}, {"do_sample": True, "frequency_penalty": 0.5, "top_k": 4}),
        ({"stop": "x", "presence_penalty": 0, "n": 1}, {"do_sample": True, "stop": ["x"]}),
        ({"stop": ["x", "y"], "tools": []}, {"do_sample": True, "stop": ["x", "y"]}),
        ({"echo": True}, {"do_sample": True, "return_full_text": True}),
        ({"logprobs": 2}, {"do_sample": True, "top_n_tokens": 2}),
        ({"truncate_prompt_tokens": 9}, {"do_sample": True, "truncate": 9}),
        (
            {"response_format": {"type": "json_object"}},
            {"do_sample": True, "grammar": {"type": "json", "value": {"type": "object"}}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}}}},
            {"do_sample": True, "grammar": {"type": "json", "value": {"a": 1}}},
        ),
        (
            {"structured_outputs": {"regex": "a+"}},
            {"do_sample": True, "grammar": {"type": "regex", "value": "a+"}},
        ),
        ({"user": None, "response_format": {"type": "text"}, "temperature": None}, {"do_sample": True}),
    ],
)
def test_parameters(asked: dict[str, Any], parameters: dict[str, Any]) -> None:
    made = generate(**asked)[0]["parameters"]
    assert made == {"details": True, "max_new_tokens": 16, **parameters}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
        ({"echo": True, "stream": True}, "echo"),
    ],
)
def test_what_would_change_the_answer_is_not_left_out(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(NotSupportedError) as caught:
        generate(**asked)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stop": 3}, "stop"),
        ({"logprobs": 9}, "logprobs"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_bad_values_are_named(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        generate(**asked)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("listed", [None, [], "hi", ["hi"], [{"content": "x"}]])
def test_bad_messages(listed: Any) -> None:
    with pytest.raises(BadRequestError):
        generate(chat=True, messages=listed)


def test_a_chat_with_pictures_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="text only"):
        generate(chat=True, messages=[{"role": "user", "content": [{"type": "image_url"}]}])


def token(text: str, *, special: bool = False) -> dict[str, Any]:
    return {"id": 1, "text": text, "logprob": -0.5, "special": special}


DETAILS = {"finish_reason": "stop_sequence", "generated_tokens": 2, "tokens": [token("a"), token(" b\n")]}


def test_a_completion_without_its_stop_sequence() -> None:
    _, wanted = generate(stop=["\n"])
    assert from_generate({"generated_text": "a b\n", "details": DETAILS}, wanted, HEAD, 7) == {
        "id": "cmpl-r1",
        "object": "text_completion",
        "created": 1000,
        "model": "m",
        "system_fingerprint": "tgi",
        "choices": [{"index": 0, "text": "a b", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }


@pytest.mark.parametrize(
    ("word", "reason"), [("length", "length"), ("eos_token", "stop"), ("stop_sequence", "stop")]
)
def test_a_chat_answer(word: str, reason: str) -> None:
    _, wanted = generate(chat=True)
    details = {"finish_reason": word, "generated_tokens": 2}
    made = from_generate({"generated_text": "a b", "details": details}, wanted, HEAD, None)
    assert made is not None
    assert (made["id"], made["object"]) == ("chatcmpl-r1", "chat.completion")
    (choice,) = made["choices"]
    assert choice["message"] == {"role": "assistant", "content": "a b", "refusal": None}
    assert choice["finish_reason"] == reason


def test_logprobs_of_both_kinds() -> None:
    answer = {"generated_text": "a b", "details": {**DETAILS, "top_tokens": [[token("x")], []]}}
    _, text = generate(logprobs=1)
    made = from_generate(answer, text, HEAD, 1)
    assert made is not None
    assert made["choices"][0]["logprobs"] == {
        "tokens": ["a", " b\n"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"x": -0.5}, {}],
        "text_offset": [0, 1],
    }
    _, chat = generate(chat=True, logprobs=True, top_logprobs=1)
    made = from_generate(answer, chat, HEAD, 1)
    assert made is not None
    content = made["choices"][0]["logprobs"]["content"]
    assert [(item["token"], len(item["top_logprobs"])) for item in content] == [("a", 1), (" b\n", 0)]


def test_a_reply_without_text_is_none() -> None:
    assert from_generate({}, generate()[1], HEAD, 1) is None


def event(text: str, generated: str | None = None, word: str = "length", **more: Any) -> dict[str, Any]:
    details = None
    if generated is not None:
        details = {"finish_reason": word, "generated_tokens": 3, "input_length": 4}
    return {"index": 1, "token": token(text, **more), "generated_text": generated, "details": details}


def tgi(*sent: Any) -> bytes:
    return stream(*sent, done=False, prefix=b"data:")


def chunks(chat: bool = False, **body: Any) -> TgiToChunks:
    return TgiToChunks(generate(chat, stream=True, **body)[1], HEAD, "r1")


TOKENS = tgi(event("a"), event(" b"), event(" é", "a b é"))


def test_a_chat_stream_begins_with_the_role_and_ends_with_done() -> None:
    sent = messages(whole(lambda: chunks(chat=True, stream_options={"include_usage": True}), TOKENS))
    assert sent[-1] == "[DONE]"
    assert sent[-2]["choices"] == []
    assert sent[-2]["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert all(item["usage"] is None for item in sent[:-2])
    assert all(item["object"] == "chat.completion.chunk" for item in sent[:-1])
    deltas = [item["choices"][0]["delta"] for item in sent[:-2]]
    assert deltas == [
        {"role": "assistant", "content": ""}, {"content": "a"}, {"content": " b"}, {"content": " é"},
    ]  # fmt: skip
    assert [item["choices"][0]["finish_reason"] for item in sent[:-2]] == [None, None, None, "length"]


def test_a_completion_stream_has_no_role_and_no_usage_unless_asked() -> None:
    sent = messages(whole(chunks, TOKENS))
    assert [item["choices"][0]["text"] for item in sent[:-1]] == ["a", " b", " é"]
    assert all("usage" not in item for item in sent[:-1])


def test_the_stop_sequence_is_held_back_and_dropped() -> None:
    sent = tgi(event("a\n"), event("x"), event("\n"), event("\n", "a\nx\n\n", "stop_sequence"))
    out = messages(whole(lambda: chunks(stop=["\n\n"]), sent))
    assert "".join(item["choices"][0]["text"] for item in out[:-1]) == "a\nx"
    assert out[-2]["choices"][0]["finish_reason"] == "stop"


def test_what_was_held_back_comes_when_it_was_no_stop_sequence() -> None:
    out = messages(whole(lambda: chunks(stop=["\n\n"]), tgi(event("a"), event("\n", "a\n"))))
    assert "".join(item["choices"][0]["text"] for item in out[:-1]) == "a\n"


def test_special_tokens_are_not_shown() -> None:
    out = messages(whole(chunks, tgi(event("a"), event("</s>", "a", "eos_token", special=True))))
    assert [item["choices"][0]["text"] for item in out[:-1]] == ["a", ""]
    assert out[-2]["choices"][0]["finish_reason"] == "stop"


@given(cuts=st.lists(st.integers(0, len(TOKENS))))
def test_any_chunking_gives_the_same_stream(cuts: list[int]) -> None:
    def make() -> TgiToChunks:
        return chunks(chat=True)

    assert whole(make, TOKENS, cuts) == whole(make, TOKENS)


@given(cut=st.integers(0, len(TOKENS) - 1))
def test_a_stream_that_stops_early_is_never_done(cut: int) -> None:
    one = chunks(chat=True)
    assert b"[DONE]" not in fed(one, TOKENS[:cut])
    with pytest.raises(UpstreamBrokenError):
        one.end()


def test_an_overloaded_engine_is_a_fault_in_openai_words() -> None:
    one = chunks()
    assert fed(one, tgi({"error": "Model is overloaded", "error_type": "overloaded"})) == b""
    assert isinstance(one.fault, UpstreamBusyError)
    (told,) = messages(one.broken(one.fault))
    assert told["error"]["message"].endswith("Model is overloaded")


@pytest.mark.parametrize(
    ("text", "stops", "held"),
    [("abc", ["cd"], 1), ("abc", ["bcd", "cd"], 2), ("abc", ["x"], 0), ("abc", [], 0), ("aa", ["aaa"], 2)],
)
def test_held_length(text: str, stops: list[str], held: int) -> None:
    assert held_length(text, stops) == held


def test_a_seed_loses_its_sign() -> None:
    assert generate(seed=-1)[0]["parameters"]["seed"] == 2**64 - 1
    assert generate(seed=7)[0]["parameters"]["seed"] == 7


def test_offsets_of_a_stream_go_on() -> None:
    translator = TgiToChunks(generate(logprobs=0, stream=True)[1], HEAD, "r1")
    events = [{"token": {"id": 1, "text": text, "logprob": -1.0}} for text in ("ab", "c", "d")]
    chunks = messages(translator.feed(stream(*events, done=False)))
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks] == [[0], [2], [3]]
