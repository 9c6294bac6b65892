"""A finished tree of weights: readable, on the disk, and swapped in as a whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.files import fsync_directory
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import files_under


def open_modes(content: Path) -> None:
    """Readable by everyone: safetensors writes 0600, which another uid meets as a missing file."""
    for path in [content, *content.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def put_in_place(content: Path, place: Path) -> None:
    """Swap the finished tree in. A running engine keeps the files that it has open."""
    old = place.with_name(f"{place.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if place.exists():
        place.rename(old)
    content.rename(place)
    fsync_directory(place.parent)
    if old.exists():
        shutil.rmtree(old)


def settle(content: Path) -> None:
    """Have the disk write everything before the manifest says that it is there."""
    for path in files_under(content):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    for path in [content, *(one for one in content.rglob("*") if one.is_dir())]:
        fsync_directory(path)
