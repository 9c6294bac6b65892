"""One thing that is wrong with an inventory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where, and what to do about it.

    ``code`` is stable and meant for machines, ``message`` one sentence, ``hint`` the next step or empty.
    ``path`` leads to the value from the variable's name on (``("models", 2, "placement", "gpus")``).
    ``file``, ``line`` and ``column`` (from 1) are None where the value stands in no file that was read.
    """

    code: str
    message: str
    path: KeyPath = ()
    hint: str = ""
    model: str | None = None
    host: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def field(self) -> str:
        """The key path within the model, or the name of the setting: ``placement.gpus``."""
        inside = self.path[2:] if self.path[:1] == ("models",) and len(self.path) > 1 else self.path
        return dotted(inside)

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        parts = [where]
        if self.model is not None:
            parts.append(f"model {self.model}")
        elif self.host is not None:
            parts.append(f"host {self.host}")
        parts.append(self.field)
        text = ": ".join([*filter(None, parts), self.message])
        return f"{text} {self.hint}" if self.hint else text

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "code": self.code,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "model": self.model,
            "host": self.host,
            "field": self.field,
            "message": self.message,
            "hint": self.hint,
        }


def dotted(path: Iterable[str | int]) -> str:
    """``("env", "A", 0)`` as ``env.A[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known name, or all of them when they are few, or nothing."""
    names = sorted(set(known))
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Known: {', '.join(names)}." if 0 < len(names) <= 8 else ""


def some(names: Iterable[str], most: int = 5) -> str:
    """``a, b, c`` with ``and 7 more`` after the first few."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
