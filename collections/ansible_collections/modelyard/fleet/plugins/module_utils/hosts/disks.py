"""How full the file systems below some directories are."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import (
    ABSENT,
    FAILED,
    Outcome,
    find,
    run,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host

FIELDS = "%i %S %b %a %c %d"
"""File system, size of a block, blocks in all and free to users, inodes in all and free: what ``stat`` is asked for."""
Facts = dict[str, Any]


def look(host: Host, paths: Iterable[str]) -> list[Facts]:
    """One entry for each directory. One that is not there yet is judged by the nearest that is."""
    return [_one(host, path) for path in sorted(set(paths))]


def _one(host: Host, path: str) -> Facts:
    at = path
    while True:
        # A program of its own: on a network file system whose server is gone the question itself hangs.
        asked = _stat(host, at)
        missing = asked.state == FAILED and "No such file or directory" in asked.said
        if not missing or at == posixpath.dirname(at):
            break
        at = posixpath.dirname(at)
    figures = parse(asked.out) if not asked.reason else None
    if figures is None:
        reason = asked.reason or "stat printed no figures"
        return {"path": path, "at": at, "state": "unknown", "reason": reason}
    return {"path": path, "at": at, "state": "up", "reason": "", **figures}


def _stat(host: Host, path: str) -> Outcome:
    file = find("stat", host.path)
    if file is None:
        return Outcome(ABSENT, reason="stat is not there")
    argv = (file, "--file-system", "--dereference", f"--format={FIELDS}", "--", path)
    return run(argv, host.timeout_s, f"stat of {path}")


def parse(text: str) -> Facts | None:
    """What ``stat`` printed, sizes in bytes; None when it is not to be understood.

    A file system without a fixed number of inodes (btrfs) has none.
    """
    words = text.split()
    if len(words) != 6 or not all(word.isascii() and word.isdigit() for word in words[1:]):
        return None
    block, total, free, inodes, inodes_free = (int(word) for word in words[1:])
    if block <= 0 or total <= 0 or free > total or inodes_free > inodes:
        return None
    return {
        "filesystem": words[0],
        "total": total * block,
        "free": free * block,
        "inodes": inodes or None,
        "inodes_free": inodes_free if inodes else None,
    }
