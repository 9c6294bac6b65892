"""JSON on the hot paths: fast, and still able to read what the fast library refuses."""

from __future__ import annotations

import json
from typing import Any

import orjson


def read(data: bytes) -> Any:
    """The value that ``data`` (UTF-8) says. Raises ``ValueError`` when it is no JSON or nested too deeply."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # half a surrogate pair (a token that is half an emoji) is JSON, but no text that orjson has
        try:
            return json.loads(data)
        except RecursionError as exc:
            raise ValueError("nested too deeply") from exc


def written(value: Any) -> bytes:
    """Compact JSON in UTF-8. ``value`` holds only what ``read`` gives."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
