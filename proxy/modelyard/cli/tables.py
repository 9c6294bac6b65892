"""Cells for tables about a fleet. Values come from JSON that a playbook wrote: anything may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

_STATES = {
    "up": "green", "healthy": "green", "ready": "green", "active": "green", "ok": "green",
    "down": "red", "unhealthy": "red", "absent": "red", "disabled": "red", "failed": "red",
    "unknown": "magenta",
}  # fmt: skip
NOTHING = "–"


def rows(value: Any) -> Iterator[Mapping[str, Any]]:
    """The objects of a list; of a mapping its values, each with its key as ``name``."""
    if isinstance(value, Mapping):
        value = [{"name": key, **item} for key, item in value.items() if isinstance(item, Mapping)]
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))


def cell(value: Any) -> Text:
    """Any value as text, without reading markup in it; nothing as a dash."""
    if value is None or value == "" or value == [] or value == {}:
        return Text(NOTHING, style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list | tuple):
        return Text(", ".join(str(item) for item in value))
    if isinstance(value, Mapping):
        return Text(", ".join(f"{key} {item}" for key, item in value.items()))
    return Text(str(value))


def state(value: Any) -> Text:
    """A state in its colour. What nobody knows is shown as unknown, never as down."""
    text = str(value) if value not in (None, "") else "unknown"
    return Text(text, style=_STATES.get(text, "yellow"))
