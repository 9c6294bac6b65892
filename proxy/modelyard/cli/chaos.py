"""``modelyard chaos``: the proxy in front of engines that misbehave."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from modelyard.chaos.runner import Result, run
from modelyard.chaos.scenario import Scenario
from modelyard.chaos.scenarios import SCENARIOS
from modelyard.cli.console import PROBLEM, err, fail, out, print_json
from modelyard.errors import did_you_mean


@click.command()
@click.option("--only", "names", multiple=True, metavar="NAME",
              help="Run this scenario, or every scenario of this group. Repeat it for more.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the scenarios and run none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def chaos(names: tuple[str, ...], listing: bool, as_json: bool) -> None:
    """Show that the proxy stands what engines and clients do to it.

    It starts engines that hang, stall, cut, drip, lie, refuse, reset, flood and die, runs the real proxy
    ([cyan]modelyard serve[/cyan], as a process of its own) before them, sends requests, and says for each
    scenario what must happen and what did. Everything is on 127.0.0.1 and on free ports, no other engine or
    proxy is touched, and all of it is stopped at the end, after Ctrl-C too.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard chaos[/cyan]                      all of it, in about a minute
      [cyan]modelyard chaos --list[/cyan]               what there is
      [cyan]modelyard chaos --only streams[/cyan]       one group
      [cyan]modelyard chaos --only stalls --json[/cyan] one scenario, for a program

    Exit code 0: every scenario passed. 1: one did not. 2: called wrongly.
    """  # noqa: D301
    chosen = choose(names)
    if listing:
        _show_list(chosen, as_json)
        return
    try:
        results = asyncio.run(_run(chosen, err()))
    except asyncio.CancelledError:
        fail("stopped before its end; whatever ran has been stopped too", as_json=as_json)
    failed = sum(not result.passed for result in results)
    if as_json:
        print_json({"ok": not failed, "failed": failed, "scenarios": [item.as_json() for item in results]})
    else:
        console = out()
        console.print(render(results))
        console.print(summary(results))
    if failed:
        raise Exit(PROBLEM)


def choose(names: Sequence[str]) -> tuple[Scenario, ...]:
    """The scenarios of these names and groups in the suite's order; all where none is named."""
    known = {item.name for item in SCENARIOS} | {item.group for item in SCENARIOS}
    for name in names:
        if name not in known:
            raise click.BadParameter(
                f"there is no scenario or group {name!r}{did_you_mean(name, known)}; --list shows all",
                param_hint="--only",
            )
    return tuple(item for item in SCENARIOS if not names or item.name in names or item.group in names)


def render(results: Sequence[Result]) -> Table:
    """One row for each scenario."""
    table = Table(title="Chaos", title_justify="left", title_style="bold")
    for title in ("scenario", "what is done", "expected", "what happened", ""):
        table.add_column(title, overflow="fold", no_wrap=title in ("scenario", ""))
    for result in results:
        verdict = Text("pass", style="green") if result.passed else Text("FAIL", style="bold red")
        words = (result.fault, result.expected, result.happened)
        table.add_row(Text(result.name, style="cyan"), *map(Text, words), verdict)
    return table


def summary(results: Sequence[Result]) -> Text:
    """The line under the table."""
    failed = [result.name for result in results if not result.passed]
    seconds = sum(result.seconds for result in results)
    if not failed:
        return Text(f"All {len(results)} scenarios passed, in {seconds:.0f} s.", style="green")
    return Text(f"{len(failed)} of {len(results)} scenarios failed: {', '.join(failed)}.", style="bold red")


async def _run(scenarios: Sequence[Scenario], console: Console) -> list[Result]:
    results: list[Result] = []
    task = asyncio.current_task()
    if task is not None:
        # as Ctrl-C does it: by itself SIGTERM would leave engines and proxies behind
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    columns: tuple[Any, ...] = (
        SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=len(scenarios))
        async with aclosing(run(scenarios)) as stream:
            progress.update(bar, description=scenarios[0].name)
            async for result in stream:
                results.append(result)
                following = scenarios[len(results)].name if len(results) < len(scenarios) else ""
                progress.update(bar, advance=1, description=following)
                if not result.passed:
                    console.print(Text(f"FAIL {result.name}: {result.happened}", style="red"))
    return results


def _show_list(scenarios: Sequence[Scenario], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"name": item.name, "group": item.group, "fault": item.fault, "expected": item.expected}
                for item in scenarios
            ]
        )
        return
    table = Table(title="Scenarios", title_justify="left", title_style="bold")
    for title in ("group", "scenario", "what is done", "expected"):
        table.add_column(title, overflow="fold", no_wrap=title in ("group", "scenario"))
    for item in scenarios:
        table.add_row(item.group, Text(item.name, style="cyan"), item.fault, item.expected)
    out().print(table)
