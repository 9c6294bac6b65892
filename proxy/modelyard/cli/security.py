"""``modelyard security``: weaknesses of the fleet's hosts, containers and files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console

from modelyard.cli import findings
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

_COLOURS = {"finding": "red", "unknown": "magenta"}
_COLUMNS: tuple[findings.Column, ...] = (
    ("code", "code", True), ("subject", "subject", False), ("what", "what", False), ("what to do", "todo", False),
)  # fmt: skip


@click.command()
@inventory_options
def security(inventory: str, limit: str | None, as_json: bool) -> None:
    """Look for weaknesses of hosts, containers and files. Touches nothing.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard security -i inventories/production[/cyan]
      [cyan]modelyard security --json | jq -r '.findings[] | [.host, .code, .subject] | @tsv'[/cyan]

    Open ports of engines, and of proxies behind an edge (tried from other machines), the edge's TLS, containers with too
    many rights, Docker's API and socket, files with secrets, the proxy's management key, the firewall of ours, engines
    that are upgraded unasked. Every finding has a stable code and says what to do; no value of a secret is shown.
    Exit code 0: nothing found. 1: the fleet could not be looked at. 2: there are weaknesses. 3: none was seen, but
    something is unknown.
    """  # noqa: D301
    outcome = run_verb("security", inventory, limit, as_json=as_json)
    show_outcome(outcome, render_security, as_json=as_json)
    code = exit_code(outcome.result or {})
    if code:
        raise Exit(code)


def exit_code(result: Mapping[str, Any]) -> int:
    """2 with any weakness, 3 with something unknown and no weakness, else 0."""
    return findings.exit_code(result, ("finding",))


def render_security(console: Console, result: Mapping[str, Any]) -> None:
    """A table for each host with findings, and one line that sums them up."""
    findings.show_findings(console, result, _COLUMNS, _COLOURS)
    console.print(summary(result), soft_wrap=True)


def summary(result: Mapping[str, Any]) -> str:
    """The one line under the tables."""
    return findings.summed_up(
        result,
        "finding",
        lambda number: f"{number} weakness{'es' if number > 1 else ''}",
        "No weakness seen",
        "No weakness found",
    )
