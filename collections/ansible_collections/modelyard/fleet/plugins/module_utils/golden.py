"""The golden answer: what a replica must say, and how fast, before it gets requests."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

SHOWN = 200
"""Characters of an answer that a failure shows."""


@dataclass(frozen=True)
class Golden:
    """What is asked, and what must come: the whole text, a pattern in it, or a speed (tokens per second)."""

    prompt: str
    max_tokens: int = 64
    expect: str | None = None
    pattern: str | None = None
    min_tokens_per_s: float | None = None
    timeout_s: float = 120.0


def read(wish: Any) -> Golden | None:
    """The ``golden`` of an assignment; None when the model has none. Raises ``TypeError`` for unknown keys."""
    return Golden(**wish) if wish else None


def questions(golden: Golden, served_name: str, dialect: str) -> list[tuple[str, dict[str, Any]]]:
    """Requests of this dialect, always answered alike; the next is tried where the first is refused."""
    if dialect == "tgi":
        parameters = {"max_new_tokens": golden.max_tokens, "do_sample": False, "seed": 0, "details": True}
        return [("/generate", {"inputs": golden.prompt, "parameters": parameters})]
    common = {"model": served_name, "max_tokens": golden.max_tokens, "temperature": 0, "seed": 0}
    return [
        ("/v1/chat/completions", {**common, "messages": [{"role": "user", "content": golden.prompt}]}),
        ("/v1/completions", {**common, "prompt": golden.prompt}),
    ]


def tokens_of(document: Any) -> int | None:
    """How many tokens the engine says that it made."""
    try:
        first = document[0] if isinstance(document, list) else document
        if "usage" in first:
            return int(first["usage"]["completion_tokens"])
        return int(first["details"]["generated_tokens"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def verdict(golden: Golden, text: str, tokens: int | None, seconds: float) -> str | None:
    """None when the answer is right, else one sentence that says what was wanted and what came."""
    if golden.expect is not None and text.strip() != golden.expect.strip():
        return f"its golden answer is not {shown(golden.expect)} but {shown(text)}"
    if golden.pattern is not None and re.search(golden.pattern, text) is None:
        return f"its golden answer does not match {shown(golden.pattern)}: {shown(text)}"
    if golden.min_tokens_per_s is not None:
        if tokens is None:
            return "its golden answer does not say how many tokens it has, so its speed (min_tokens_per_s) is not known"
        speed = tokens / max(seconds, 1e-6)
        if speed < golden.min_tokens_per_s:
            return (
                f"its golden answer came at {speed:.1f} tokens/s ({tokens} in {seconds:.2f} s), and "
                f"{golden.min_tokens_per_s:g} are asked for"
            )
    return None


def shown(text: str) -> str:
    """A text as a quoted string of one line, cut where it is long."""
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if len(quoted) <= SHOWN else f'{quoted[:SHOWN]}..." ({len(text)} characters)'
