"""Whether files are still those that were hashed, without reading hundreds of gigabytes at every deploy.

When a directory has been hashed, size, modification time, change time and inode of each file are noted in a seal, in
the manifest. Whatever writes to a file through the file system moves its change time, which no ``touch`` sets back, so
a file that has all four unchanged is not read again; one that differs in any is. What changes *below* the file system
(a dying disk) moves nothing: only a full check finds that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    Entry,
    Manifest,
    damaged,
    read_seal,
    sha256_of,
)

Stamp = list[int]
Stamps = dict[str, Stamp]
MOST_READERS = 4


def stamp(path: Path) -> Stamp:
    """Size, modification and change time (ns) and inode of a file."""
    state = path.lstat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def stamps(directory: Path, manifest: Manifest) -> Stamps:
    """The stamps of all files of a manifest as they are now."""
    return {entry.path: stamp(directory / entry.path) for entry in manifest.files}


def _hash_all(directory: Path, entries: Iterable[Entry]) -> dict[str, str]:
    wanted = list(entries)
    readers = max(1, min(MOST_READERS, os.cpu_count() or 1, len(wanted)))
    with ThreadPoolExecutor(readers) as pool:  # hashing leaves the interpreter's lock
        return dict(
            zip(
                (entry.path for entry in wanted),
                pool.map(lambda entry: sha256_of(directory / entry.path), wanted),
                strict=True,
            )
        )


def examine(directory: Path, manifest: Manifest, full: bool) -> tuple[dict[str, str], Stamps, int]:
    """Files that are not as the manifest says, each with the reason; the stamps of those that are; bytes that were read.

    Reads what the seal does not vouch for, with ``full`` everything.
    """
    wrong = damaged(directory, manifest)
    sealed = {} if full else read_seal(directory)
    here = {entry.path: stamp(directory / entry.path) for entry in manifest.files if entry.path not in wrong}
    doubtful = [
        entry for entry in manifest.files if entry.path in here and here[entry.path] != sealed.get(entry.path)
    ]
    found = _hash_all(directory, doubtful)
    for entry in doubtful:
        if found[entry.path] != entry.sha256:
            wrong[entry.path] = "has another content than was downloaded (SHA-256 differs)"
            del here[entry.path]
    return wrong, here, sum(entry.size for entry in doubtful)
