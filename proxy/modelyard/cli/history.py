"""``modelyard history``: what was applied to each model, when, by whom, and what each release changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.console import fail, out, print_json
from modelyard.cli.project import inventory_path, project_root
from modelyard.cli.tables import NOTHING, cell
from modelyard.cli.verbs import DEFAULT_INVENTORY
from modelyard.errors import ConfigError

_OUTCOMES = {"applied": "green", "put_back": "yellow", "failed": "red"}


@click.command()
@click.argument("model", required=False)
@click.option(
    "-i", "--inventory", default=DEFAULT_INVENTORY, show_default=True, metavar="PATH",
    envvar="MODELYARD_INVENTORY", show_envvar=True, help="Inventory: a directory or a file.",
)  # fmt: skip
@click.option(
    "--state-dir", type=click.Path(file_okay=False, path_type=Path), metavar="PATH",
    help="Where the releases are kept, in place of what the inventory says.",
)  # fmt: skip
@click.option(
    "--diff", nargs=2, type=click.IntRange(min=1), metavar="A B", help="All that differs between two releases of MODEL."
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object.")
def history(
    model: str | None, inventory: str, state_dir: Path | None, diff: tuple[int, int] | None, as_json: bool
) -> None:
    """Show the releases of MODEL, or of every model: newest first, with what each changed. Asks no host.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard history -i inventories/production[/cyan]
      [cyan]modelyard history -i inventories/production qwen2.5-7b --diff 3 5[/cyan]
      [cyan]ansible-playbook -i inventories/production playbooks/rollback.yml -e model=qwen2.5-7b -e release=3[/cyan]

    Exit code 0: shown, also when nothing was recorded yet. 1: the records cannot be read, or there is no such release.
    """  # noqa: D301
    from modelyard.releases import history as records
    from modelyard.releases.store import known_models

    try:
        where = state_dir if state_dir is not None else records.state_directory(_inventory(inventory))
        known = known_models(where)
        if model is not None and model not in known and known:
            near = get_close_matches(model, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are some of {', '.join(known)}."
            fail(f"No release of {model} is recorded; {hint}", as_json=as_json)
        if diff is not None:
            _show_diff(where, model, diff, as_json=as_json)
            return
        models = records.history(where, model if known else None)
    except ConfigError as exc:
        fail(exc.message, as_json=as_json)
    if as_json:
        print_json({"state_dir": str(where), "models": models})
    elif not models:
        out().print(
            Text(f"No release is recorded in {where}: the first deploy that changes a model makes one."),
            soft_wrap=True,
        )
    else:
        for one in models:
            render_history(out(), one)


def _inventory(given: str) -> Path:
    try:
        root = project_root(Path.cwd(), os.environ)
    except ConfigError:
        root = Path.cwd()  # records can be read without the playbooks
    return inventory_path(given, Path.cwd(), root)


def render_history(console: Console, found: Mapping[str, Any]) -> None:
    """One model's releases as a table, newest first."""
    table = Table(title=str(found["model"]), title_justify="left", title_style="bold", caption_justify="left")
    for name in ("release", "outcome", "when", "by", "commit", "replicas", "what changed"):
        table.add_column(name, overflow="fold", no_wrap=name in ("release", "outcome"))
    for one in found["releases"]:
        table.add_row(
            _number(one, found),
            Text(one["outcome"].replace("_", " "), style=_OUTCOMES.get(one["outcome"], "")),
            cell(one["at"].replace("T", " ").removesuffix("+00:00")),
            cell(one["who"]),
            _commit(one["commits"]),
            cell(f"{one['replicas']} on {len(one['hosts'])}" if one["replicas"] else "0"),
            _changed(one),
        )
    console.print(table)


def _number(one: Mapping[str, Any], found: Mapping[str, Any]) -> Text:
    text = Text(str(one["number"]))
    if one["number"] == found["current"]:
        text.append(" current", style="green")
    if one["number"] == found["held"]:
        text.append(" held", style="yellow")
    return text


def _commit(commits: Mapping[str, Any]) -> Text:
    """The inventory's commit; where it is in no Git work tree, the project's."""
    for name in ("inventory", "project"):
        one = commits.get(name)
        if one:
            return Text(one["commit"][:10] + ("+" if one.get("dirty") else ""))
    return Text(NOTHING, style="dim")


def _changed(one: Mapping[str, Any]) -> Text:
    lines = [f"back to release {one['rollback_of']}"] if one["rollback_of"] else []
    lines += ["the first one recorded"] if one["first"] else one["changed"]
    text = Text("\n".join(lines) if lines else NOTHING)
    if one["note"]:
        text.append(f"\n{one['note']}", style="dim")
    return text


def _show_diff(where: Path, model: str | None, numbers: tuple[int, int], *, as_json: bool) -> None:
    from modelyard.releases import differences, read_releases

    if model is None:
        raise click.UsageError("--diff compares two releases of one model: name it.")
    store = read_releases(where, model)
    found = [store.find(number) for number in numbers]
    for number, one in zip(numbers, found, strict=True):
        if one is None:
            kept = ", ".join(str(each.number) for each in store.releases) or "none"
            fail(f"There is no release {number} of {model}. Recorded: {kept}.", as_json=as_json)
    old, new = (one for one in found if one is not None)
    rows = differences(old, new)
    if as_json:
        print_json({"model": model, "from": numbers[0], "to": numbers[1], "differences": [
            {"field": row.field, "before": row.before, "after": row.after} for row in rows
        ]})  # fmt: skip
        return
    if not rows:
        out().print(f"Releases {numbers[0]} and {numbers[1]} are alike.")
        return
    table = Table(title=Text(model, style="bold"), title_justify="left")
    for name in ("field", f"release {numbers[0]}", f"release {numbers[1]}"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(Text(row.field, style="cyan"), cell(row.before), cell(row.after))
    out().print(table)
