"""``modelyard drift``: what runs against what is declared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console

from modelyard.cli import findings
from modelyard.cli.console import fail
from modelyard.cli.drift_metrics import metrics_text, write_text_file
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

_COLOURS = {"drift": "red", "unknown": "magenta", "note": "dim"}
_COLUMNS: tuple[findings.Column, ...] = (
    ("kind", "kind", True), ("subject", "subject", True), ("field", "field", False), ("declared", "wanted", False),
    ("found", "found", False), ("what to do", "what", False),
)  # fmt: skip


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
    return findings.exit_code(result, ("drift",))


def render_drift(console: Console, result: Mapping[str, Any]) -> None:
    """A table for each host with findings, and one line that sums them up."""
    findings.show_findings(console, result, _COLUMNS, _COLOURS)
    findings.show_notes(console, result)
    console.print(summary(result), soft_wrap=True)


def summary(result: Mapping[str, Any]) -> str:
    """The one line under the tables."""
    notes = findings.counts(result)["note"]
    said = findings.summed_up(
        result,
        "drift",
        lambda number: f"{number} difference{'s' if number > 1 else ''}",
        "No difference seen",
        "All is as declared",
    )
    return f"{said} Containers of others: {notes}." if notes else said
