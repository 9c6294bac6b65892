"""OpenAI's answer made of TGI's reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .request import Wanted


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer begins with. ``created`` is in seconds since the epoch."""

    request_id: str
    created: int

    def of(self, wanted: Wanted, *, chunk: bool) -> dict[str, Any]:
        """The keys before ``choices``."""
        if not wanted.chat:
            prefix, kind = "cmpl-", "text_completion"
        else:
            prefix, kind = "chatcmpl-", "chat.completion.chunk" if chunk else "chat.completion"
        return {
            "id": prefix + self.request_id,
            "object": kind,
            "created": self.created,
            "model": wanted.model,
            "system_fingerprint": "tgi",
        }


def finish_reason(word: object) -> str:
    """OpenAI's word for TGI's."""
    return "length" if word == "length" else "stop"


def usage_of(prompt: int | None, generated: int | None) -> dict[str, int]:
    """OpenAI's ``usage``; what is not known counts as 0."""
    return {
        "prompt_tokens": prompt or 0,
        "completion_tokens": generated or 0,
        "total_tokens": (prompt or 0) + (generated or 0),
    }


def logprobs_of(
    tokens: Sequence[Any], top: Sequence[Any], wanted: Wanted, *, begin: int = 0
) -> dict[str, Any] | None:
    """OpenAI's ``logprobs`` of some tokens with the likely ones beside each; ``None`` when not wanted. ``begin``
    is where in the text the first of them stands.
    """
    if wanted.logprobs is None:
        return None
    rows = [
        [item for item in (top[place] if place < len(top) else []) if isinstance(item, dict)]
        for place in range(len(tokens))
    ]
    if wanted.chat:
        return {
            "content": [
                {**_chat_token(item), "top_logprobs": [_chat_token(other) for other in row]}
                for item, row in zip(tokens, rows, strict=True)
            ]
        }
    texts = [str(item.get("text", "")) for item in tokens]
    offsets = [begin + sum(map(len, texts[:place])) for place in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [item.get("logprob") for item in tokens],
        "top_logprobs": [{str(o.get("text", "")): o.get("logprob") for o in row} for row in rows],
        "text_offset": offsets,
    }


def _chat_token(item: Mapping[str, Any]) -> dict[str, Any]:
    text = str(item.get("text", ""))
    return {"token": text, "logprob": item.get("logprob"), "bytes": list(text.encode("utf-8", "replace"))}


def without_stop(text: str, word: object, stops: Sequence[str]) -> str:
    """``text`` as OpenAI gives it: TGI keeps the stop sequence that ended it."""
    if word == "stop_sequence":
        for stop in stops:
            if text.endswith(stop):
                return text.removesuffix(stop)
    return text


def from_generate(
    answer: Mapping[str, Any], wanted: Wanted, head: Head, prompt_tokens: int | None
) -> dict[str, Any] | None:
    """The whole answer; ``None`` when TGI's reply holds no text. ``prompt_tokens`` is what TGI's header
    ``x-prompt-tokens`` said.
    """
    text = answer.get("generated_text")
    if not isinstance(text, str):
        return None
    details = answer.get("details")
    details = details if isinstance(details, dict) else {}
    word = details.get("finish_reason")
    text = without_stop(text, word, wanted.stops)
    tokens = [item for item in details.get("tokens") or [] if isinstance(item, dict)]
    logprobs = logprobs_of(tokens, details.get("top_tokens") or [], wanted)
    said: dict[str, Any] = {"text": text}
    if wanted.chat:
        said = {"message": {"role": "assistant", "content": text, "refusal": None}}
    choice = {"index": 0, **said, "logprobs": logprobs, "finish_reason": finish_reason(word)}
    generated = details.get("generated_tokens")
    return {
        **head.of(wanted, chunk=False),
        "choices": [choice],
        "usage": usage_of(prompt_tokens, generated if isinstance(generated, int) else None),
    }
