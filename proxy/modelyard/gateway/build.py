"""How this package was built."""

from __future__ import annotations

from . import usage


def is_compiled() -> bool:
    """Whether the path of requests runs as machine code; the project's build hook compiles it as one, or not at all."""
    return not (usage.__file__ or "").endswith(".py")
