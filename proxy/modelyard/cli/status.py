"""``modelyard status``: what runs on every host, as the hosts and the proxies tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.tables import age, cell, is_nothing, rows, show_holds, state
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

_EXIT_CODES = {"down": 2, "unknown": 3}

# (heading, keys of which the first present one counts, how it is shown)
Show = Callable[[Any, datetime], Text]
Column = tuple[str, tuple[str, ...], Show]


def _cell(value: Any, _: datetime) -> Text:
    return cell(value)


def _state(value: Any, _: datetime) -> Text:
    return state(value)


def _counts(value: Any, _: datetime) -> Text:
    items = value.items() if isinstance(value, Mapping) else ()
    return cell(", ".join(f"{count} {name}" for name, count in items))


_HOSTS: Sequence[Column] = (
    ("host", ("name", "host"), _cell), ("state", ("state",), _state), ("Docker", ("docker",), _cell),
    ("GPUs", ("gpus",), _cell), ("used", ("gpus_used",), _cell), ("free", ("gpus_free",), _cell),
    ("blocked", ("gpus_blocked",), _cell), ("unwell", ("gpus_unwell",), _cell), ("up", ("replicas_up",), _cell),
    ("down", ("replicas_down",), _cell), ("unknown", ("replicas_unknown",), _cell), ("note", ("reason", "note"), _cell),
)  # fmt: skip
_REPLICAS: Sequence[Column] = (
    ("replica", ("replica", "name"), _cell), ("model", ("model",), _cell), ("host", ("host",), _cell),
    ("state", ("state",), _state), ("health", ("health",), _state), ("port", ("port",), _cell),
    ("GPUs", ("gpus",), _cell), ("since", ("since", "started_at"), age), ("note", ("reason",), _cell),
)  # fmt: skip
_PROXIES: Sequence[Column] = (
    ("proxy", ("host", "name"), _cell), ("URL", ("url",), _cell), ("state", ("state",), _state),
    ("ready", ("ready",), _cell), ("generation", ("generation",), _cell), ("in force", ("in_force",), _cell),
    ("endpoints", ("endpoints",), _counts), ("models", ("models",), _cell),
)  # fmt: skip
_EDGE: Sequence[Column] = (
    ("edge", ("host",), _cell), ("state", ("state",), _state), ("keepalived", ("address_service",), _state),
    ("holds", ("holds",), _cell), ("certificate", ("certificate",), _cell), ("days left", ("days_left",), _cell),
    ("proxies up", ("proxies_up",), _cell), ("proxies down", ("proxies_down",), _cell), ("note", ("reason",), _cell),
)  # fmt: skip
_EDGE_ADDRESSES: Sequence[Column] = (
    ("address", ("address",), _cell), ("state", ("state",), _state), ("held by", ("holders",), _cell),
    ("note", ("reason",), _cell),
)  # fmt: skip
_ENDPOINTS: Sequence[Column] = (
    ("model", ("model",), _cell), ("endpoint", ("id", "endpoint"), _cell), ("URL", ("url",), _cell),
    ("state", ("state",), _state),
)  # fmt: skip
_RELEASES: Sequence[Column] = (
    ("model", ("model",), _cell), ("release", ("release",), _cell), ("applied", ("at",), age),
    ("by", ("who",), _cell), ("held at", ("held_at",), _cell), ("note", ("problem",), _cell),
)  # fmt: skip
_SECTIONS = (
    ("hosts", "Hosts", _HOSTS), ("replicas", "Replicas", _REPLICAS),
    ("proxies", "Proxies", _PROXIES), ("edge", "Edge", _EDGE), ("edge_addresses", "Edge addresses", _EDGE_ADDRESSES),
    ("endpoints", "Endpoints", _ENDPOINTS), ("releases", "Releases", _RELEASES),
)  # fmt: skip


@click.command()
@inventory_options
def status(inventory: str, limit: str | None, as_json: bool) -> None:
    """Show hosts, replicas, proxies, the edge and endpoints: up, down or unknown. Touches nothing.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard status -i inventories/production[/cyan]
      [cyan]modelyard status --limit gpu01 --json | jq '.replicas[] | select(.state != "up")'[/cyan]

    Unknown means that nobody could be asked; it is never shown as down.
    Exit code 0: all that is wished is up. 1: the fleet could not be looked at. 2: something is down. 3: nothing is
    known to be down, but something is unknown.
    """  # noqa: D301
    outcome = run_verb("status", inventory, limit, as_json=as_json)
    show_outcome(outcome, partial(render_status, now=datetime.now(UTC)), as_json=as_json)
    code = _EXIT_CODES.get(str((outcome.result or {}).get("overall")), 0)
    if code:
        raise Exit(code)


def render_status(console: Console, result: Mapping[str, Any], *, now: datetime) -> None:
    """One table for each part that the result has, and one line that sums up the replicas.

    Moments are shown as the time since then, seen from ``now`` (with a time zone).
    """
    for key, title, columns in _SECTIONS:
        found = list(rows(result.get(key)))
        if found:
            console.print(_table(title, columns, found, now))
    counts = Counter(str(item.get("state") or "unknown") for item in rows(result.get("replicas")))
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    console.print(f"Replicas: {told}." if told else "No replica is known.")
    show_holds(console, result)


def _table(title: str, columns: Sequence[Column], items: Sequence[Mapping[str, Any]], now: datetime) -> Table:
    """A table without the columns of which no item has anything to say."""
    used = [column for column in columns if any(_value(item, column[1]) is not None for item in items)]
    table = Table(title=title, title_justify="left", title_style="bold")
    for place, (heading, _, _) in enumerate(used):
        table.add_column(heading, overflow="fold", no_wrap=place == 0)
    for item in items:
        table.add_row(*(show(_value(item, keys), now) for _, keys, show in used))
    return table


def _value(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if not is_nothing(item.get(key))), None)
