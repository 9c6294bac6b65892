"""Showing problems: one row each, with the file, the place in it, what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. ``file`` may carry a line (``models.yml:12``); ``advice`` is what to do, where known."""

    message: str
    file: str = ""
    where: str = ""
    advice: str = ""

    def line(self) -> str:
        """All of it in one line."""
        said = f"{self.message} {self.advice}".strip()
        return ": ".join(part for part in (self.file, self.where, said) if part)

    def as_json(self) -> dict[str, str]:
        """All four parts."""
        return asdict(self)


def problem_of(value: Any) -> Problem:
    """A problem from what a loader or a playbook reports: an object, a mapping or a sentence."""
    if isinstance(value, Problem):
        return value
    if isinstance(value, str):
        return Problem(value)

    def part(*names: str) -> str:
        for name in names:
            found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
            if found not in (None, "", ()):
                return str(found)
        return ""

    file, line = part("file"), part("line")
    column = part("column")
    place = ":".join(item for item in (file, line, column if line else "") if item)
    owners = [f"{owner} {part(owner)}" for owner in ("model", "host") if part(owner)]
    where = " · ".join([*owners, *filter(None, [part("field", "where")])])
    message = part("message", "what", "msg") or str(value)
    return Problem(message, place, where, part("advice", "hint", "fix", "what_to_do"))


def problem_list(value: Any) -> list[Problem]:
    """The problems in a result, whatever shape each has; anything that is no list gives none."""
    return (
        [problem_of(item) for item in value]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else []
    )


def show_problems(console: Console, problems: Sequence[Problem], title: str) -> None:
    """A table with the columns that have something in them; in a pipe one line for each problem."""
    console.print(Text(title, style="bold red"), soft_wrap=True)
    if not console.is_terminal:
        for problem in problems:
            console.print(Text(problem.line()), soft_wrap=True)
        return
    columns = [
        ("file", [item.file for item in problems]),
        ("where", [item.where for item in problems]),
        ("what is wrong", [item.message for item in problems]),
        ("what to do", [item.advice for item in problems]),
    ]
    used = [(name, cells) for name, cells in columns if any(cells)]
    table = Table()
    for name, _ in used:
        table.add_column(name, overflow="fold", style="cyan" if name == "file" else None)
    for row in zip(*(cells for _, cells in used), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
