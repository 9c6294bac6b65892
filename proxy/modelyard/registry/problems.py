"""One fault of a registry file, and how it is told to a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault: the file, the path inside it, what is wrong and what to do, and the line where known."""

    file: str
    path: Path
    message: str
    line: int | None = None
    column: int | None = None

    @property
    def model(self) -> str | None:
        """The model it belongs to, if any."""
        if len(self.path) >= 2 and self.path[0] == "models":
            return str(self.path[1])
        return None

    @property
    def field(self) -> str:
        """The field inside the model (or the file), such as ``endpoints[0].url``."""
        return dotted(self.path[2:] if self.model is not None else self.path)

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        parts = [place]
        if self.model is not None:
            parts.append(f"model {_shown(self.model)}")
        if self.field:
            parts.append(_shown(self.field))
        return ": ".join([*parts, self.message])


def _shown(name: str) -> str:
    """A name out of the file, on one line."""
    return name if name.isprintable() and len(name) <= 200 else short(name)


def dotted(path: Path) -> str:
    """``("endpoints", 0, "url")`` as ``endpoints[0].url``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def with_lines(problems: list[Problem], lines: Mapping[Path, int]) -> list[Problem]:
    """The problems with the line of their path, or of its nearest parent that has one."""
    located = []
    for problem in problems:
        line = problem.line
        path = problem.path
        while line is None and path:
            line = lines.get(path)
            path = path[:-1]
        located.append(problem if line == problem.line else replace(problem, line=line))
    return located


def short(value: Any) -> str:
    """A value as it may stand in a message: one line, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
