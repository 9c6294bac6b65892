"""``modelyard status``: what runs on every host, as the hosts and the proxies tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.tables import cell, rows, state
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

# (heading, keys of which the first present one counts, how it is shown)
Column = tuple[str, tuple[str, ...], Callable[[Any], Text]]

_HOSTS: Sequence[Column] = (
    ("host", ("name", "host"), cell), ("state", ("state",), state), ("Docker", ("docker",), cell),
    ("GPUs", ("gpus",), cell), ("up", ("replicas_up",), cell), ("down", ("replicas_down",), cell),
    ("unknown", ("replicas_unknown",), cell), ("note", ("reason", "note"), cell),
)  # fmt: skip
_REPLICAS: Sequence[Column] = (
    ("replica", ("replica", "name"), cell), ("model", ("model",), cell), ("host", ("host",), cell),
    ("state", ("state",), state), ("health", ("health",), state), ("port", ("port",), cell),
    ("GPUs", ("gpus",), cell), ("since", ("since", "started_at"), cell), ("note", ("reason",), cell),
)  # fmt: skip
_PROXIES: Sequence[Column] = (
    ("proxy", ("host", "name"), cell), ("URL", ("url",), cell), ("state", ("state",), state),
    ("ready", ("ready",), cell), ("generation", ("generation",), cell), ("models", ("models",), cell),
)  # fmt: skip
_ENDPOINTS: Sequence[Column] = (
    ("model", ("model",), cell), ("endpoint", ("id", "endpoint"), cell), ("URL", ("url",), cell),
    ("state", ("state",), state),
)  # fmt: skip
_SECTIONS = (
    ("hosts", "Hosts", _HOSTS), ("replicas", "Replicas", _REPLICAS),
    ("proxies", "Proxies", _PROXIES), ("endpoints", "Endpoints", _ENDPOINTS),
)  # fmt: skip


@click.command()
@inventory_options
def status(inventory: str, limit: str | None, as_json: bool) -> None:
    """Show hosts, replicas, proxies and endpoints: up, down or unknown. Touches nothing.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard status -i inventories/production[/cyan]
      [cyan]modelyard status --limit gpu01 --json | jq '.replicas[] | select(.state != "up")'[/cyan]

    Unknown means that nobody could be asked; it is never shown as down.
    Exit code 0: the fleet was looked at. 1: a problem was found.
    """  # noqa: D301
    show_outcome(run_verb("status", inventory, limit, as_json=as_json), render_status, as_json=as_json)


def render_status(console: Console, result: Mapping[str, Any]) -> None:
    """One table for each part that the result has, and one line that sums up the replicas."""
    for key, title, columns in _SECTIONS:
        found = list(rows(result.get(key)))
        if found:
            console.print(_table(title, columns, found))
    counts = Counter(str(item.get("state") or "unknown") for item in rows(result.get("replicas")))
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    console.print(f"Replicas: {told}." if told else "No replica is known.")


def _table(title: str, columns: Sequence[Column], items: Sequence[Mapping[str, Any]]) -> Table:
    """A table without the columns of which no item has anything to say."""
    used = [column for column in columns if any(_value(item, column[1]) is not None for item in items)]
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading, _, _ in used:
        table.add_column(heading, overflow="fold")
    for item in items:
        table.add_row(*(show(_value(item, keys)) for _, keys, show in used))
    return table


def _value(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)
