"""``modelyard doctor``: what is wrong with hosts, GPUs and replicas, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.text import Text

from modelyard.cli import findings
from modelyard.cli.tables import rows
from modelyard.cli.verbs import inventory_options, run_verb, show_outcome

_COLOURS = {"critical": "red", "unknown": "magenta", "warning": "yellow", "note": "dim"}
_COLUMNS: tuple[findings.Column, ...] = (
    ("how bad", "severity", True), ("what", "kind", True), ("what is wrong, and what to do", "text", False),
)  # fmt: skip
_VERDICTS = {"ill": "bold red", "unknown": "magenta", "look": "yellow", "well": "green"}


@click.command()
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
@inventory_options
@click.option(
    "--no-generate", is_flag=True, help="Do not let the replicas generate; ask only whether they are ready."
)
@click.option(
    "--generation-timeout", type=click.FloatRange(1, 3600), default=60.0, show_default=True, metavar="SECONDS",
    help="How long one generation may take.",
)  # fmt: skip
@click.option(
    "--command-timeout", type=click.FloatRange(1, 600), default=20.0, show_default=True, metavar="SECONDS",
    help="How long nvidia-smi, docker and other commands on a host have to answer.",
)  # fmt: skip
def doctor(
    hosts: tuple[str, ...],
    inventory: str,
    limit: str | None,
    as_json: bool,
    no_generate: bool,
    generation_timeout: float,
    command_timeout: float,
) -> None:
    """Find what is wrong with hosts, GPUs and replicas, and say what to do. Touches nothing.

    Without HOST every engine, proxy and edge host is looked at: driver, container toolkit, GPUs (missing, lost, errors in
    memory, XID errors, heat), disks, memory, clock, ports, images, weights. Then every replica must generate.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard doctor -i inventories/production[/cyan]
      [cyan]modelyard doctor -i inventories/production gpu01 gpu02[/cyan]
      [cyan]modelyard doctor --no-generate --json | jq -r '.findings[] | select(.severity == "critical") | .text'[/cyan]

    Each host is [green]well[/green], [yellow]look[/yellow] (warnings), [red]ill[/red] (something critical) or
    [magenta]unknown[/magenta]: what cannot be looked at is never well.
    Exit code 0: every host is well. 1: the fleet could not be looked at. 2: something is wrong. 3: nothing was seen to
    be wrong, but something is unknown.
    """  # noqa: D301
    if hosts and limit is not None:
        raise click.UsageError("Name hosts, or give --limit a pattern, not both.")
    outcome = run_verb(
        "doctor",
        inventory,
        ",".join(hosts) if hosts else limit,
        as_json=as_json,
        extra={
            "generate": not no_generate,
            "generation_timeout_s": generation_timeout,
            "command_timeout_s": command_timeout,
            "named_hosts": list(hosts),
        },
    )
    show_outcome(outcome, render_doctor, as_json=as_json)
    code = exit_code(outcome.result or {})
    if code:
        raise Exit(code)


def exit_code(result: Mapping[str, Any]) -> int:
    """2 with anything critical or a warning, 3 with something unknown and neither, else 0; notes do not count."""
    return findings.exit_code(result, ("critical", "warning"))


def render_doctor(console: Console, result: Mapping[str, Any]) -> None:
    """A table for each host with findings, the worst first, and a line with the verdict of each host."""
    findings.show_findings(console, result, _COLUMNS, _COLOURS)
    findings.show_notes(console, result)
    for one in rows(result.get("hosts")):
        console.print(verdict(one), soft_wrap=True)


def verdict(one: Mapping[str, Any]) -> Text:
    """One host in one line."""
    word = str(one.get("verdict"))
    line = Text(f"{one.get('name')}: ").append(word, style=_VERDICTS.get(word, ""))
    return line.append(f" ({one['told']})") if one.get("told") else line
