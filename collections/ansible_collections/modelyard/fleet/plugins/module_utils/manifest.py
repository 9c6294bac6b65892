"""The manifest that says a directory of weights is whole, and checks against it.

It is written last, into a directory that is not yet in its place. A directory without one, or with
another source, another size or (in a full check) another hash, is never trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.files import UNCHANGED, write_atomically

MANIFEST = ".modelyard-manifest.json"
BLOCK = 1 << 20


class WeightsError(Exception):
    """Something about a model's weights that the operator must know; the text says what to do."""


class UnreachedError(WeightsError):
    """Another host, from which weights were to be copied, could not be reached at all."""


@dataclass(frozen=True)
class Entry:
    """One file of a snapshot: path relative to its directory, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a directory must hold. ``source`` is the identity of what was fetched, compared as a whole."""

    model: str
    source: dict[str, str]
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_under(directory: Path) -> list[Path]:
    """All regular files below ``directory`` but the manifest, in a stable order."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != MANIFEST]


def make_manifest(
    directory: Path, model: str, source: dict[str, str], known: Mapping[str, str] | None = None
) -> Manifest:
    """Read and hash everything below ``directory``; ``known`` are the SHA-256 by path of what has just been hashed."""
    hashed = known or {}
    entries = []
    for path in files_under(directory):
        name = path.relative_to(directory).as_posix()
        entries.append(Entry(name, path.stat().st_size, hashed.get(name) or sha256_of(path)))
    return Manifest(model, source, tuple(entries))


def write_manifest(
    directory: Path,
    manifest: Manifest,
    owner: int,
    group: int,
    seal: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write the manifest, atomically; readable by everyone, like the weights. ``seal``: see ``sealing``."""
    document: dict[str, Any] = {
        "version": 1,
        "model": manifest.model,
        "source": manifest.source,
        "files": [vars(entry) for entry in manifest.files],
    }
    if seal is not None:
        document["seal"] = {path: list(stamp) for path, stamp in seal.items()}
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    write_atomically(directory / MANIFEST, text.encode(), 0o644, owner, group)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory; None when there is none or it cannot be understood."""
    try:
        document = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        entries = tuple(Entry(item["path"], item["size"], item["sha256"]) for item in document["files"])
        return Manifest(document["model"], dict(document["source"]), entries)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_seal(directory: Path) -> dict[str, list[int]]:
    """What the manifest notes of the files as they were when they were hashed last; empty when it does not."""
    try:
        document = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        return {str(path): [int(part) for part in found] for path, found in document["seal"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def damaged(directory: Path, manifest: Manifest) -> dict[str, str]:
    """Files that are not as the manifest says, each with the reason. By their sizes: nothing is read."""
    found: dict[str, str] = {}
    for entry in manifest.files:
        path = directory / entry.path
        try:
            state = path.lstat()
        except OSError:
            found[entry.path] = "is missing"
            continue
        if not stat.S_ISREG(state.st_mode):
            found[entry.path] = "is no regular file"
        elif state.st_size != entry.size:
            found[entry.path] = f"has {state.st_size} bytes instead of {entry.size}"
    return found


def wrongly_owned(directory: Path, owner: int, group: int) -> list[Path]:
    """Everything in ``directory`` (itself included) that does not belong to ``owner``:``group``."""
    wrong = []
    for path in [directory, *sorted(directory.rglob("*"))]:
        state = path.lstat()
        if (owner not in (UNCHANGED, state.st_uid)) or (group not in (UNCHANGED, state.st_gid)):
            wrong.append(path)
    return wrong


def give_to(paths: list[Path], owner: int, group: int) -> None:
    """Change owners; a refusal says how to get the right to do it."""
    for path in paths:
        try:
            os.chown(path, owner, group, follow_symlinks=False)
        except PermissionError as error:
            raise WeightsError(
                f"{path} cannot be given to {owner}:{group} by uid {os.geteuid()}: run with become, or set "
                f"the owner and group of the weights to the user that runs the engine ({os.geteuid()}:{os.getegid()})"
            ) from error
