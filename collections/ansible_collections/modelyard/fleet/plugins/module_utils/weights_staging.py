"""Where weights lie until they are whole: filled by one run at a time, kept for the next of the same source, watched."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.files import write_atomically
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import Manifest, WeightsError


def lock_path(staging: Path) -> Path:
    """The file by which runs keep each other out of a staging directory."""
    return staging.with_name(f"{staging.name}.lock")


@contextmanager
def locked(
    staging: Path, patience_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[None]:
    """Only one run at a time may fill a staging directory; who comes second waits for as long as the first gets on.

    Raises ``WeightsError`` when nothing has come for ``patience_s`` seconds.
    """
    # never removed while the directory is filled: two runs could then hold locks on two files of one name
    with lock_path(staging).open("w") as handle:
        since, seen = clock(), -1
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                size = bytes_below(staging)
                if size != seen:
                    since, seen = clock(), size
                if clock() - since > patience_s:
                    raise WeightsError(
                        f"another run is downloading into {staging} and has not got on for "
                        f"{patience_s:.0f} s: see what it does, or end it"
                    ) from error
                sleep(0.2)
        yield


def bytes_below(directory: Path) -> int:
    """Bytes of all files below a directory that others write to meanwhile."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total


def staging_of(place: Path) -> Path:
    """Where the weights of a directory lie until they are whole."""
    return place.with_name(f".{place.name}.partial")


def expect(staging: Path, total: int) -> None:
    """Note how many bytes there will be, for whoever watches."""
    (staging / ".modelyard-expected").write_text(f"{total}\n", encoding="utf-8")


def watch(place: Path) -> tuple[int, int | None]:
    """Bytes that lie in a staging directory, and how many there will be; (0, None) when nothing is fetched."""
    staging = staging_of(place)
    total = None
    with suppress(OSError, ValueError):
        total = int((staging / ".modelyard-expected").read_text(encoding="utf-8"))
    have = bytes_below(staging)
    return (have if total is None else min(have, total)), total


def prepare(staging: Path, source: Mapping[str, str]) -> None:
    """Keep what an earlier, interrupted run of the same source left; drop anything else."""
    note = staging / ".modelyard-source.json"
    wanted = json.dumps(source, sort_keys=True)
    if staging.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != wanted):
        shutil.rmtree(staging)
    staging.mkdir(mode=0o755, exist_ok=True)
    write_atomically(note, wanted.encode(), 0o644)


def keep_good_files(content: Path, place: Path, manifest: Manifest, wrong: dict[str, str]) -> None:
    """Link the undamaged files of ``place`` into the new tree, so that only the damaged ones are fetched."""
    for entry in manifest.files:
        target = content / entry.path
        if entry.path in wrong or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # not every file system has hard links; then it is fetched like the others
            os.link(place / entry.path, target)
