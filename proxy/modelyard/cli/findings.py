"""What the commands that look and judge have in common: findings as a table for each host, exit codes, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.tables import cell, rows

FOUND = 2  # exit code: something was found
NOT_SEEN = 3  # exit code: nothing was found, but not everything could be looked at
UNKNOWN = "unknown"

Column = tuple[str, str, bool]
"""Heading, key, and whether what stands there is a name: one word that can be copied. Everything else is wrapped."""


def exit_code(result: Mapping[str, Any], found: Collection[str]) -> int:
    """2 with a finding of the severities that count as ``found``, 3 with something unknown and none of them, else 0."""
    severities = set(counts(result))
    return FOUND if severities & set(found) else NOT_SEEN if UNKNOWN in severities else 0


def counts(result: Mapping[str, Any]) -> Counter[str]:
    """How many findings there are of each severity."""
    return Counter(str(item.get("severity")) for item in rows(result.get("findings")))


def show_findings(
    console: Console, result: Mapping[str, Any], columns: Sequence[Column], colours: Mapping[str, str]
) -> None:
    """A table for each host that has findings, the first column in the colour of the severity."""
    for host, items in groupby(rows(result.get("findings")), key=lambda item: str(item.get("host"))):
        table = Table(title=Text(host), title_justify="left", title_style="bold")
        for heading, _, name in columns:
            table.add_column(heading, overflow="fold", no_wrap=name)
        for item in items:
            first, *others = (item.get(key) for _, key, _ in columns)
            style = colours.get(str(item.get("severity")), "")
            table.add_row(Text(str(first), style=style), *(cell(value) for value in others))
        console.print(table)


def show_notes(console: Console, result: Mapping[str, Any]) -> None:
    """A line for each note of a result."""
    for note in result.get("notes") or []:
        console.print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)


def summed_up(
    result: Mapping[str, Any], severity: str, told: Callable[[int], str], none_seen: str, none: str
) -> str:
    """One line: how many were found (``told`` of their number), or that there are none, with how much is unknown."""
    counted = counts(result)
    if counted[severity]:
        unknown = f", {counted[UNKNOWN]} unknown" if counted[UNKNOWN] else ""
        return f"{told(counted[severity])}{unknown}."
    return f"{none_seen}, but {counted[UNKNOWN]} unknown." if counted[UNKNOWN] else f"{none}."
