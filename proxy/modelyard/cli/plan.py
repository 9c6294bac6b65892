"""``modelyard plan``: what a deployment would change, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.tables import cell, rows, show_holds
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

# In the order in which they are shown: what interrupts service first.
_ACTIONS = {"replace": "yellow", "stop": "red", "start": "green", "unknown": "magenta", "keep": "dim"}


@click.command()
@inventory_options
def plan(inventory: str, limit: str | None, as_json: bool) -> None:
    """Show what a deployment would start, stop, replace and keep, and why. Touches nothing.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard plan -i inventories/production[/cyan]
      [cyan]modelyard plan -i inventories/production --json | jq .changes[/cyan]

    A host that does not answer is unknown: its replicas are kept as they are and shown as such.
    Exit code 0: the wish can be met. 1: it cannot, or the fleet could not be looked at.
    """  # noqa: D301
    show_outcome(run_verb("plan", inventory, limit, as_json=as_json), render_plan, as_json=as_json)


def render_plan(console: Console, result: Mapping[str, Any]) -> None:
    """The changes as a table, most disruptive first, and one line that sums them up."""
    assigned = {str(item.get("replica")): item for item in rows(result.get("assignments"))}
    changes = sorted(rows(result.get("changes")), key=_rank)
    if changes:
        table = Table(title="Plan", title_justify="left", title_style="bold")
        for name in ("action", "replica", "host", "GPUs", "port", "reason"):
            # Wrapping is for reasons; a replica's name must stay one word that can be copied.
            table.add_column(name, overflow="fold", no_wrap=name in ("action", "replica", "port"))
        for change in changes:
            table.add_row(*_row(change, assigned.get(str(change.get("replica")), {})))
        console.print(table)
    console.print(summary(Counter(str(change.get("action", "unknown")) for change in changes)))
    show_holds(console, result)


def summary(counts: Mapping[str, int]) -> str:
    """The one line under the table."""
    told = [f"{counts[action]} to {action}" for action in ("start", "stop", "replace") if counts.get(action)]
    told += [f"{counts['keep']} kept"] if counts.get("keep") else []
    told += [f"{counts['unknown']} unknown, left alone"] if counts.get("unknown") else []
    if not told:
        return "Nothing is wished for and nothing runs."
    if not any(counts.get(action) for action in ("start", "stop", "replace")):
        return f"Nothing to do: {', '.join(told)}."
    return f"{', '.join(told)}."


def _rank(change: Mapping[str, Any]) -> tuple[int, str]:
    order = list(_ACTIONS)
    action = change.get("action")
    return (order.index(action) if action in order else len(order), str(change.get("replica")))


def _row(change: Mapping[str, Any], assignment: Mapping[str, Any]) -> list[Text]:
    action = str(change.get("action", "unknown"))
    return [
        Text(action, style=_ACTIONS.get(action, "")),
        cell(change.get("replica")),
        cell(change.get("host") or assignment.get("host")),
        cell(assignment.get("gpus") or change.get("gpus")),
        cell(assignment.get("port") or change.get("port")),
        cell(change.get("reason")),
    ]
