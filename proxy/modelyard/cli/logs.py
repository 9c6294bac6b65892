"""``modelyard logs``: the log of one replica's engine, wherever it runs."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rich_click as click
from rich.markup import escape
from rich.status import Status

from modelyard.cli.console import err, fail
from modelyard.cli.playbooks import Outcome, run_playbook
from modelyard.cli.project import inventory_path, project_root
from modelyard.cli.verbs import DEFAULT_INVENTORY
from modelyard.errors import ConfigError

_LOOK_S = 0.1  # between two looks at the file that lines arrive in
_END_S = 15.0  # for a look at the host that is under way when following ends
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# What a log could do to a terminal: all control characters but tab, and of escape sequences all but colours.
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A length of time like ``90s``, ``10m``, ``2h`` or ``1d`` as seconds; a wrong one is a wrong call."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9})([smhd])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no length of time: write 90s, 10m, 2h or 1d.")
    return float(int(match[1]) * _UNITS[match[2]])


@click.command()
@click.argument("replica", metavar="REPLICA")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="Lines to begin with.",
)
@click.option(
    "--since", callback=_seconds, metavar="TIME", help="Only lines of the last 90s, 10m, 2h ... (containers)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each line.")
@click.option(
    "-i", "--inventory", default=DEFAULT_INVENTORY, show_default=True, metavar="PATH",
    envvar="MODELYARD_INVENTORY", show_envvar=True, help="Inventory: a directory or a file.",
)  # fmt: skip
def logs(replica: str, follow: bool, lines: int, since: float | None, as_json: bool, inventory: str) -> None:
    """Show the log of the engine of REPLICA, over the inventory's own connection to its host.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard logs gpu01.qwen2.5-7b.0 -i inventories/production[/cyan]
      [cyan]modelyard logs qwen2.5-7b.0 --follow --lines 20[/cyan]
      [cyan]modelyard logs qwen2.5-7b.0 --since 10m --json | jq -r .line[/cyan]

    A part of an id is enough where only one replica has it. Following looks once a second and leaves nothing running
    on the host. Exit code 0: the log was shown. 1: it could not be.
    """  # noqa: D301
    asked = {"replica": replica, "lines": lines, "follow": follow, "since_s": since}
    try:
        root = project_root(Path.cwd(), os.environ)
        path = inventory_path(inventory, Path.cwd(), root)
        outcome = stream(
            path, root, {key: value for key, value in asked.items() if value is not None}, as_json
        )
    except ConfigError as exc:
        fail(exc.message, as_json=as_json)
    if outcome.canceled and not follow:
        fail("Interrupted.", as_json=as_json)
    if outcome.failures:
        first = outcome.failures[0]
        fail(str(first) if first.unreachable else first.message, as_json=as_json)
    if not outcome.ok and not outcome.canceled:
        fail(outcome.output or "Ansible ended and said nothing.", as_json=as_json)


def stream(inventory: Path, root: Path, asked: dict[str, Any], as_json: bool) -> Outcome:
    """Run the playbook ``logs`` and print its lines as they come."""
    with tempfile.TemporaryDirectory(prefix="modelyard-") as directory, err().status("logs") as status:
        lines, stop = Path(directory) / "lines", Path(directory) / "stop"
        lines.touch(mode=0o600)
        ended = threading.Event()
        printer = threading.Thread(target=_print, args=(lines, ended, stop, status, as_json), daemon=True)
        printer.start()
        try:
            return run_playbook(
                "logs",
                inventory,
                root,
                extra={**asked, "stream_file": str(lines), "stop_file": str(stop)},
                progress=lambda line: status.update(f"logs: {escape(line)}"),
                on_interrupt=_ending(stop, time.monotonic),
            )
        finally:
            ended.set()
            printer.join()


def _ending(stop: Path, clock: Callable[[], float]) -> Callable[[], bool]:
    """Ask the run to end by itself, which leaves nothing half done on the host; say yes to ending it when it does not."""
    begun: list[float] = []

    def end() -> bool:
        if not begun:
            begun.append(clock())
            stop.touch()
        return clock() - begun[0] > _END_S

    return end


def _print(lines: Path, ended: threading.Event, stop: Path, status: Status, as_json: bool) -> None:
    """Print every line that arrives; when nobody reads them any more, ask the run to end."""
    for line in arriving(lines, ended):
        status.stop()  # the line that told of progress would stand between the log's own
        try:
            click.echo(line if as_json else printable(str(json.loads(line)["line"])))
        except BrokenPipeError:
            stop.touch()
            return


def arriving(path: Path, ended: threading.Event) -> Iterator[str]:
    """Whole lines of a file that grows, until ``ended`` is set and the file is read to its end."""
    with path.open(encoding="utf-8") as file:
        part = ""
        while True:
            last = ended.is_set()
            for piece in file:
                part += piece
                if part.endswith("\n"):
                    yield part[:-1]
                    part = ""
            if last:
                return
            ended.wait(_LOOK_S)


def printable(line: str) -> str:
    """A log's line without what could move or rename a terminal; colours stay."""
    pieces = _COLOUR.split(line)
    return "".join(piece if place % 2 else _CONTROL.sub("", piece) for place, piece in enumerate(pieces))
