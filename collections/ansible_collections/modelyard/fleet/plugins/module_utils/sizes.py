"""Sizes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+)\s*([kmg]?)b?", re.IGNORECASE)


def size_bytes(text: str) -> int:
    """``50m`` in bytes. Raises ``ValueError`` with a sentence."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write a number with k, m or g")
    factor = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[match[2].lower()]
    return int(match[1]) * factor
