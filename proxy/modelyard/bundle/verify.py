"""A bundle's directory against its manifest: what is missing, altered, or not part of it. Reads only."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.bundle import archives
from modelyard.bundle.manifest import MANIFEST, BundleError, File, Manifest
from modelyard.bundle.paths import Moved, beneath_link, sha256_of, walk


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that is not as the manifest says. ``kind``: missing, altered or extra."""

    kind: str
    path: str
    text: str

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"kind": self.kind, "path": self.path, "text": self.text}


def faults(directory: Path, manifest: Manifest, moved: Moved = lambda count: None) -> Iterator[Fault]:
    """Everything that is wrong with the files, each read in full. ``moved`` is told the bytes that were looked at."""
    for file in manifest.files:
        fault = _look(directory, file, moved)
        if fault is not None:
            yield fault
    known = {file.path for file in manifest.files} | {MANIFEST}
    for path, state in walk(directory):
        if path not in known:
            what = "is a symbolic link and" if stat.S_ISLNK(state.st_mode) else ""
            yield Fault("extra", path, f"{what} is not in the manifest".strip())
    for part in manifest.of_kind("image"):
        place = directory / part.path
        if not place.is_file():
            continue
        try:
            names = archives.image_names(place)
        except BundleError as error:
            yield Fault("altered", part.path, error.message)
            continue
        if names != [part.details["loaded_as"]]:
            told = ", ".join(names) or "no name"
            yield Fault(
                "altered", part.path, f"holds {told}, and the manifest says {part.details['loaded_as']}"
            )


def _look(directory: Path, file: File, moved: Moved) -> Fault | None:
    place = directory / file.path
    if beneath_link(directory, file.path):
        moved(file.size)
        return Fault("altered", file.path, "is reached through a link or a file in place of a directory")
    try:
        state = place.lstat()
    except FileNotFoundError:
        moved(file.size)
        return Fault("missing", file.path, "is not there")
    if not stat.S_ISREG(state.st_mode):
        moved(file.size)
        return Fault("altered", file.path, "is a link, or no regular file")
    if state.st_size != file.size:
        moved(file.size)
        return Fault("altered", file.path, f"has {state.st_size} bytes instead of {file.size}")
    try:
        if sha256_of(place, moved) != file.sha256:
            return Fault("altered", file.path, "has another content (SHA-256 differs)")
    except OSError as error:
        return Fault("altered", file.path, f"cannot be read: {error.strerror or error}")
    return None
