from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import InvalidFieldError, NotSupportedError
from modelyard.gateway.dialects.tgi.request import Asked, asked, to_completion

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def completion(stream: bool = False, **parameters: Any) -> dict[str, Any]:
    return to_completion(asked({"inputs": "hi", "parameters": parameters}, stream=stream), "served")


def test_the_default_is_greedy_and_short() -> None:
    assert completion() == {"model": "served", "prompt": "hi", "max_tokens": 100, "temperature": 0}


def test_no_parameters_and_null_parameters_are_the_same() -> None:
    for body in ({"inputs": "hi"}, {"inputs": "hi", "parameters": None}):
        assert asked(body, stream=False) == Asked("hi", {}, False)


def test_everything_that_text_generation_sends_by_default_is_greedy_and_asks_for_no_logprobs() -> None:
    nulls = ("repetition_penalty", "frequency_penalty", "seed", "temperature", "top_k", "top_p", "truncate")
    sent = completion(
        **dict.fromkeys(nulls), do_sample=False, max_new_tokens=20, return_full_text=False, stop=[],
        typical_p=None, best_of=None, watermark=False, details=True, decoder_input_details=False,
        top_n_tokens=None, grammar=None,
    )  # fmt: skip
    assert sent == {"model": "served", "prompt": "hi", "max_tokens": 20, "temperature": 0}


def test_sampling_parameters_keep_their_meaning() -> None:
    sent = completion(
        temperature=0.5, top_p=0.9, top_k=10, seed=42, repetition_penalty=1.1, frequency_penalty=0.2,
        do_sample=True, max_new_tokens=7,
    )  # fmt: skip
    assert sent == {
        "model": "served", "prompt": "hi", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 10,
        "seed": 42, "repetition_penalty": 1.1, "frequency_penalty": 0.2,
    }  # fmt: skip


def test_the_stop_sequence_stays_in_the_text_and_the_prompt_loses_its_beginning() -> None:
    sent = completion(stop=["\n"], truncate=8)
    assert sent["stop"] == ["\n"]
    assert sent["include_stop_str_in_output"] is True
    assert (sent["truncate_prompt_tokens"], sent["truncation_side"]) == (8, "left")


def test_a_stream_asks_for_counts_and_token_numbers_but_not_for_logprobs() -> None:
    sent = completion(stream=True, details=True)
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["return_token_ids"] is True
    assert "logprobs" not in sent


@pytest.mark.parametrize(
    ("parameters", "logprobs", "prompt"),
    [
        ({"decoder_input_details": True}, 1, 0),
        ({"top_n_tokens": 3}, 3, None),
        ({"best_of": 2, "do_sample": True}, 1, None),
    ],
)
def test_logprobs_are_asked_for_only_where_they_are_needed(
    parameters: dict[str, Any], logprobs: int, prompt: int | None
) -> None:
    sent = completion(**parameters)
    assert sent["logprobs"] == logprobs
    assert sent.get("prompt_logprobs") == prompt


def test_best_of_makes_as_many_choices() -> None:
    assert completion(best_of=2, temperature=0.7)["n"] == 2


@pytest.mark.parametrize(
    ("grammar", "structured"),
    [
        ({"type": "json", "value": SCHEMA}, {"json": SCHEMA}),
        ({"type": "json", "value": '{"type": "object"}'}, {"json": '{"type": "object"}'}),
        ({"type": "json_schema", "value": {"name": "n", "schema": SCHEMA}}, {"json": SCHEMA}),
        ({"type": "regex", "value": "[ab]+"}, {"regex": "[ab]+"}),
    ],
)
def test_a_grammar_becomes_structured_outputs(grammar: Any, structured: Any) -> None:
    assert completion(grammar=grammar)["structured_outputs"] == structured


@pytest.mark.parametrize(
    "grammar", ["x", {"type": "gbnf", "value": "x"}, {"type": "regex", "value": ""}, {"type": "json"}]
)
def test_a_grammar_of_no_known_shape_is_refused(grammar: Any) -> None:
    with pytest.raises(InvalidFieldError, match="'grammar' must be") as caught:
        completion(grammar=grammar)
    assert (caught.value.status, caught.value.param) == (422, "grammar")


@pytest.mark.parametrize(("name", "value"), [("typical_p", 0.9), ("watermark", True), ("adapter_id", "a")])
def test_what_would_change_the_text_is_not_left_out(name: str, value: Any) -> None:
    with pytest.raises(NotSupportedError) as caught:
        completion(**{name: value})
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("parameters", "stream", "param"),
    [
        ({"max_new_tokens": 0}, False, "max_new_tokens"),
        ({"max_new_tokens": "5"}, False, "max_new_tokens"),
        ({"temperature": "hot"}, False, "temperature"),
        ({"seed": 1.5}, False, "seed"),
        ({"stop": "x"}, False, "stop"),
        ({"stop": [""]}, False, "stop"),
        ({"best_of": 2}, False, "best_of"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, False, "best_of"),
        ({"best_of": 2, "do_sample": True}, True, "best_of"),
        ({"top_n_tokens": 6}, False, "top_n_tokens"),
        ({"decoder_input_details": True}, True, "decoder_input_details"),
    ],
)
def test_bad_values_are_named(parameters: dict[str, Any], stream: bool, param: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        completion(stream=stream, **parameters)
    assert (caught.value.status, caught.value.param) == (422, param)


@pytest.mark.parametrize("body", [{}, {"inputs": 1}, {"inputs": "a", "parameters": []}])
def test_a_body_of_another_shape_is_422(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        asked(body, stream=False)
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("seed", "said"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)]
)
def test_a_seed_without_a_sign_gets_one(seed: int, said: int) -> None:
    assert completion(seed=seed)["seed"] == said
