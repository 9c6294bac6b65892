"""Making a bundle: what is there already is kept, what is missing is collected, and the manifest is written last.

While it is made the directory holds ``.incomplete``: the journal of the parts that are done, and what is on its way. A run
that dies leaves that, and the next one goes on from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from modelyard.bundle.manifest import MANIFEST, WORK, BundleError, File, Manifest, Part, parse, read, write
from modelyard.bundle.paths import beneath_link, sha256_of, slug, walk
from modelyard.bundle.sources import Source, Told

JOURNAL = "journal.json"
TOPS = ("images", "weights", "wheels", "collections", "packages", "project")


@dataclass(frozen=True, slots=True)
class Made:
    """A finished bundle, and which of its parts (by path) came in this run."""

    manifest: Manifest
    fresh: frozenset[str]


def digest_of(wish: Mapping[str, Any]) -> str:
    """SHA-256 of what is asked for."""
    return hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()


def known(directory: Path) -> Manifest | None:
    """What an earlier run has finished of a bundle; None where there was none. Raises ``BundleError``."""
    for place in (directory / WORK / JOURNAL, directory / MANIFEST):
        if place.exists():
            return parse(read(place), str(place))
    return None


def foreign(directory: Path) -> list[str]:
    """What lies in the directory and is surely not of a bundle; nothing where there is no directory yet."""
    if not directory.exists():
        return []
    if not directory.is_dir():
        return [directory.name]
    return sorted({entry.name for entry in directory.iterdir()} - {MANIFEST, WORK, *TOPS})


def collect(
    directory: Path,
    sources: Sequence[Source],
    *,
    without: Sequence[str],
    version: str,
    now: Callable[[], datetime],
    told: Told,
) -> Made:
    """Bring ``directory`` to a complete bundle of ``sources``. Raises ``BundleError``, ``OSError``.

    ``without`` are kinds that were left out on purpose, ``version`` is Modelyard's. A bundle that is complete and right is
    left as it is.
    """
    others = foreign(directory)
    if others:
        raise BundleError(
            f"{directory} holds {', '.join(others[:5])}, which is not of a bundle: name a directory of its own."
        )
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        earlier = known(directory)
        kept = _kept(directory, sources, earlier, told)
        parts = {part.path: part for part, _ in kept}
        if (
            earlier is not None
            and not (directory / WORK).exists()
            and len(kept) == len(sources) == len(earlier.parts)
            and set(earlier.without) == set(without)
            and not _strays(directory, kept)
        ):
            return Made(earlier, frozenset())
        work = directory / WORK
        work.mkdir(exist_ok=True)
        files = {file.path: file for _, found in kept for file in found}
        started = now().isoformat(timespec="seconds")

        def manifest() -> Manifest:
            ordered = [parts[one.path] for one in sources if one.path in parts]
            return Manifest(
                started, version, tuple(without), tuple(ordered), tuple(files[path] for path in sorted(files))
            )

        def note(part: Part, found: Sequence[File]) -> None:
            parts[part.path] = part
            files.update({file.path: file for file in found})
            write(work / JOURNAL, manifest().text())

        write(work / JOURNAL, manifest().text())
        (directory / MANIFEST).unlink(missing_ok=True)
        for stray in _strays(directory, kept):
            (directory / stray).unlink()
        fresh = set()
        for source in sources:
            if source.path in parts:
                continue
            _bring(directory, source, told, note)
            fresh.add(source.path)
        _drop_empty(directory)
        os.sync()
        done = manifest()
        write(directory / MANIFEST, done.text())
        shutil.rmtree(work)
        return Made(done, frozenset(fresh))


def _kept(
    directory: Path, sources: Sequence[Source], earlier: Manifest | None, told: Told
) -> list[tuple[Part, list[File]]]:
    """The parts that are there, as they are asked for and whole; every file is read."""
    if earlier is None:
        return []
    there = {part.path: part for part in earlier.parts}
    wanted = [there[one.path] for one in sources
              if one.path in there and there[one.path].wish == digest_of(one.wish)]  # fmt: skip
    found = [(part, earlier.files_of(part)) for part in wanted]
    told.part("looking at what is there", sum(file.size for _, files in found for file in files))
    return [(part, files) for part, files in found if all(_whole(directory, file, told) for file in files)]


def _whole(directory: Path, file: File, told: Told) -> bool:
    place = directory / file.path
    try:
        return (
            not beneath_link(directory, file.path)
            and place.lstat().st_size == file.size
            and sha256_of(place, told.moved) == file.sha256
        )
    except OSError:
        return False


def _strays(directory: Path, kept: Sequence[tuple[Part, Sequence[File]]]) -> list[str]:
    """Files in the bundle's own directories that are of no part that is kept."""
    known_files = {file.path for _, files in kept for file in files}
    return [
        f"{top}/{path}"
        for top in TOPS
        if (directory / top).is_dir() and not (directory / top).is_symlink()
        for path, _ in walk(directory / top)
        if f"{top}/{path}" not in known_files
    ] + [top for top in TOPS if (directory / top).is_symlink() or (directory / top).is_file()]


def _bring(directory: Path, source: Source, told: Told, note: Callable[[Part, Sequence[File]], None]) -> None:
    """Collect one part, note its files, put it in its place."""
    scratch = directory / WORK / f"{source.kind}-{slug(source.path)}"
    scratch.mkdir(exist_ok=True)
    done = source.collect(scratch, told)
    names = [path for path, _ in walk(done.place)] if done.place.is_dir() else [""]
    sizes = {name: (done.place / name).lstat().st_size for name in names if name not in done.leave_out}
    told.part(f"{source.name}: checksums", sum(sizes.values()))
    found = [
        File(f"{source.path}/{name}" if name else source.path, size, sha256_of(done.place / name, told.moved))
        for name, size in sorted(sizes.items())
    ]
    part = Part(source.kind, source.name, source.path, digest_of(source.wish), done.details)
    target = directory / source.path
    target.parent.mkdir(exist_ok=True)
    _remove(target)
    # noted first: what is noted and not in its place is looked for in the scratch again, never trusted
    note(part, found)
    done.place.rename(target)
    for name in done.leave_out:
        (target / name).unlink(missing_ok=True)
    _open_modes(target)
    shutil.rmtree(scratch)


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _open_modes(target: Path) -> None:
    """Readable for whoever copies the bundle on."""
    for path in [target, *(target.rglob("*") if target.is_dir() else ())]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _drop_empty(directory: Path) -> None:
    for top in TOPS:
        place = directory / top
        for path in sorted(place.rglob("*"), reverse=True) if place.is_dir() else ():
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Only one run may fill a directory; the lock ends with the process."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BundleError(f"Another run is making the bundle in {directory}: wait for it.") from error
        yield
    finally:
        os.close(handle)
