"""Does each scenario of ``modelyard chaos`` fail when its defence is switched off?

    python -m tests.tools.chaos_mutations              all of them, and a table
    python -m tests.tools.chaos_mutations --only NAME  one scenario
    python -m tests.tools.chaos_mutations --check      only see that every edit still finds its text

Each row of ``chaos_defences`` names a scenario, the defence, and edits that switch it off. They are applied to a
temporary copy of the package, the scenario is run against that copy, and it must fail there. A text that is
not found exactly once is an error: then the code has moved on, and so must the row. A scenario has several rows
where several defences stand alone, as that of the lane and that of aiohttp's way do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from modelyard.chaos.scenarios import SCENARIOS

from .chaos_defences import DEFENCES
from .chaos_defences.edits import Defence, Edit

PACKAGE = Path(__file__).parents[2] / "proxy" / "modelyard"
# a scenario that fails like this shows nothing about its defence
_NO_EVIDENCE = ("the proxy did not start", "the scenario could not go on", "the registry was not taken")


class TextNotFoundError(Exception):
    """An edit's text is not in its file exactly once."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a scenario said to a proxy without its defence. ``caught``: it failed, and for a good reason."""

    defence: Defence
    caught: bool
    said: str
    seconds: float


def edited(text: str, edit: Edit) -> str:
    """``text`` with the edit. Raises ``TextNotFoundError``."""
    found = text.count(edit.old)
    if found != 1:
        raise TextNotFoundError(f"{edit.file}: found {found} times, not once: {edit.old!r}")
    return text.replace(edit.old, edit.new)


def switch_off(package: Path, defence: Defence) -> None:
    """Apply a defence's edits to the copy ``package``. Raises ``TextNotFoundError``."""
    for edit in defence.edits:
        file = package / edit.file
        if not file.is_file():
            raise TextNotFoundError(f"{edit.file}: there is no such file")
        file.write_text(edited(file.read_text(encoding="utf-8"), edit), encoding="utf-8")


def run_chaos(root: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The results of ``modelyard chaos`` with the package below ``root``."""
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", "chaos", "--json", *(f"--only={name}" for name in names)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    try:
        return list(json.loads(done.stdout)["scenarios"])
    except (ValueError, KeyError):
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        return [{"passed": False, "happened": f"the scenario could not go on: {said}"}]


def judge(defence: Defence) -> Verdict:
    """Run one scenario without its defence. Raises ``TextNotFoundError``."""
    started = time.monotonic()
    with TemporaryDirectory(prefix="modelyard-mutation-") as directory:
        copy = Path(directory) / "modelyard"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        switch_off(copy, defence)
        (result,) = run_chaos(Path(directory), [defence.scenario])
    said = str(result["happened"])
    caught = not result["passed"] and not said.startswith(_NO_EVIDENCE)
    return Verdict(defence, caught, said, time.monotonic() - started)


def unguarded() -> list[str]:
    """Scenarios that no row of the table is about."""
    known = {defence.scenario for defence in DEFENCES}
    return [item.name for item in SCENARIOS if item.name not in known]


def check() -> list[str]:
    """What is wrong with the table: texts that are not found, names that do not exist."""
    problems = []
    names = {item.name for item in SCENARIOS}
    for defence in DEFENCES:
        if defence.scenario not in names:
            problems.append(f"{defence.scenario}: there is no such scenario")
        with TemporaryDirectory() as directory:
            for file in {edit.file for edit in defence.edits}:
                (Path(directory) / file).parent.mkdir(parents=True, exist_ok=True)
                if (PACKAGE / file).is_file():
                    shutil.copy(PACKAGE / file, Path(directory) / file)
            try:
                switch_off(Path(directory), defence)
            except TextNotFoundError as exc:
                problems.append(f"{defence.scenario}: {exc}")
    return problems


def render(verdicts: Sequence[Verdict]) -> Table:
    """One row for each defence that was switched off."""
    table = Table(title="Chaos without its defences", title_justify="left")
    for title in ("scenario", "switched off", "what the scenario saw", ""):
        table.add_column(title, overflow="fold")
    for verdict in verdicts:
        word = "caught" if verdict.caught else "NOT CAUGHT"
        table.add_row(verdict.defence.scenario, verdict.defence.what, verdict.said[:220], word)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when every scenario failed without each of its defences."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.chaos_mutations", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a scenario; may be repeated"
    )
    parser.add_argument("--check", action="store_true", help="only see that every edit finds its text")
    chosen = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 170, markup=False)
    problems = check()
    for problem in problems:
        console.print(f"the table is out of date: {problem}")
    for name in unguarded():
        console.print(f"no defence is named for the scenario {name}")
    if chosen.check:
        return 1 if problems or unguarded() else 0
    stale = {problem.partition(":")[0] for problem in problems}
    verdicts = []
    for defence in DEFENCES:
        if defence.scenario in stale or (chosen.only and defence.scenario not in chosen.only):
            continue
        verdict = judge(defence)
        verdicts.append(verdict)
        word = "caught" if verdict.caught else "NOT CAUGHT"
        console.print(f"{word:10} {defence.scenario} ({verdict.seconds:.0f} s): {verdict.said[:150]}")
    console.print(render(verdicts))
    caught = sum(verdict.caught for verdict in verdicts)
    console.print(f"{caught} of {len(verdicts)} defences are missed when they are off.")
    return 0 if caught == len(verdicts) and not problems and not (unguarded() and not chosen.only) else 1


if __name__ == "__main__":
    sys.exit(main())
