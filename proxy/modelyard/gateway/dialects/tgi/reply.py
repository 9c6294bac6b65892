"""TGI's reply made of a completion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.errors import UpstreamBrokenError

from ..streams import GIVEN_UP
from .request import Asked

# An engine that was not asked for them gives no log probabilities; TGI's clients want a number.
_UNKNOWN_LOGPROB = 0.0


def token(number: int, text: str, logprob: float | None = None, *, special: bool = False) -> dict[str, Any]:
    """One token in TGI's shape."""
    return {
        "id": number,
        "text": text,
        "logprob": _UNKNOWN_LOGPROB if logprob is None else logprob,
        "special": special,
    }


def finish_word(choice: Mapping[str, Any]) -> str:
    """TGI's word for why a choice ended. Raises ``UpstreamBrokenError`` where the engine gave it up."""
    reason = choice.get("finish_reason")
    if reason in GIVEN_UP:
        raise UpstreamBrokenError(f"it gave the generation up ({reason})")
    if reason == "length":
        return "length"
    # vLLM tells which stop string ended the text; without one it was the end-of-sequence token
    return "stop_sequence" if isinstance(choice.get("stop_reason"), str) else "eos_token"


def tokens_of(
    choice: Mapping[str, Any], text: str, top: int
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The tokens that make up ``text`` of a choice, or of a piece of one, and the most likely ones beside them.

    Without log probabilities the texts of several tokens cannot be told apart: the first has all of it.
    """
    ids = choice.get("token_ids")
    ids = ids if isinstance(ids, list) else []
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        texts, values = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
        numbers = ids if len(ids) == len(texts) else [0] * len(texts)
        if len(texts) == 1:
            texts = [text]
        made = [token(*parts) for parts in zip(numbers, texts, values, strict=False)]
        beside = logprobs.get("top_logprobs") or []
        return made, [
            _top(made[place], row, top) for place, row in enumerate(beside[: len(made)])
        ] if top else []
    if not ids:
        return ([token(0, text)] if text else []), []
    return [token(number, text if place == 0 else "") for place, number in enumerate(ids)], []


def from_completion(answer: Mapping[str, Any], request: Asked) -> dict[str, Any] | None:
    """The reply for a whole completion, ``details`` included where asked for; ``None`` when there is no text
    in it. Of ``best_of`` choices the one with the highest mean log probability comes first, as in TGI.
    """
    choices = answer.get("choices")
    choices = [item for item in choices if _has_text(item)] if isinstance(choices, list) else []
    if not choices:
        return None
    if request.best_of > 1:
        choices.sort(key=_likelihood, reverse=True)
    first = choices[0]
    reply: dict[str, Any] = {"generated_text": request.text(first["text"])}
    told = [_details(choice, answer, request, alone=len(choices) == 1) for choice in choices]
    if request.details:
        reply["details"] = told[0]
        if len(choices) > 1:
            told[0]["best_of_sequences"] = [
                {"generated_text": request.text(choice["text"]), **details}
                for choice, details in zip(choices[1:], told[1:], strict=True)
            ]
    return reply


def headers_of(answer: Mapping[str, Any], request: Asked, total_s: float) -> dict[str, str]:
    """TGI's accounting headers, as far as they are known; times are in milliseconds, ``x-compute-time`` in
    seconds.
    """
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    prompt, generated = usage.get("prompt_tokens"), usage.get("completion_tokens")
    headers = {
        **stream_headers(request),
        "x-compute-time": f"{total_s:.6f}",
        "x-total-time": str(round(total_s * 1000)),
    }
    if isinstance(prompt, int):
        headers["x-prompt-tokens"] = str(prompt)
    if isinstance(generated, int):
        headers["x-generated-tokens"] = str(generated)
        headers["x-time-per-token"] = str(round(total_s * 1000 / max(1, generated)))
    return headers


def stream_headers(request: Asked) -> dict[str, str]:
    """Those that are known before the first token."""
    return {"x-compute-type": "modelyard", "x-compute-characters": str(len(request.inputs))}


def _details(
    choice: Mapping[str, Any], answer: Mapping[str, Any], request: Asked, *, alone: bool
) -> dict[str, Any]:
    tokens, top = (
        tokens_of(choice, choice["text"], request.top_n_tokens) if request.single_tokens else ([], [])
    )
    usage = answer.get("usage")
    generated = len(tokens)
    if alone and isinstance(usage, dict):
        generated = usage.get("completion_tokens", generated)
    reason = finish_word(choice)
    if tokens and reason == "eos_token" and not tokens[-1]["text"]:
        tokens[-1]["special"] = True
    details: dict[str, Any] = {
        "finish_reason": reason,
        "generated_tokens": generated,
        "seed": request.seed,
        "prefill": _prefill(choice) if request.prefill else [],
        "tokens": tokens,
    }
    if request.top_n_tokens:
        details["top_tokens"] = top
    return details


def _prefill(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The prompt's tokens. vLLM's row for each holds the token that stands there, the first row nothing."""
    rows, ids = choice.get("prompt_logprobs"), choice.get("prompt_token_ids")
    if not isinstance(rows, list) or not isinstance(ids, list):
        return []
    found = []
    for number, row in zip(ids, rows, strict=False):
        entry = row.get(str(number)) if isinstance(row, dict) else None
        entry = entry if isinstance(entry, dict) else {}
        found.append(
            {"id": number, "text": entry.get("decoded_token") or "", "logprob": entry.get("logprob")}
        )
    return found


def _top(chosen: Mapping[str, Any], row: object, most: int) -> list[dict[str, Any]]:
    """The ``most`` likeliest tokens of one place; only the chosen one's number is known."""
    likely: Sequence[tuple[str, Any]] = sorted(
        row.items() if isinstance(row, dict) else (), key=lambda item: item[1], reverse=True
    )
    return [
        token(chosen["id"] if text == chosen["text"] else 0, text, logprob) for text, logprob in likely[:most]
    ]


def _likelihood(choice: Mapping[str, Any]) -> float:
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    return math.fsum(values) / len(values) if values else -math.inf


def _has_text(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("text"), str)
