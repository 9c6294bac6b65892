"""Weights on a host that nobody uses any more: what they are, who may still use them, and how they are removed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.files import human
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import WeightsError, read_manifest
from ansible_collections.modelyard.fleet.plugins.module_utils.weights_staging import bytes_below

Row = dict[str, Any]
REMOVED = ".removed"


def find(
    directory: Path, keep: Collection[str], used: Collection[str], mounted: Collection[str] = ()
) -> list[Row]:
    """What of a directory of weights could be removed: ``path``, ``bytes`` and ``what`` it is. Reads only.

    Only what Modelyard put there is listed: directories with its manifest, and what an unfinished download or removal has
    left. ``keep`` are names that the inventory wants, ``used`` paths that somebody on the host has in use, ``mounted``
    those with all that is below them.
    """
    found: list[Row] = []
    if not directory.is_dir():
        return found
    for path in sorted(directory.iterdir()):
        if path.is_symlink() or not path.is_dir():
            continue
        name, what = _kind(path)
        if what and name not in keep and not _in_use(path, used, mounted) and not _being_filled(path):
            found.append({"path": str(path), "bytes": bytes_below(path), "what": what})
    return found


def _kind(path: Path) -> tuple[str, str]:
    """The name under which its weights are or would be used, and what it is; empty for what is not ours."""
    name = path.name
    if name.startswith(".") and name.endswith(".partial"):
        return name[1 : -len(".partial")], "an unfinished download"
    if name.startswith(".") and name.endswith(REMOVED):
        return name, "the rest of a removal"
    manifest = read_manifest(path)
    if manifest is None:
        return name, ""
    if name.endswith(".old"):
        return name, f"weights of {manifest.model} that were replaced"
    return name, f"weights of {manifest.model}"


def _in_use(path: Path, used: Collection[str], mounted: Collection[str]) -> bool:
    """Whether one of the paths is the directory or lies in it, or something that holds it is mounted."""
    real = os.path.realpath(path)
    within = any(one == real or one.startswith(f"{real}/") for one in (*used, *mounted))
    return within or any(real.startswith(f"{one.rstrip('/')}/") for one in mounted)


def _being_filled(path: Path) -> bool:
    """Whether a run has the lock of an unfinished download."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        with lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return True
        raise
    return False


def open_paths(proc: Path = Path("/proc")) -> Iterator[str]:
    """Paths of this machine that processes have open, are in, or name in their command lines.

    What runs in a container sees other paths: its mounts are asked of the container engine.
    """
    for entry in proc.iterdir():
        if not entry.name.isdigit() or entry.name == str(os.getpid()):
            continue
        with suppress(OSError):
            for word in (entry / "cmdline").read_bytes().split(b"\0"):
                for part in word.decode(errors="replace").split("="):
                    if part.startswith("/"):
                        yield os.path.realpath(part)
        for name in ("fd", "map_files"):
            with suppress(OSError):
                for link in (entry / name).iterdir():
                    with suppress(OSError):
                        yield str(link.readlink())
        with suppress(OSError):
            yield str((entry / "cwd").readlink())


def remove(directory: Path, path: Path) -> None:
    """Remove one thing that :func:`find` listed. Raises ``WeightsError``, ``OSError``.

    It is renamed first, so that a removal that is cut off leaves nothing that looks whole.
    """
    if path.parent != directory or path.is_symlink() or not _kind(path)[1]:
        raise WeightsError(f"{path} is nothing that may be removed")
    gone = path if path.name.endswith(REMOVED) else path.with_name(f".{path.name.lstrip('.')}{REMOVED}")
    if gone != path:
        if gone.exists():
            shutil.rmtree(gone)
        path.rename(gone)
    shutil.rmtree(gone)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def listing(found: Mapping[str, Collection[Row]]) -> Row:
    """What all hosts together could remove: ``lines`` for people, ``bytes``, ``size`` in words.

    ``token`` is the value that confirms just this.
    """
    lines, total = [], 0
    digest = hashlib.sha256()
    for host in sorted(found):
        for item in found[host]:
            lines.append(f"{host}: {item['path']}: {item['what']}, {human(int(item['bytes']))}")
            digest.update(f"{host}\0{item['path']}\0{item['bytes']}\n".encode())
            total += int(item["bytes"])
    return {
        "lines": lines,
        "bytes": total,
        "size": human(total),
        "token": digest.hexdigest()[:8] if lines else "",
    }
