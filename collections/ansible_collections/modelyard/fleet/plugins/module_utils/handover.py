"""Weights that come from the controller and not over a network: what a host lacks of them, and putting them in place.

What is put in place looks like what ``snapshot`` has fetched, manifest and all, so that from then on nothing tells it
apart. The source that is written there is the inventory's.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import snapshot as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    Entry,
    Manifest,
    WeightsError,
    give_to,
    sha256_of,
    write_manifest,
    wrongly_owned,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.weights_tree import (
    open_modes,
    put_in_place,
    settle,
)


@dataclass(frozen=True)
class Handed:
    """One model's weights and the files that the controller has of them; None where it has none.

    ``single``: they are one file, and the destination is that file.
    """

    snapshot: lib.Snapshot
    files: tuple[Entry, ...] | None
    single: bool

    @property
    def staging(self) -> Path:
        """Where the files lie until all of them have come; on the file system of the destination."""
        place = self.snapshot.destination
        return place.with_name(f".{place.name}.handed")

    @property
    def content(self) -> Path:
        """The tree that is put in place."""
        return self.staging / "content"


def parse(item: Mapping[str, Any]) -> Handed:
    """Check one item of the module's list. Raises ``WeightsError``."""
    snapshot = lib.parse(dict(item))
    if item["files"] is None:
        return Handed(snapshot, None, False)
    entries = tuple(Entry(str(one["path"]), int(one["size"]), str(one["sha256"])) for one in item["files"])
    for entry in entries:
        path = PurePosixPath(entry.path)
        if not entry.path or path.is_absolute() or ".." in path.parts or "\0" in entry.path:
            raise WeightsError(
                f"{snapshot.model}: {entry.path!r} would be written outside its directory: refused"
            )
    single = bool(item["single"])
    if not entries or (single and len(entries) != 1):
        raise WeightsError(f"{snapshot.model}: the bundle has no fitting files of it")
    return Handed(snapshot, entries, single)


def lacking(handed: Handed) -> str | None:
    """Why the host needs the files; None when it has the weights. Raises ``WeightsError`` for what is in the way."""
    snapshot = handed.snapshot
    if snapshot.kind == "path":
        # what lies at a path is the operator's: it is put there once, and never changed
        return None if snapshot.destination.exists() else "is not there yet"
    return lib.look(snapshot, full=False).fetch


def to_copy(handed: Handed) -> list[str]:
    """Paths of the files that are not in the staging directory yet, or not whole."""
    files = handed.files or ()
    return [entry.path for entry in files if not _is_whole(handed.content / entry.path, entry)]


def prepare(handed: Handed, reserve: int) -> list[str]:
    """Make the directories that the files are copied into; gives the paths of those that are to come, see ``to_copy``.

    Raises ``WeightsError`` where there is too little space.
    """
    lib.check_rights(handed.snapshot)
    handed.staging.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    missing = to_copy(handed)
    wanted = set(missing)
    size = sum(entry.size for entry in handed.files or () if entry.path in wanted)
    lib.require_space(handed.staging, size, reserve, f"the weights of {handed.snapshot.model}")
    handed.staging.mkdir(mode=0o700, exist_ok=True)
    _refuse_links(handed)
    for entry in handed.files or ():
        (handed.content / entry.path).parent.mkdir(parents=True, exist_ok=True)
    return missing


def place(handed: Handed) -> Manifest:
    """Check every file, and swap the tree in. Raises ``WeightsError`` and puts nothing in place when one is wrong."""
    snapshot, entries = handed.snapshot, handed.files or ()
    _refuse_links(handed)
    wrong = to_copy(handed)
    if wrong:
        raise WeightsError(f"{snapshot.model}: {', '.join(wrong[:5])} did not arrive whole: run it again")
    known = {entry.path for entry in entries}
    for path in sorted(handed.content.rglob("*")):
        if not path.is_dir() and path.relative_to(handed.content).as_posix() not in known:
            path.unlink()  # of another bundle that was not finished
    open_modes(handed.content)
    give_to(wrongly_owned(handed.content, snapshot.owner, snapshot.group), snapshot.owner, snapshot.group)
    manifest = Manifest(snapshot.model, snapshot.source, tuple(entries))
    settle(handed.content)
    if snapshot.kind != "path":
        write_manifest(handed.content, manifest, snapshot.owner, snapshot.group)
    put_in_place(handed.content / entries[0].path if handed.single else handed.content, snapshot.destination)
    shutil.rmtree(handed.staging)
    return manifest


def _refuse_links(handed: Handed) -> None:
    if handed.staging.is_symlink() or any(path.is_symlink() for path in handed.staging.rglob("*")):
        raise WeightsError(
            f"{handed.snapshot.model}: {handed.staging} holds symbolic links: look at it and remove it"
        )


def _is_whole(path: Path, entry: Entry) -> bool:
    try:
        return path.lstat().st_size == entry.size and sha256_of(path) == entry.sha256
    except OSError:
        return False


def lines(handed: Sequence[Handed]) -> str:
    """What is put in place, for ``--diff``."""
    return "".join(
        f"{one.snapshot.model}: {one.snapshot.destination} ({len(one.files or ())} files)\n" for one in handed
    )
