"""What the hash policies stick to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

_PREFIX_CHARS = 512
_PROMPTS = ("messages", "prompt", "inputs")


def affinity_key(policy: str, session: str | None, body: Mapping[str, Any]) -> str | None:
    """The key of a request: the session that a client names (``session`` is its header), or the beginning of its
    prompt. ``None`` for other policies, and where the request has neither.
    """
    if policy == "session_hash":
        named = session or body.get("session_id") or body.get("user")
        return named if isinstance(named, str) else None
    if policy == "prefix_hash":
        for name in _PROMPTS:
            if prompt := body.get(name):
                return prompt[:_PREFIX_CHARS] if isinstance(prompt, str) else _beginning(prompt)
    return None


def _beginning(prompt: Any) -> str:
    """The first characters of a prompt that is no text: messages, parts, tokens, however deep and long.

    No more of it is looked at than counts: a picture in it may have megabytes.
    """
    pieces: list[str] = []
    left = _PREFIX_CHARS
    ahead = [prompt]
    while ahead and left > 0:
        value = ahead.pop()
        # each element takes a character at least, so that those after as many do not count
        if isinstance(value, str):
            piece = value[:left]
        elif isinstance(value, dict):
            ahead += reversed(list(chain.from_iterable(islice(value.items(), left))))
            continue
        elif isinstance(value, list):
            ahead += reversed(value[:left])
            continue
        else:
            piece = str(value)
        pieces.append(piece)
        left -= len(piece) + 1
    return "\0".join(pieces)
