"""``modelyard bundle``: everything that a fleet needs in one directory, for networks without a way out."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import modelyard
from modelyard.bundle import collect as collecting
from modelyard.bundle import galaxy
from modelyard.bundle import prepare as preparing
from modelyard.bundle import verify as verifying
from modelyard.bundle.choose import MACHINES, Chosen, Options, choose
from modelyard.bundle.manifest import KINDS, MANIFEST, BundleError, Manifest, load
from modelyard.bundle.paths import sha256_of
from modelyard.bundle.share import contents
from modelyard.cli.bundle_view import as_data, listed, render_faults, render_list, render_parts
from modelyard.cli.check import resolved_problems
from modelyard.cli.console import PROBLEM, err, fail, out, print_json
from modelyard.cli.project import inventory_path, project_root
from modelyard.cli.verbs import DEFAULT_INVENTORY, run_verb

_INVENTORY = click.option(
    "-i", "--inventory", default=DEFAULT_INVENTORY, show_default=True, metavar="PATH",
    envvar="MODELYARD_INVENTORY", show_envvar=True, help="Inventory: a directory or a file.",
)  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object.")
_DIRECTORY = click.argument("directory", type=click.Path(path_type=Path))
_SHA256 = click.option(
    "--manifest-sha256", metavar="HEX",
    help="What `create` said of the manifest: refuses a bundle whose manifest is another one.",
)  # fmt: skip


@click.group()
def bundle() -> None:
    """Take what a fleet needs into a network without a way out: images, weights, Python packages, Modelyard itself.

    \b
    [bold]Where there is a network[/bold]
      [cyan]modelyard bundle create -i inventories/production /srv/bundle --check[/cyan]   what would go in
      [cyan]modelyard bundle create -i inventories/production /srv/bundle[/cyan]

    \b
    [bold]Where there is none[/bold], after the directory was carried there
      [cyan]modelyard bundle verify /srv/bundle[/cyan]                                     is all of it there, unaltered?
      [cyan]modelyard bundle apply -i inventories/production /srv/bundle[/cyan]            hosts get images and weights
      [cyan]ansible-playbook -i inventories/production playbooks/site.yml[/cyan]           as anywhere else

    The inventory itself does not go along: it holds secrets. Each command has --help and --json.
    """  # noqa: D301


class Bar:
    """A line with a bar for the part that is on its way; see ``Told``."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def part(self, text: str, total: int | None) -> None:
        """Another part begins."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(escape(text), total=total)

    def at(self, done: int) -> None:
        """So many bytes of it are there."""
        if self._task is not None:
            self._progress.update(self._task, completed=done)

    def moved(self, count: int) -> None:
        """So many more."""
        if self._task is not None:
            self._progress.advance(self._task, count)


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar on standard error, gone when it is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True) as progress:
        yield Bar(progress)


@bundle.command()
@_DIRECTORY
@_INVENTORY
@click.option(
    "--python", "pythons", multiple=True, metavar="VERSION",
    help="Python of hosts that get packages, such as 3.12; may be repeated. Default: the version that runs this.",
)  # fmt: skip
@click.option(
    "--machine", type=click.Choice(list(MACHINES)), help="Architecture of the hosts. Default: this machine's."
)
@click.option(
    "--weights", "given", multiple=True, metavar="MODEL=PATH",
    help="Take the weights of MODEL from here, in place of fetching them; for source.path the only way. May be repeated.",
)  # fmt: skip
@click.option(
    "--hub-token-file", type=click.Path(exists=True, dir_okay=False), help="File with a token for the hub."
)
@click.option(
    "--collection", "collections", multiple=True, metavar="NAME",
    help="An Ansible collection that your inventory's plugins need, as it is installed here; may be repeated.",
)  # fmt: skip
@click.option(
    "--os-package", "packages", multiple=True, metavar="NAME",
    help="A package (and all that it needs) for hosts that run what this machine runs: Debian, Ubuntu; may be repeated.",
)  # fmt: skip
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(KINDS),
    help="Leave this kind out: the closed side has it; may be repeated.",
)
@click.option(
    "--check", "check_only", is_flag=True, help="List what would be collected, and collect nothing."
)
@_JSON
def create(
    directory: Path,
    inventory: str,
    pythons: tuple[str, ...],
    machine: str | None,
    given: tuple[str, ...],
    hub_token_file: str | None,
    collections: tuple[str, ...],
    packages: tuple[str, ...],
    without: tuple[str, ...],
    check_only: bool,
    as_json: bool,
) -> None:
    """Collect everything that an inventory's fleet needs into DIRECTORY. Touches no host.

    Images come from this machine's Docker, which pulls them; weights from where the models say; Python packages from the
    index that pip is set up for, by the locks' hashes; Modelyard from this checkout.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard bundle create -i inventories/production /srv/bundle --check[/cyan]
      [cyan]modelyard bundle create -i inventories/production /srv/bundle --python 3.11 --python 3.12[/cyan]
      [cyan]modelyard bundle create -i inventories/production /srv/bundle --weights mistral-7b=/srv/models/mistral[/cyan]

    What was cut off goes on where it stopped when this is run again; what is there and as it should be is kept. The
    manifest is written last, so that half a bundle is never taken for a whole one.
    Exit code 0: the bundle is complete. 1: something could not be collected. 2: called wrongly.
    """  # noqa: D301
    with _told(as_json):
        root = project_root(Path.cwd(), os.environ)
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        options = Options(
            pythons=_versions(pythons) or (own,),
            own_python=own,
            machine=machine or _own_machine(),
            without=tuple(dict.fromkeys(without)),
            given=_places(given),
            collections=collections,
            packages=packages,
            token_file=str(Path(hub_token_file).resolve()) if hub_token_file else "",
        )
        chosen = choose(_needs(inventory, as_json), options, root, modelyard.__version__, os.environ)
        directory = directory.absolute()
        if check_only:
            _show_list(directory, chosen, as_json)
            return
        with bar() as told:
            made = collecting.collect(
                directory,
                chosen.sources,
                without=options.without,
                version=modelyard.__version__,
                now=lambda: datetime.now(UTC),
                told=told,
            )
    digest = sha256_of(directory / MANIFEST)
    if as_json:
        print_json(as_data(made.manifest, digest, directory=directory, fresh=made.fresh, notes=chosen.notes))
        return
    console = out()
    render_parts(console, made.manifest, made.fresh)
    for note in chosen.notes:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)
    told_of = "is complete" if made.fresh else "is complete; nothing had to be collected"
    console.print(f"[green]{escape(str(directory))} {told_of}.[/]", soft_wrap=True)
    console.print(f"SHA-256 of {MANIFEST}: {digest}", soft_wrap=True)
    console.print(
        "Carry the directory over, and that number by another way. There: "
        f"modelyard bundle apply -i INVENTORY {escape(directory.name)} --manifest-sha256 NUMBER",
        soft_wrap=True,
    )


@bundle.command()
@_DIRECTORY
@_SHA256
@_JSON
def verify(directory: Path, manifest_sha256: str | None, as_json: bool) -> None:
    """Read every file of the bundle in DIRECTORY against its checksum. Needs no network, changes nothing.

    Missing, altered and extra files are named, links too. A bundle that was not finished is not complete.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard bundle verify /srv/bundle[/cyan]
      [cyan]modelyard bundle verify /srv/bundle --json | jq -r '.faults[].path'[/cyan]

    Exit code 0: all of it is as the manifest says. 1: it is not, or there is no manifest. 2: called wrongly.
    """  # noqa: D301
    with _told(as_json):
        manifest, digest, faults = _verified(directory, manifest_sha256)
    if as_json:
        print_json({"ok": not faults, **as_data(manifest, digest, directory=directory.absolute()),
                    "faults": [fault.as_json() for fault in faults]})  # fmt: skip
    elif faults:
        render_faults(err(), directory, faults)
    else:
        render_parts(out(), manifest, frozenset())
        out().print(
            f"[green]{escape(str(directory))}: every file is as the manifest says.[/]", soft_wrap=True
        )
    if faults:
        raise Exit(PROBLEM)


@bundle.command()
@_DIRECTORY
@_INVENTORY
@_SHA256
@click.option("--check", "check_only", is_flag=True, help="Say what would be done, and change nothing.")
@_JSON
def apply(
    directory: Path, inventory: str, manifest_sha256: str | None, check_only: bool, as_json: bool
) -> None:
    """Prepare the hosts of a closed network, so that deploys need nothing from outside. Starts and stops nothing.

    The bundle in DIRECTORY is read in full first: one that is not complete or was altered is refused before anything is
    touched. Then each host gets the images and weights that the plan needs there, and the inventory a file
    [cyan]group_vars/all/zz-bundle.yml[/cyan], which makes the bundle the source of Python packages and forbids downloads.
    The directory has to stay where it is.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard bundle apply -i inventories/production /srv/bundle --check[/cyan]
      [cyan]modelyard bundle apply -i inventories/production /srv/bundle[/cyan]
      [cyan]ansible-playbook -i inventories/production playbooks/site.yml[/cyan]

    What a host has already is not sent again; a run that was cut off goes on. Exit code 0: all hosts are prepared.
    1: refused, or a host failed or did not answer. 2: called wrongly.
    """  # noqa: D301
    with _told(as_json):
        root = project_root(Path.cwd(), os.environ)
        path = inventory_path(inventory, Path.cwd(), root)
        directory = directory.absolute()
        manifest, digest, faults = _verified(directory, manifest_sha256)
        if faults:
            if not as_json:
                render_faults(err(), directory, faults)
            raise BundleError(
                f"{directory} is refused: {len(faults)} of its files are not as the manifest says. Nothing was touched.",
                [f"{fault.path} {fault.text}" for fault in faults] if as_json else [],
            )
        preparing.same_locks(directory, manifest, root)
        place = preparing.settings_place(path)
        installed = [
            part.name
            for part in manifest.of_kind("collection")
            if galaxy.install(directory / part.path, part.name, root / "collections", check=check_only)
        ]
        text = preparing.settings_text(directory, manifest)
        outcome = run_verb(
            "bundle_apply",
            inventory,
            None,
            as_json=as_json,
            check=check_only,
            # as text: Ansible would read "3.11" as a number
            extra={"bundle_json": json.dumps(contents(directory, manifest))},
        )
        changed = outcome.ok and preparing.write_settings(place, text, check=check_only)
        overruled = preparing.overruled(path, place) if outcome.ok else []
    result = outcome.result or {}
    unknown = [str(name) for name in result.get("unknown") or []] if result.get("kind") == "bundle" else []
    failures = [str(failure) for failure in outcome.failures]
    if not outcome.ok and not failures:
        failures = [outcome.output or "Ansible failed and said nothing."]
    failures += [
        f"{name}: its state is unknown, so it got nothing; run this again when it answers" for name in unknown
    ]
    if as_json:
        print_json(
            {
                "ok": not failures and not overruled,
                "check": check_only,
                "manifest_sha256": digest,
                "collections": installed,
                "settings": {"path": str(place), "changed": changed, "text": text},
                "overruled": overruled,
                "failures": failures,
            }
        )
    else:
        if outcome.ok:
            _tell_applied(check_only, installed, place, changed, text, inventory)
        for line in overruled:
            err().print(f"[yellow]{escape(line)}[/]", soft_wrap=True)
        if failures:
            err().print(f"[bold red]Failed[/]\n{escape(chr(10).join(failures))}", soft_wrap=True)
    if failures or overruled:
        raise Exit(PROBLEM)


def _tell_applied(
    check_only: bool, installed: Sequence[str], place: Path, changed: bool, text: str, inventory: str
) -> None:
    console = out()
    would = "would be " if check_only else ""
    for name in installed:
        console.print(f"{escape(name)}: {would}installed", soft_wrap=True)
    if changed:
        console.print(f"{escape(str(place))}: {would}written", soft_wrap=True)
    if check_only:
        if changed:
            console.print(escape(text.rstrip()), soft_wrap=True)
        console.print("Nothing was changed.")
        return
    console.print("[green]The hosts are prepared.[/] Now deploy as anywhere else:", soft_wrap=True)
    console.print(f"  ansible-playbook -i {escape(inventory)} playbooks/site.yml", soft_wrap=True)


def _verified(directory: Path, manifest_sha256: str | None) -> tuple[Manifest, str, list[verifying.Fault]]:
    """The manifest of a complete bundle, its digest, and what is wrong with the files. Raises ``BundleError``."""
    manifest = load(directory)
    digest = sha256_of(directory / MANIFEST)
    if manifest_sha256 is not None and manifest_sha256.strip().lower() != digest:
        raise BundleError(
            f"The manifest of {directory} has SHA-256 {digest}, and {manifest_sha256.strip()[:64]} was asked for: this is "
            "another bundle, or it was altered."
        )
    with bar() as told:
        told.part(f"reading {directory.name}", manifest.size)
        return manifest, digest, list(verifying.faults(directory, manifest, told.moved))


def _needs(inventory: str, as_json: bool) -> Mapping[str, Any]:
    """What the inventory needs, as Ansible resolves it; no host is touched. Ends the command where it has problems."""
    outcome = run_verb("check", inventory, None, as_json=as_json)
    found = (outcome.result or {}).get("needs")
    if isinstance(found, Mapping):
        return found
    problems = [problem.line() for problem in resolved_problems(outcome)]
    raise BundleError(
        f"The inventory {inventory} cannot be used:",
        problems or ["the playbook check said nothing of what it needs"],
    )


def _show_list(directory: Path, chosen: Chosen, as_json: bool) -> None:
    others = collecting.foreign(directory)
    if others:
        raise BundleError(
            f"{directory} holds {', '.join(others[:5])}, which is not of a bundle: name a directory of its own."
        )
    earlier = collecting.known(directory) if directory.exists() else None
    with err().status("asking how large it is"):
        rows = listed(chosen.sources, earlier)
    if as_json:
        print_json({"parts": rows, "notes": list(chosen.notes)})
        return
    render_list(out(), rows)
    for note in chosen.notes:
        out().print(f"[yellow]{escape(note)}[/]", soft_wrap=True)
    out().print("Nothing was collected.")


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    """Tell errors in the way that was asked for."""
    try:
        yield
    except (BundleError, OSError) as error:
        problems: Sequence[str] = error.problems if isinstance(error, BundleError) else ()
        message = error.message if isinstance(error, BundleError) else str(error)
        if as_json:
            fail(message, as_json=True, ok=False, problems=list(problems))
        fail("\n  ".join([message, *problems]))


def _own_machine() -> str:
    own = platform.machine()
    if own not in MACHINES:
        raise BundleError(f"This machine is {own}: say with --machine what the hosts are.")
    return own


def _versions(given: Sequence[str]) -> tuple[str, ...]:
    for version in given:
        major, _, minor = version.partition(".")
        if major != "3" or not minor.isdigit() or int(minor) < 11:
            raise click.BadParameter(
                f"{version!r} is no Python that Modelyard runs on; write it as 3.11.", param_hint="--python"
            )
    return tuple(dict.fromkeys(given))


def _places(given: Sequence[str]) -> dict[str, Path]:
    places = {}
    for one in given:
        model, equals, path = one.partition("=")
        if not (model and equals and path):
            raise click.BadParameter(f"{one!r} is not MODEL=PATH.", param_hint="--weights")
        places[model] = Path(path).expanduser().absolute()
    return places
