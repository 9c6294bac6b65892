"""``modelyard security``: weaknesses of the fleet's hosts, containers and files."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.tables import cell, rows
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

WEAK = 2  # exit code: a weakness was seen
NOT_SEEN = 3  # exit code: none was seen, but not everything could be looked at
_COLOURS = {"finding": "red", "unknown": "magenta"}


@click.command()
@inventory_options
def security(inventory: str, limit: str | None, as_json: bool) -> None:
    """Look for weaknesses of hosts, containers and files. Touches nothing.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard security -i inventories/production[/cyan]
      [cyan]modelyard security --json | jq -r '.findings[] | [.host, .code, .subject] | @tsv'[/cyan]

    Open engine ports (tried from other machines), containers with too many rights, Docker's API and socket, files
    with secrets, the proxy's management key, the firewall of ours, engines that are upgraded unasked. Every finding has
    a stable code and says what to do; no value of a secret is shown.
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
    severities = {item.get("severity") for item in rows(result.get("findings"))}
    return WEAK if "finding" in severities else NOT_SEEN if "unknown" in severities else 0


def render_security(console: Console, result: Mapping[str, Any]) -> None:
    """A table for each host with findings, and one line that sums them up."""
    findings = list(rows(result.get("findings")))
    for host, items in groupby(findings, key=lambda item: str(item.get("host"))):
        table = Table(title=host, title_justify="left", title_style="bold")
        for name in ("code", "subject", "what", "what to do"):
            # Wrapping is for sentences; names must stay one word that can be copied.
            table.add_column(name, overflow="fold", no_wrap=name == "code")
        for item in items:
            colour = _COLOURS.get(str(item.get("severity")), "")
            table.add_row(
                Text(str(item.get("code")), style=colour),
                cell(item.get("subject")),
                cell(item.get("what")),
                cell(item.get("todo")),
            )
        console.print(table)
    console.print(summary(result), soft_wrap=True)


def summary(result: Mapping[str, Any]) -> str:
    """The one line under the tables."""
    severities = [str(item.get("severity")) for item in rows(result.get("findings"))]
    weak, unknown = severities.count("finding"), severities.count("unknown")
    if weak:
        more = f", {unknown} unknown" if unknown else ""
        return f"{weak} weakness{'es' if weak > 1 else ''}{more}."
    return f"No weakness seen, but {unknown} unknown." if unknown else "No weakness found."
