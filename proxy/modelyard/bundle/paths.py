"""Paths inside a bundle: what a manifest may name, and what lies in the directory.

A bundle comes from somewhere else. A path in its manifest never leads out of its directory, and nothing in the directory
is reached through a link.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

BLOCK = 1 << 20
"""Bytes that are read at a time."""

_LONGEST = 4096
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_SLUG = 120

Moved = Callable[[int], None]
"""Told how many bytes have been worked on since it was told last."""


def unsafe(path: str) -> str:
    """Why a manifest may not name this path, as the end of a sentence; empty when it may.

    Allowed is what is relative, below the directory, and written in the one way that it can be written.
    """
    if not path or len(path) > _LONGEST or "\0" in path:
        return "is no path"
    parts = PurePosixPath(path).parts
    if path.startswith("/"):
        return "is absolute"
    if ".." in parts:
        return "leads out of the directory"
    if "\\" in path or any(ord(sign) < 32 for sign in path):
        return "has a sign in it that no path of a bundle has"
    if PurePosixPath(*parts).as_posix() != path or path == ".":
        return "is not written plainly"
    return ""


def slug(name: str) -> str:
    """A file name that resembles ``name`` and is that of no other: ends with a hash where signs had to go."""
    plain = _NOT_IN_NAMES.sub("-", name).strip("-.")
    if plain == name and len(plain) <= _LONGEST_SLUG:
        return plain
    return f"{plain[:_LONGEST_SLUG]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def walk(directory: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Everything but directories below ``directory``, links not followed: relative path and its ``lstat``."""
    with os.scandir(directory / below if below else directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from walk(directory, path)
        else:
            yield path, entry.stat(follow_symlinks=False)


def beneath_link(directory: Path, path: str) -> bool:
    """Whether a directory on the way to ``path`` is a link or no directory at all."""
    place = directory
    for part in PurePosixPath(path).parts[:-1]:
        place = place / part
        try:
            if not stat.S_ISDIR(place.lstat().st_mode):
                return True
        except FileNotFoundError:
            return False
    return False


def sha256_of(path: Path, moved: Moved = lambda count: None) -> str:
    """SHA-256 of a regular file in hex. Raises ``OSError``; a link is an error, not followed."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise OSError(f"{path} is no regular file")
        while block := handle.read(BLOCK):
            digest.update(block)
            moved(len(block))
    return digest.hexdigest()
