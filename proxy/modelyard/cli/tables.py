"""Cells for tables about a fleet. Values come from JSON that a playbook wrote: anything may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
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


def is_nothing(value: Any) -> bool:
    """Whether there is nothing to show; 0 and False are something."""
    return value is None or value == "" or value == [] or value == {}


def cell(value: Any) -> Text:
    """Any value as text, without reading markup in it; nothing as a dash."""
    if is_nothing(value):
        return Text(NOTHING, style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list | tuple):
        return Text(", ".join(_item(item) for item in value))
    if isinstance(value, Mapping):
        return Text(", ".join(f"{key} {item}" for key, item in value.items()))
    return Text(str(value))


def _item(item: Any) -> str:
    """One item of a list; an object with an id, such as a model, as that."""
    if not isinstance(item, Mapping) or "id" not in item:
        return str(item)
    return str(item["id"]) if item.get("available", True) else f"{item['id']} (not available)"


def state(value: Any) -> Text:
    """A state in its colour. What nobody knows is shown as unknown, never as down."""
    text = "unknown" if is_nothing(value) else str(value)
    return Text(text, style=_STATES.get(text, "yellow"))


def age(value: Any, now: datetime) -> Text:
    """How long ago a moment (ISO 8601) was; what is no moment is shown as it is."""
    try:
        then = datetime.fromisoformat(str(value))
    except ValueError:
        return cell(value)
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0, int((now - then).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return Text(f"{seconds // length} {unit}")
    return Text(f"{seconds} s")


def show_holds(console: Console, result: Mapping[str, Any]) -> None:
    """One line for each model that is held at an earlier release, and for what could not be kept of that."""
    for held in rows(result.get("holds")):
        for line in (held.get("text"), *(held.get("notes") or ())):
            console.print(Text(str(line), style="yellow"), soft_wrap=True)
