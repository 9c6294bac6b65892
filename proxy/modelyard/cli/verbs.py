"""What commands that run a playbook share: find it, run it under a progress line, tell failures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.markup import escape

from modelyard.cli.console import PROBLEM, err, fail, out, print_json
from modelyard.cli.playbooks import Outcome, run_playbook
from modelyard.cli.problems import problem_list, show_problems
from modelyard.cli.project import inventory_path, project_root
from modelyard.errors import ConfigError

DEFAULT_INVENTORY = "inventories/local"

Render = Callable[[Console, Mapping[str, Any]], None]
Decorated = Callable[..., None]


def inventory_options(function: Decorated) -> Decorated:
    """The options of every command that looks at a fleet."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object."),
        click.option("--limit", metavar="PATTERN", help="Only hosts that match this Ansible host pattern."),
        click.option(
            "-i", "--inventory", default=DEFAULT_INVENTORY, show_default=True, metavar="PATH",
            envvar="MODELYARD_INVENTORY", show_envvar=True, help="Inventory: a directory or a file.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def run_verb(
    name: str,
    inventory: str,
    limit: str | None,
    *,
    as_json: bool,
    extra: Mapping[str, Any] | None = None,
    check: bool = False,
) -> Outcome:
    """Run a playbook on an inventory with a progress line; ends the command when it cannot be run.

    ``extra`` are extra variables of the playbook, ``check`` is Ansible's check mode.
    """
    try:
        root = project_root(Path.cwd(), os.environ)
        path = inventory_path(inventory, Path.cwd(), root)
        with err().status(f"{name}: starting Ansible") as status:
            outcome = run_playbook(
                name,
                path,
                root,
                extra=extra,
                limit=limit,
                check=check,
                progress=lambda line: status.update(f"{name}: {escape(line)}"),
            )
    except ConfigError as exc:
        fail(exc.message, as_json=as_json)
    if outcome.canceled:
        fail("Interrupted. A task that had begun on a host may still be running there.", as_json=as_json)
    return outcome


def show_outcome(outcome: Outcome, render: Render, *, as_json: bool) -> None:
    """Print what a run found; exit code 1 when it failed or found problems."""
    result = outcome.result or {}
    problems = problem_list(result.get("problems"))
    failures = [] if outcome.ok else [str(failure) for failure in outcome.failures]
    if not outcome.ok and not failures and not problems:
        failures = [outcome.output or f"Ansible ended with status {outcome.status!r} and said nothing."]
    if outcome.ok and outcome.result is None:
        failures = ["The playbook wrote no result: are the playbooks and this command of one version?"]
    if as_json:
        print_json({**result, **({"failures": failures} if failures else {})})
    else:
        if any(key != "problems" for key in result):
            render(out(), result)
        if problems:
            show_problems(err(), problems, f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
        elif failures:
            err().print(f"[bold red]Failed[/]\n{escape(chr(10).join(failures))}", soft_wrap=True)
    if problems or failures:
        raise Exit(PROBLEM)
