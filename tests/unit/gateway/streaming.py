"""Driving a stream translator by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from modelyard.gateway.dialects.streams import StreamTranslator


def stream(*messages: Any, done: bool = True, prefix: bytes = b"data: ") -> bytes:
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in messages]
    return b"".join(prefix + line + b"\n\n" for line in [*lines, *([b"[DONE]"] if done else [])])


def fed(translator: StreamTranslator, data: bytes, cuts: Sequence[int] = ()) -> bytes:
    """Everything that ``data`` becomes, cut at ``cuts``; the end is left to the caller."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return b"".join(translator.feed(data[a:b]) for a, b in itertools.pairwise(places))


def whole(make: Callable[[], StreamTranslator], data: bytes, cuts: Sequence[int] = ()) -> bytes:
    translator = make()
    out = fed(translator, data, cuts)
    assert translator.fault is None
    return out + translator.end()


def messages(data: bytes) -> list[Any]:
    """The events' objects; ``[DONE]`` as that text."""
    assert not data or data.endswith(b"\n\n")
    found = []
    for event in data.split(b"\n\n")[:-1]:
        assert event.startswith(b"data:")
        text = event.removeprefix(b"data:").strip()
        found.append("[DONE]" if text == b"[DONE]" else json.loads(text))
    return found
