"""What an OpenAI client asks for, said in TGI's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.errors import InvalidFieldError, NotSupportedError

from ..bodies import number_field

_BAD = 400
# OpenAI's own default for /v1/completions
_DEFAULT_TEXT_TOKENS = 16
# what TGI's /generate has no word for; refused when set, because ignoring it would change the answer
_UNTRANSLATABLE = (
    "suffix", "presence_penalty", "logit_bias", "tools", "functions", "min_p", "min_tokens", "ignore_eos",
    "stop_token_ids", "bad_words", "prompt_logprobs", "use_beam_search", "guided_json", "guided_regex",
    "guided_choice", "guided_grammar",
)  # fmt: skip
# OpenAI's or vLLM's name -> TGI's
_SAME_MEANING = {
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "truncate_prompt_tokens": "truncate",
}
_WHOLE = frozenset({"seed", "top_k", "truncate_prompt_tokens"})
# values that mean "without", which TGI refuses as values
_WITHOUT = {"frequency_penalty": 0, "top_k": (0, -1), "repetition_penalty": None}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the answer must look like. ``logprobs``: how many likely tokens beside each, ``None`` for none."""

    chat: bool
    model: str
    stream: bool
    include_usage: bool
    stops: tuple[str, ...]
    logprobs: int | None


def to_generate(body: Mapping[str, Any], *, chat: bool) -> tuple[dict[str, Any], Wanted]:
    """The body of TGI's ``/generate`` or ``/generate_stream`` for an OpenAI body, and what to make of the
    answer. Raises ``NotSupportedError`` for what TGI cannot do and ``InvalidFieldError`` for a bad value.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name in _UNTRANSLATABLE:
        if given.get(name):
            raise _unsupported(name)
    if number_field(given, "n", status=_BAD, whole=True, least=1) not in (None, 1):
        raise _unsupported("n")
    if number_field(given, "best_of", status=_BAD, whole=True, least=1) not in (None, 1):
        raise _unsupported("best_of")
    stops = _stops(given.get("stop"))
    options = given.get("stream_options")
    wanted = Wanted(
        chat=chat,
        model=str(given.get("model", "")),
        stream=given.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        stops=stops,
        logprobs=_logprobs(given, chat=chat),
    )
    parameters: dict[str, Any] = {"details": True, **_length(given, chat=chat), **_sampling(given)}
    for name, theirs in _SAME_MEANING.items():
        value = number_field(given, name, status=_BAD, whole=name in _WHOLE, least=-(2.0**64))
        if value is not None and not _means_without(name, value):
            # TGI's seeds have no sign, OpenAI's have one: the same 64 bits
            parameters[theirs] = int(value) % 2**64 if name == "seed" else value
    if stops:
        parameters["stop"] = list(stops)
    if wanted.logprobs:
        parameters["top_n_tokens"] = wanted.logprobs
    if given.get("echo"):
        parameters["return_full_text"] = True
        if wanted.stream:
            raise _unsupported("echo")
    grammar = _grammar(given)
    if grammar is not None:
        parameters["grammar"] = grammar
    inputs = _chat_prompt(given.get("messages")) if chat else _prompt(given.get("prompt"))
    return {"inputs": inputs, "parameters": parameters}, wanted


def _length(given: Mapping[str, Any], *, chat: bool) -> dict[str, int]:
    for name in ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",):
        count = number_field(dict(given), name, status=_BAD, whole=True, least=1)
        if count is not None:
            return {"max_new_tokens": int(count)}
    return {} if chat else {"max_new_tokens": _DEFAULT_TEXT_TOKENS}


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's API samples unless the temperature is 0; TGI refuses a temperature of 0 and a top_p of 1."""
    temperature = number_field(dict(given), "temperature", status=_BAD, most=2)
    top_p = number_field(dict(given), "top_p", status=_BAD, most=1)
    if temperature == 0 or top_p == 0:
        return {"do_sample": False}
    chosen: dict[str, Any] = {"do_sample": True}
    if temperature is not None:
        chosen["temperature"] = temperature
    if top_p is not None and top_p < 1:
        chosen["top_p"] = top_p
    return chosen


def _means_without(name: str, value: float) -> bool:
    without = _WITHOUT.get(name)
    return value in without if isinstance(without, tuple) else value == without


def _stops(value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise InvalidFieldError("'stop' must be a text or a list of texts", param="stop")
    return tuple(item for item in listed if item)


def _logprobs(given: Mapping[str, Any], *, chat: bool) -> int | None:
    if not chat:
        value = number_field(dict(given), "logprobs", status=_BAD, whole=True, most=5)
        return None if value is None else int(value)
    if not given.get("logprobs"):
        return None
    return int(number_field(dict(given), "top_logprobs", status=_BAD, whole=True, most=5) or 0)


def _grammar(given: Mapping[str, Any]) -> dict[str, Any] | None:
    structured = given.get("structured_outputs")
    if isinstance(structured, dict) and structured:
        if isinstance(structured.get("regex"), str):
            return {"type": "regex", "value": structured["regex"]}
        if structured.get("json"):
            return {"type": "json", "value": structured["json"]}
        raise _unsupported("structured_outputs")
    form = given.get("response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json", "value": {"type": "object"}}
    described = form.get("json_schema") if isinstance(form, dict) else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind == "json_schema" and isinstance(schema, dict):
        return {"type": "json", "value": schema}
    raise InvalidFieldError(
        "'response_format' must be of the type text, json_object or json_schema (with a schema)",
        param="response_format",
    )


def _prompt(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value
    if value is None:
        raise InvalidFieldError("the body needs 'prompt' (text)", param="prompt")
    raise NotSupportedError(
        "the engine of this model takes one prompt as text; send one at a time", param="prompt"
    )


def _chat_prompt(messages: object) -> str:
    """The conversation as plain lines, for an engine whose chat template nobody here knows."""
    if not isinstance(messages, list) or not messages:
        raise InvalidFieldError("'messages' must be a list of at least one message", param="messages")
    lines = []
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidFieldError(f"'{where}' must be an object with a 'role'", param=where)
        lines.append(f"{message['role']}: {_content(message.get('content'), where)}\n")
    return "".join(lines) + "assistant:"


def _content(value: object, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise NotSupportedError(
            "the engine of this model reads text only; send text", param=f"{where}.content"
        )
    return "\n".join(str(text) for text in texts)


def _unsupported(name: str) -> NotSupportedError:
    return NotSupportedError(
        f"the engine of this model has no {name!r}; leave it out, or use a model that another engine serves",
        param=name,
    )
