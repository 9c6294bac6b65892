"""What one request may ask for at most, by its model's ``limits``. Pure.

An answer's length is lowered to the limit, for a shorter answer says itself that it is one
(``finish_reason: length``); everything else above its limit is refused, for less of it would be another answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.errors import BodyTooLargeError, InvalidFieldError
from modelyard.registry.model import NO_LIMITS, Limits, Model

from .wishes import dumps

# an answer's length, as each API calls it
_LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
_COUNTS = {
    "n": ("n",),
    "best_of": ("best_of",),
    # vLLM takes -1 for the whole vocabulary
    "logprobs": ("logprobs", "top_logprobs", "prompt_logprobs", "top_n_tokens"),
}
_LISTS = (
    "prompt",
    "prompt_embeds",
    "input",
    "inputs",
    "texts",
    "images",
    "documents",
    "queries",
    "text_1",
    "text_2",
    "data_1",
    "data_2",
)
# The names of the length that a path's own API reads, the one that gets the limit first; other paths make no
# text. A name of another API is no length there: engines pass over it.
_LENGTHS_OF = {
    "/v1/chat/completions": ("max_tokens", "max_completion_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/messages": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
}
_CONVERSATIONS = frozenset({"/v1/responses"})


def limits_apply(model: Model) -> bool:
    """Whether requests for ``model`` must be looked at; cheap when not."""
    return model.limits is not NO_LIMITS and model.limits != NO_LIMITS


def limited(model: Model, path: str, body: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    """A body and its bytes within the limits of ``model``; both as they came where nothing changes.

    Raises ``InvalidFieldError`` for what is above a limit, ``BodyTooLargeError`` for its size.
    """
    if not limits_apply(model):
        return body, raw
    check_size(model, len(raw))
    within = bounded(model.limits, body, _LENGTHS_OF.get(path, ()), lists=path not in _CONVERSATIONS)
    return (body, raw) if within is body else (within, dumps(within))


def check_size(model: Model, size: int) -> None:
    """Raises ``BodyTooLargeError`` for a body of ``size`` bytes above the model's limit."""
    most = model.limits.body_bytes
    if most is not None and size > most:
        raise BodyTooLargeError(
            f"the body is larger than {most} bytes, the limit of model {model.id!r}; send less"
        )


def bounded(
    limits: Limits,
    fields: dict[str, Any],
    lengths: Sequence[str],
    *,
    lists: bool = True,
    status: int = 400,
) -> dict[str, Any]:
    """``fields`` within ``limits``, the same object where nothing changes. ``lengths`` are the names that the
    engine reads an answer's length by: where none of them is there the first gets the limit. ``lists`` is
    whether lists hold prompts.

    Raises ``InvalidFieldError`` with ``status``.
    """
    for limit, names in _COUNTS.items():
        most = getattr(limits, limit)
        if most is not None:
            for name in names:
                _check_count(name, fields.get(name), most, status)
    if limits.prompts is not None and lists:
        for name in _LISTS:
            count = _entries(fields.get(name))
            if count > limits.prompts:
                raise InvalidFieldError(
                    f"{name!r} may hold at most {limits.prompts} entries for this model, it holds {count}; "
                    "send several requests",
                    status=status,
                    param=name,
                )
    return fields if limits.max_tokens is None else _shortened(fields, limits.max_tokens, lengths, status)


def _shortened(fields: dict[str, Any], most: int, lengths: Sequence[str], status: int) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name in _LENGTHS:
        value = fields.get(name)
        if value is None:
            continue
        if _number(name, value, status) > most:
            changed[name] = most
    if lengths and all(fields.get(name) is None for name in lengths):
        changed[lengths[0]] = most
    return {**fields, **changed} if changed else fields


def _check_count(name: str, value: Any, most: int, status: int) -> None:
    # `logprobs` of a chat is true or false, its number stands in `top_logprobs`
    if value is None or (name == "logprobs" and isinstance(value, bool)):
        return
    number = _number(name, value, status)
    if not 0 <= number <= most:
        raise InvalidFieldError(
            f"{name!r} may be at most {most} for this model, it is {number}; ask for less",
            status=status,
            param=name,
        )


def _number(name: str, value: Any, status: int) -> int:
    # engines read "5" and 5.0 as 5 too, which would be a way around the limit
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidFieldError(f"{name!r} must be a whole number", status=status, param=name)
    return value


def _entries(value: Any) -> int:
    """How many prompts a field holds; a list of token numbers is one."""
    if isinstance(value, Mapping):
        value = value.get("content")
    if not isinstance(value, list) or not value:
        return 0
    return 1 if all(isinstance(item, int) for item in value) else len(value)
