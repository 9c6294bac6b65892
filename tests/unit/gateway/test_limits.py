from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.errors import BodyTooLargeError, InvalidFieldError
from modelyard.gateway.dialects.limits import bounded, limited, limits_apply
from modelyard.registry.load import load_text
from modelyard.registry.model import Limits, Model

LIMITS = Limits(max_tokens=100, n=2, best_of=3, prompts=2, logprobs=5, body_bytes=10_000)
MODEL = Model(id="m", name="m", limits=LIMITS)
CHAT = "/v1/chat/completions"


def within(body: dict[str, Any], path: str = CHAT) -> dict[str, Any]:
    changed, raw = limited(MODEL, path, body, json.dumps(body).encode())
    assert json.loads(raw) == changed
    return changed


@pytest.mark.parametrize(
    "name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"]
)
def test_a_longer_answer_is_shortened(name: str) -> None:
    path = "/v1/responses" if name == "max_output_tokens" else "/generate" if "new" in name else CHAT
    assert within({name: 101}, path) == {name: 100}
    assert within({name: 100}, path) == {name: 100}
    assert within({name: 7}, path) == {name: 7}


def test_both_names_of_the_length_are_lowered() -> None:
    assert within({"max_tokens": 500, "max_completion_tokens": 3}) == {
        "max_tokens": 100,
        "max_completion_tokens": 3,
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (CHAT, "max_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/messages", "max_tokens"),
        ("/v1/responses", "max_output_tokens"),
    ],
)
def test_a_request_that_names_no_length_gets_the_limit(path: str, name: str) -> None:
    assert within({}, path) == {name: 100}
    assert within({"max_tokens": None}, path)[name] == 100


@pytest.mark.parametrize(
    ("path", "name", "others"),
    [
        (CHAT, "max_tokens", ("max_output_tokens", "max_new_tokens")),
        ("/v1/completions", "max_tokens", ("max_output_tokens", "max_new_tokens", "max_completion_tokens")),
        ("/v1/messages", "max_tokens", ("max_output_tokens", "max_new_tokens", "max_completion_tokens")),
        ("/v1/responses", "max_output_tokens", ("max_tokens", "max_new_tokens", "max_completion_tokens")),
    ],
)
def test_the_length_of_another_api_is_no_way_around_the_limit(
    path: str, name: str, others: tuple[str, ...]
) -> None:
    for other in others:
        assert within({other: 7}, path) == {other: 7, name: 100}


def test_what_makes_no_text_gets_no_length() -> None:
    assert within({"input": "a"}, "/v1/embeddings") == {"input": "a"}


@pytest.mark.parametrize("value", ["101", 101.0, True, [1]])
def test_a_length_that_an_engine_might_read_otherwise_is_refused(value: Any) -> None:
    with pytest.raises(InvalidFieldError, match="'max_tokens' must be a whole number"):
        within({"max_tokens": value})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 3}, "n"),
        ({"best_of": 4}, "best_of"),
        ({"top_logprobs": 6}, "top_logprobs"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"prompt_logprobs": 6}, "prompt_logprobs"),
        ({"prompt": ["a", "b", "c"]}, "prompt"),
        ({"prompt": [[1], [2], [3]]}, "prompt"),
        ({"input": ["a", "b", "c"]}, "input"),
        ({"prompt_embeds": ["a", "b", "c"]}, "prompt_embeds"),
        ({"images": ["a", "b", "c"]}, "images"),
        ({"documents": ["a", "b", "c"]}, "documents"),
        ({"documents": {"content": ["a", "b", "c"]}}, "documents"),
        ({"text_2": ["a", "b", "c"]}, "text_2"),
    ],
)
def test_what_is_above_its_limit_is_refused(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidFieldError, match="at most") as caught:
        within(body, "/v1/embeddings")
    assert (caught.value.param, caught.value.status) == (param, 400)


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2, "best_of": 3, "logprobs": True, "top_logprobs": 5},
        {"n": None, "prompt": "text"},
        {"prompt": [1, 2, 3, 4]},
        {"prompt": ["a", "b"]},
        {"prompt": [], "documents": {}},
    ],
)
def test_what_is_within_passes_untouched(body: dict[str, Any]) -> None:
    raw = b"as it came"
    assert limited(MODEL, "/score", body, raw) == (body, raw)


def test_a_conversation_is_no_list_of_prompts() -> None:
    body = {"input": [{"role": "user", "content": "a"}] * 3, "max_output_tokens": 1}
    assert within(body, "/v1/responses") == body


def test_size() -> None:
    with pytest.raises(BodyTooLargeError, match="limit of model 'm'"):
        limited(MODEL, CHAT, {}, b" " * 10_001)


def test_a_model_without_limits_costs_nothing() -> None:
    free = Model(id="m", name="m")
    body, raw = {"n": 10**6}, b"{}"
    assert not limits_apply(free)
    assert limited(free, CHAT, body, raw) == (body, raw)
    assert bounded(Limits(n=1), body | {"n": 1}, ("max_tokens",)) == {"n": 1}


def test_the_registry_brings_them() -> None:
    text = (
        "version: 1\nmodels:\n  m: {endpoints: [], limits: {n: 2, max_tokens: null}}\n  o: {endpoints: []}\n"
    )
    registry = load_text(text, "r.yml")
    assert registry.models["m"].limits == Limits(n=2)
    assert limits_apply(registry.models["m"])
    assert not limits_apply(registry.models["o"])
