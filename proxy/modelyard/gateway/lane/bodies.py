"""What the lane reads of a request's body, and the one thing it may change in it."""

from __future__ import annotations

import re
from typing import Any

import orjson

from ..dialects.wishes import dumps

_MODEL = re.compile(rb'"model"\s*:\s*"[^"\\]*"')


def renamed(body: bytes, document: dict[str, Any], name: str) -> bytes:
    """``body``, which says ``document``, with another ``model``; nothing else changes, where that can be done.

    Raises ``BadRequestError`` for what is nested too deeply to be written.
    """
    wished = {**document, "model": name}
    found = _MODEL.search(body)
    if found is not None:
        spliced = b'%b"model":%b%b' % (body[: found.start()], orjson.dumps(name), body[found.end() :])
        # the first such words may be a part of the prompt, or of something inside
        if orjson.loads(spliced) == wished:
            return spliced
    return dumps(wished)
