"""``modelyard drift``: what runs against what is declared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.console import fail
from modelyard.cli.drift_metrics import metrics_text, write_text_file
from modelyard.cli.tables import cell, rows
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

DRIFTED = 2  # exit code: reality is not what is declared
NOT_SEEN = 3  # exit code: no drift was seen, but not everything could be looked at
_COLOURS = {"drift": "red", "unknown": "magenta", "note": "dim"}


@click.command()
@inventory_options
@click.option(
    "--prometheus", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the counts as Prometheus text, for the textfile collector of node_exporter.",
)  # fmt: skip
def drift(inventory: str, limit: str | None, as_json: bool, prometheus: Path | None) -> None:
    """Compare what runs with what is declared, field by field. Touches nothing.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard drift -i inventories/production[/cyan]
      [cyan]modelyard drift --json | jq '.findings[] | select(.severity == "drift")'[/cyan]
      [cyan]modelyard drift --prometheus /var/lib/node_exporter/textfile/modelyard_drift.prom[/cyan]

    Images, arguments, environment (digests, never values), mounts, GPUs, ports, weights, registries, and what is
    there beside the wish. Containers of others are shown as notes and are no drift.
    Exit code 0: all is as declared. 1: the fleet could not be looked at. 2: there is drift. 3: no drift was seen, but
    something is unknown.
    """  # noqa: D301
    outcome = run_verb("drift", inventory, limit, as_json=as_json)
    show_outcome(outcome, render_drift, as_json=as_json)
    result = outcome.result or {}
    if prometheus is not None:
        try:
            write_text_file(prometheus, metrics_text(result))
        except OSError as exc:
            fail(f"{prometheus} cannot be written: {exc.strerror or exc}.")
    code = exit_code(result)
    if code:
        raise Exit(code)


def exit_code(result: Mapping[str, Any]) -> int:
    """2 with any drift, 3 with something unknown and no drift, else 0."""
    severities = {item.get("severity") for item in rows(result.get("findings"))}
    return DRIFTED if "drift" in severities else NOT_SEEN if "unknown" in severities else 0


def render_drift(console: Console, result: Mapping[str, Any]) -> None:
    """A table for each host with findings, and one line that sums them up."""
    findings = list(rows(result.get("findings")))
    for host, items in groupby(findings, key=lambda item: str(item.get("host"))):
        table = Table(title=host, title_justify="left", title_style="bold")
        for name in ("kind", "subject", "field", "declared", "found", "what to do"):
            # Wrapping is for values; names must stay one word that can be copied.
            table.add_column(name, overflow="fold", no_wrap=name in ("kind", "subject"))
        for item in items:
            colour = _COLOURS.get(str(item.get("severity")), "")
            table.add_row(
                Text(str(item.get("kind")), style=colour),
                cell(item.get("subject")),
                cell(item.get("field")),
                cell(item.get("wanted")),
                cell(item.get("found")),
                cell(item.get("what")),
            )
        console.print(table)
    for note in result.get("notes") or []:
        console.print(Text(f"Note: {note}", style="yellow"), soft_wrap=True)
    console.print(summary(result), soft_wrap=True)


def summary(result: Mapping[str, Any]) -> str:
    """The one line under the tables."""
    counts = dict.fromkeys(_COLOURS, 0)
    for item in rows(result.get("findings")):
        severity = str(item.get("severity"))
        counts[severity] = counts.get(severity, 0) + 1
    others = f" Containers of others: {counts['note']}." if counts["note"] else ""
    if counts["drift"]:
        unknown = f", {counts['unknown']} unknown" if counts["unknown"] else ""
        return f"{counts['drift']} difference{'s' if counts['drift'] > 1 else ''}{unknown}.{others}"
    if counts["unknown"]:
        return f"No difference seen, but {counts['unknown']} unknown.{others}"
    return f"All is as declared.{others}"
