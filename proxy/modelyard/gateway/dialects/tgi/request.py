"""What a TGI client asks for, and the same said in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.errors import InvalidFieldError, NotSupportedError

from ..bodies import number_field, text_field

_UNPROCESSABLE = 422
_DEFAULT_NEW_TOKENS = 100
_MOST_TOP_TOKENS = 5
# what an OpenAI server has no word for; refused when set, because ignoring it would change the text
_UNTRANSLATABLE = ("typical_p", "watermark")
# TGI's name -> vLLM's; top_k, repetition_penalty and truncate_prompt_tokens are vLLM's additions
_SAME_MEANING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "truncate": "truncate_prompt_tokens",
}
_WHOLE = frozenset({"seed", "top_k", "truncate"})
_SAMPLING = ("temperature", "top_p", "top_k", "typical_p")


@dataclass(frozen=True, slots=True)
class Asked:
    """One checked request. ``parameters`` are TGI's own, without nulls; ``top_n_tokens`` 0 means none."""

    inputs: str
    parameters: Mapping[str, Any]
    stream: bool
    best_of: int = 1
    top_n_tokens: int = 0

    @property
    def details(self) -> bool:
        """Whether the reply tells more than the text."""
        return bool(self.parameters.get("details")) or self.prefill or self.top_n_tokens > 0

    @property
    def prefill(self) -> bool:
        """Whether the reply tells the prompt's tokens."""
        return bool(self.parameters.get("decoder_input_details"))

    @property
    def single_tokens(self) -> bool:
        """Whether each token's text and log probability must be known. An engine is asked for these only then:
        a vLLM without a compiler dies of the question.
        """
        return self.prefill or self.top_n_tokens > 0 or self.best_of > 1

    @property
    def seed(self) -> int | None:
        """The seed that was sent."""
        return self.parameters.get("seed")

    def text(self, generated: str) -> str:
        """``generated_text``: with the prompt before it where that was asked for."""
        return self.inputs + generated if self.parameters.get("return_full_text") else generated


def asked(body: Mapping[str, Any], *, stream: bool) -> Asked:
    """Check a body ``{"inputs", "parameters"}``. Raises ``InvalidFieldError`` with 422."""
    given = dict(body)
    inputs = text_field(given, "inputs", status=_UNPROCESSABLE)
    parameters = given.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise _invalid("'parameters' must be an object", "parameters")
    parameters = {name: value for name, value in parameters.items() if value is not None}
    best_of = number_field(parameters, "best_of", status=_UNPROCESSABLE, whole=True, least=1)
    top = number_field(parameters, "top_n_tokens", status=_UNPROCESSABLE, whole=True, most=_MOST_TOP_TOKENS)
    request = Asked(inputs, parameters, stream, int(best_of or 1), int(top or 0))
    if request.best_of > 1:
        _check_best_of(request)
    if stream and request.prefill:
        raise _invalid("'decoder_input_details' is not possible in a stream", "decoder_input_details")
    return request


def _check_best_of(request: Asked) -> None:
    if request.stream:
        raise _invalid("'best_of' above 1 is not possible in a stream", "best_of")
    if not _samples(request.parameters):
        raise _invalid("'best_of' above 1 needs sampling: set 'do_sample'", "best_of")
    if request.seed is not None:
        raise _invalid("'best_of' above 1 cannot have a 'seed'", "best_of")


def to_completion(request: Asked, served_name: str) -> dict[str, Any]:
    """The body of ``/v1/completions`` that means what TGI's request means.

    TGI generates greedily unless a sampling parameter is set; OpenAI's API samples unless told otherwise.
    TGI keeps a stop sequence in the text and truncates the prompt at its beginning. Raises
    ``NotSupportedError`` for what cannot be said and ``InvalidFieldError`` for a bad value.
    """
    given = request.parameters
    for name in _UNTRANSLATABLE:
        if given.get(name):
            raise NotSupportedError(
                f"the engine of this model has no {name!r}; leave it out, or use a model that TGI serves",
                param=name,
            )
    if given.get("adapter_id"):
        raise NotSupportedError(
            "the engine of this model takes no 'adapter_id'; name the adapter as the model instead",
            param="adapter_id",
        )
    count = number_field(dict(given), "max_new_tokens", status=_UNPROCESSABLE, whole=True, least=1)
    body: dict[str, Any] = {
        "model": served_name,
        "prompt": request.inputs,
        "max_tokens": count if count is not None else _DEFAULT_NEW_TOKENS,
    }
    for name, theirs in _SAME_MEANING.items():
        value = number_field(dict(given), name, status=_UNPROCESSABLE, whole=name in _WHOLE, least=-(2.0**64))
        if value is not None:
            # TGI's seeds have no sign, vLLM's have one: the same 64 bits
            body[theirs] = (int(value) + 2**63) % 2**64 - 2**63 if name == "seed" else value
    if "truncate" in given:
        body["truncation_side"] = "left"
    stop = _stop(given)
    if stop:
        body |= {"stop": stop, "include_stop_str_in_output": True}
    if not _samples(given):
        body["temperature"] = 0
    if "grammar" in given:
        body["structured_outputs"] = _grammar(given["grammar"])
    if request.best_of > 1:
        body["n"] = request.best_of
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if request.stream or request.single_tokens:
        body["return_token_ids"] = True
    if request.single_tokens:
        body["logprobs"] = max(request.top_n_tokens, 1)
    if request.prefill:
        body["prompt_logprobs"] = 0
    return body


def _samples(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters.get("do_sample")) or any(name in parameters for name in _SAMPLING)


def _stop(parameters: Mapping[str, Any]) -> list[str]:
    stop = parameters.get("stop", [])
    if not isinstance(stop, list) or not all(isinstance(item, str) and item for item in stop):
        raise _invalid("'stop' must be a list of texts", "stop")
    return stop


def _grammar(grammar: object) -> dict[str, Any]:
    """What vLLM calls ``structured_outputs``, for TGI's ``{"type", "value"}``."""
    kind = grammar.get("type") if isinstance(grammar, dict) else None
    value = grammar.get("value") if isinstance(grammar, dict) else None
    if kind == "regex" and isinstance(value, str) and value:
        return {"regex": value}
    if kind == "json" and isinstance(value, str | dict) and value:
        return {"json": value}
    if kind == "json_schema" and isinstance(value, dict) and isinstance(value.get("schema"), dict):
        return {"json": value["schema"]}
    raise _invalid(
        '\'grammar\' must be {"type": "json", "value": <schema>}, '
        '{"type": "json_schema", "value": {"schema": <schema>}} or {"type": "regex", "value": <text>}',
        "grammar",
    )


def _invalid(message: str, param: str) -> InvalidFieldError:
    return InvalidFieldError(message, status=_UNPROCESSABLE, param=param)
