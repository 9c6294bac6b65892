from __future__ import annotations

from typing import Any

import pytest

from modelyard.errors import UpstreamBrokenError
from modelyard.gateway.dialects.tgi.reply import from_completion, headers_of
from modelyard.gateway.dialects.tgi.request import Asked, asked

LOGPROBS = {
    "tokens": ["/", "~"],
    "token_logprobs": [-0.9, -0.8],
    "top_logprobs": [{"/": -0.9, "ken": -1.4}, {"+": -0.5, "~": -0.8}],
}


def request(**parameters: Any) -> Asked:
    return asked({"inputs": "hi", "parameters": parameters}, stream=False)


def answer(*choices: dict[str, Any], generated: int = 2) -> dict[str, Any]:
    return {
        "choices": [{"text": "/~", "finish_reason": "length", **choice} for choice in choices or ({},)],
        "usage": {"prompt_tokens": 6, "completion_tokens": generated},
    }


def test_without_details_there_is_the_text_alone() -> None:
    assert from_completion(answer(), request()) == {"generated_text": "/~"}


def test_the_prompt_comes_first_where_the_full_text_is_asked_for() -> None:
    assert from_completion(answer(), request(return_full_text=True)) == {"generated_text": "hi/~"}


def test_details_are_told_as_far_as_they_are_known() -> None:
    reply = from_completion(answer(), request(details=True, seed=3, do_sample=True))
    assert reply is not None
    assert reply["details"] == {
        "finish_reason": "length", "generated_tokens": 2, "seed": 3, "prefill": [], "tokens": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "stop"}, "eos_token"),
        ({"finish_reason": "stop", "stop_reason": "\n"}, "stop_sequence"),
        ({"finish_reason": "stop", "stop_reason": 128001}, "eos_token"),
    ],
)
def test_finish_reasons(choice: dict[str, Any], word: str) -> None:
    reply = from_completion(answer(choice), request(details=True))
    assert reply is not None
    assert reply["details"]["finish_reason"] == word


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_generation_that_was_given_up_is_no_reply(reason: str) -> None:
    with pytest.raises(UpstreamBrokenError, match="gave the generation up"):
        from_completion(answer({"finish_reason": reason}), request())


def test_tokens_and_the_likely_ones_beside_them() -> None:
    choice = {"logprobs": LOGPROBS, "token_ids": [21, 100]}
    reply = from_completion(answer(choice), request(top_n_tokens=2))
    assert reply is not None
    assert reply["details"]["tokens"] == [
        {"id": 21, "text": "/", "logprob": -0.9, "special": False},
        {"id": 100, "text": "~", "logprob": -0.8, "special": False},
    ]
    assert reply["details"]["top_tokens"] == [
        [
            {"id": 21, "text": "/", "logprob": -0.9, "special": False},
            {"id": 0, "text": "ken", "logprob": -1.4, "special": False},
        ],
        [
            {"id": 0, "text": "+", "logprob": -0.5, "special": False},
            {"id": 100, "text": "~", "logprob": -0.8, "special": False},
        ],
    ]


def test_the_tokens_of_the_prompt() -> None:
    rows = [None, {"270": {"logprob": -16.9, "decoded_token": "el"}, "9": {"logprob": -0.1}}]
    choice = {"logprobs": LOGPROBS, "prompt_logprobs": rows, "prompt_token_ids": [46, 270]}
    reply = from_completion(answer(choice), request(decoder_input_details=True))
    assert reply is not None
    assert reply["details"]["prefill"] == [
        {"id": 46, "text": "", "logprob": None},
        {"id": 270, "text": "el", "logprob": -16.9},
    ]


def test_the_best_of_several_comes_first() -> None:
    likely = {"text": "good", "logprobs": {"tokens": ["good"], "token_logprobs": [-0.1]}}
    unlikely = {"text": "bad", "logprobs": {"tokens": ["b", "ad"], "token_logprobs": [-0.1, -4.0]}}
    reply = from_completion(answer(unlikely, likely), request(best_of=2, do_sample=True, details=True))
    assert reply is not None
    assert reply["generated_text"] == "good"
    assert reply["details"]["generated_tokens"] == 1
    other = reply["details"]["best_of_sequences"]
    assert [(item["generated_text"], item["generated_tokens"]) for item in other] == [("bad", 2)]


@pytest.mark.parametrize("choices", [None, [], [{}], ["x"], [{"text": None}]])
def test_an_answer_without_text_is_none(choices: Any) -> None:
    assert from_completion({"choices": choices}, request()) is None


def test_the_headers_tell_what_is_known() -> None:
    told = headers_of(answer(), request(), 0.5)
    assert told["x-prompt-tokens"] == "6"
    assert told["x-generated-tokens"] == "2"
    assert told["x-total-time"] == "500"
    assert told["x-time-per-token"] == "250"
    assert told["x-compute-characters"] == "2"
    assert "x-prompt-tokens" not in headers_of({}, request(), 0.5)
