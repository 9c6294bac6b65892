"""The management key: read from a file, never short, never guessable, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from modelyard.errors import ConfigError

_SHORTEST = 24
_FEWEST_DIFFERENT = 8
# what people leave in place of a key
_WEAK = (
    "changeme",
    "change-me",
    "password",
    "secret",
    "admin",
    "example",
    "default",
    "letmein",
    "modelyard",
    "qwerty",
)


class AdminKey:
    """Holds only a digest of the key."""

    def __init__(self, key: str) -> None:
        self._digest = hashlib.sha256(key.encode()).digest()

    def accepts(self, authorization: str) -> bool:
        """Whether the value of an ``Authorization`` header carries the key as a bearer token."""
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(given, self._digest) and scheme.lower() == "bearer"


def read_admin_key(path: Path) -> AdminKey:
    """The key in ``path`` (first and only line). Raises ``ConfigError`` when it cannot be read or is too
    weak.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        said = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise ConfigError(f"the management key in {path} cannot be read: {said}") from exc
    fault = weakness(text)
    if fault:
        raise ConfigError(f"the management key in {path} {fault}; make one with: openssl rand -hex 32")
    return AdminKey(text)


def weakness(key: str) -> str | None:
    """Why ``key`` is no good, or ``None``. Never repeats it."""
    if not key.isascii() or any(char.isspace() for char in key):
        return "must be one line of ASCII characters without spaces"
    if len(key) < _SHORTEST:
        return f"is shorter than {_SHORTEST} characters"
    without = re.sub("|".join(map(re.escape, _WEAK)), "", key.lower())
    if len(set(key)) < _FEWEST_DIFFERENT or len(without) < _SHORTEST // 2:
        return "is easy to guess"
    return None
