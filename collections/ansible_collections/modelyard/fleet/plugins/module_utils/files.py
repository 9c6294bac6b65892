"""Small file operations that every module needs: atomic writes, ownership, readability."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

UNCHANGED = -1
"""As an owner or group: leave the file to whoever the module runs as."""


def fsync_directory(directory: Path) -> None:
    """Make a rename inside ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(
    path: Path, data: bytes, mode: int, owner: int = UNCHANGED, group: int = UNCHANGED
) -> None:
    """Replace ``path`` by ``data`` in one step: temporary file in the same directory, fsync, rename.

    A reader sees the old file or the new one, never a part. Owner and mode are set before the rename,
    so a secret is never readable by others for an instant. Raises ``OSError``.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), mode)
            if owner != UNCHANGED or group != UNCHANGED:
                os.fchown(handle.fileno(), owner, group)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    fsync_directory(path.parent)


def allowed(entry: os.stat_result, uid: int, gid: int, wanted: int) -> bool:
    """Whether the permission bits let ``uid``:``gid`` do ``wanted`` (4 read, 2 write, 1 enter)."""
    if uid == 0:
        return True
    mode = stat.S_IMODE(entry.st_mode)
    if entry.st_uid == uid:
        return (mode >> 6) & wanted == wanted
    if entry.st_gid == gid:
        return (mode >> 3) & wanted == wanted
    return mode & wanted == wanted


def describe(entry: os.stat_result) -> str:
    """Mode and owner of a file as a sentence part: ``mode 0600, owner 0:0``."""
    return f"mode {stat.S_IMODE(entry.st_mode):04o}, owner {entry.st_uid}:{entry.st_gid}"


def unreadable_reason(path: Path, uid: int, gid: int) -> str | None:
    """Why ``uid``:``gid`` cannot read the file or tree at ``path``; None when it can.

    Judged by permission bits along the whole path: a container's user meets the same bits.
    """
    for parent in reversed(path.resolve().parents):
        if not allowed(parent.stat(), uid, gid, 1):
            return f"{parent} ({describe(parent.stat())}) cannot be entered"
    pending = [path]
    while pending:
        current = pending.pop()
        entry = current.stat()
        if stat.S_ISDIR(entry.st_mode):
            if not allowed(entry, uid, gid, 5):
                return f"{current} ({describe(entry)}) cannot be listed"
            pending.extend(sorted(current.iterdir()))
        elif not allowed(entry, uid, gid, 4):
            return f"{current} ({describe(entry)}) cannot be read"
    return None


def human(size: int) -> str:
    """Bytes as people read them: ``13.4 GiB``."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
