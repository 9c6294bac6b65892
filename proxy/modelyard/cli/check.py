"""``modelyard check``: is an inventory, or an endpoint registry, in order?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.markup import escape

from modelyard.cli.console import PROBLEM, err, out, print_json
from modelyard.cli.playbooks import Outcome, run_playbook
from modelyard.cli.problems import Problem, problem_list, problem_of, show_problems
from modelyard.cli.project import project_root
from modelyard.errors import ConfigError

# Kinds of problems that keep Ansible from reading the inventory at all.
_UNREADABLE = frozenset({"unreadable", "yaml-syntax"})
_PARTS_OF_INVENTORY = {"group_vars", "host_vars"}


@dataclass(frozen=True, slots=True)
class Checked:
    """One path and what is wrong with it. ``note`` says what could not be looked at."""

    path: str
    kind: str
    problems: Sequence[Problem]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """All of it, with ``ok`` for programs."""
        return {
            "path": self.path,
            "kind": self.kind,
            "ok": not self.problems,
            "problems": [problem.as_json() for problem in self.problems],
            "note": self.note,
        }


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path)
)
@click.option("--files-only", is_flag=True, help="Inventories: read the files, do not ask Ansible.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(paths: tuple[Path, ...], files_only: bool, as_json: bool) -> None:
    """Check inventories and endpoint registries. All mistakes are told in one go; no host is touched.

    PATH is an inventory directory (hosts.yml, group_vars/...) or a registry file (endpoints.yml).

    \b
    [bold]Examples[/bold]
      [cyan]modelyard check inventories/production[/cyan]
      [cyan]modelyard check /etc/modelyard/endpoints.yml --json[/cyan]

    An inventory's files are read first; where they can be read, Ansible resolves them and checks what only
    it can know, such as host patterns and how many GPUs there are. All problems come in one go.
    Exit code 0: in order. 1: problems. 2: called wrongly.
    """  # noqa: D301
    checked = [_check(path, files_only) for path in paths]
    if as_json:
        print_json(
            {
                "ok": not any(item.problems for item in checked),
                "checked": [item.as_json() for item in checked],
            }
        )
    else:
        for item in checked:
            _show(out(), item)
    if any(item.problems for item in checked):
        raise Exit(PROBLEM)


def _show(console: Console, checked: Checked) -> None:
    count = len(checked.problems)
    if count:
        title = f"{checked.path}: {count} problem{'s' if count > 1 else ''}"
        show_problems(console, [_inside(checked.path, problem) for problem in checked.problems], title)
    else:
        console.print(f"[green]in order[/]  {escape(checked.path)} ({checked.kind})", soft_wrap=True)
    if checked.note:
        console.print(f"[dim]{escape(checked.note)}[/]", soft_wrap=True)


def _inside(path: str, problem: Problem) -> Problem:
    """The problem with its file named as it is inside the inventory: the title names the rest."""
    for base in (path, str(Path(path).resolve())):
        if problem.file.startswith(base + os.sep):
            return replace(problem, file=problem.file[len(base) + 1 :])
    return problem


def _check(path: Path, files_only: bool) -> Checked:
    if path.is_dir():
        return _check_inventory(path, files_only)
    if _PARTS_OF_INVENTORY & {parent.name for parent in path.resolve().parents} or path.stem == "hosts":
        advice = "Check the inventory's directory, the one that holds group_vars/."
        return Checked(
            str(path), "file", [Problem("This is one file of an inventory.", str(path), "", advice)]
        )
    return Checked(str(path), "registry", registry_problems(path))


def registry_problems(path: Path) -> list[Problem]:
    """What is wrong with an endpoint registry; nothing when the proxy would take it."""
    from modelyard.registry.load import find_problems, read_text

    try:
        found = find_problems(read_text(path), str(path))
    except ConfigError as exc:  # it cannot be read at all
        return [Problem(problem) for problem in exc.problems or (exc.message,)]
    return [problem_of(problem) for problem in found]


def _check_inventory(path: Path, files_only: bool) -> Checked:
    from modelyard.inventory import check_files

    found = check_files(path)
    problems = [problem_of(problem) for problem in found]
    if files_only or any(problem.code in _UNREADABLE for problem in found):
        return Checked(str(path), "inventory", problems, "Only the files were read; Ansible was not asked.")
    if find_spec("ansible_runner") is None:
        note = "Only the files were read: Ansible is not installed here (pip install 'modelyard[deploy]')."
        return Checked(str(path), "inventory", problems, note)
    try:
        root = project_root(Path.cwd(), os.environ)
        with err().status("check: starting Ansible") as status:
            outcome = run_playbook(
                "check", path.resolve(), root, progress=lambda line: status.update(f"check: {escape(line)}")
            )
    except ConfigError as exc:
        return Checked(str(path), "inventory", problems, f"Only the files were read: {exc.message}")
    return Checked(str(path), "inventory", united(problems, outcome))


def united(problems: list[Problem], outcome: Outcome) -> list[Problem]:
    """What the files show, and what only Ansible could see: each once.

    A run that found no words of ours adds nothing to problems that are known already.
    """
    told = {(problem.message, problem.where) for problem in problems}
    resolved = resolved_problems(outcome)
    if problems and outcome.result is None:
        return problems
    return [*problems, *(problem for problem in resolved if (problem.message, problem.where) not in told)]


def resolved_problems(outcome: Outcome) -> list[Problem]:
    """What the playbook ``check`` found; a run that failed is never taken for one that found nothing."""
    problems = problem_list((outcome.result or {}).get("problems"))
    if problems or outcome.ok:
        return problems
    if outcome.canceled:
        return [Problem("The check was interrupted.", advice="Run it again.")]
    told = [
        Problem(failure.message, where=f"{failure.host} · {failure.task}") for failure in outcome.failures
    ]
    return told or [Problem(outcome.output or "Ansible failed and said nothing.")]
