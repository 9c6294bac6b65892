"""Who listens on the ports of a fleet: one of its replicas, or a stranger."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.observe.gpus import Owner

_LISTEN = "0A"
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_PUBLISHER = "docker-proxy"
"""The program that holds the published ports of containers."""
Facts = dict[str, Any]


def look(proc: str, ports: Iterable[int], replicas: Iterable[Mapping[str, Any]]) -> Facts:
    """One entry for each of the ports that somebody listens on.

    ``replicas`` are those that run, with ``replica``, ``port``, and ``pid`` or ``container_id``. ``process`` of an
    entry is None when it cannot be seen (it is another user's), ``replica`` is None when it is none of them.
    """
    try:
        inodes = _inodes(proc, set(ports))
    except OSError as error:
        return {"state": "unknown", "reason": f"{error.filename}: {error.strerror}", "listeners": []}
    holders = _holders(proc, {inode for _, inode in inodes}) if inodes else {}
    known = [dict(one) for one in replicas]
    found: dict[int, Facts] = {}
    for port, inode in sorted(inodes):
        process = holders.get(inode)
        if port not in found or found[port]["process"] is None:
            found[port] = {"port": port, "process": process, "replica": _replica(proc, port, process, known)}
    return {"state": "up", "reason": "", "listeners": list(found.values())}


def _inodes(proc: str, ports: set[int]) -> set[tuple[int, str]]:
    """Port and inode of each listening socket."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            text = Path(proc, "net", name).read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            if name == "tcp":
                raise
            continue  # a kernel without IPv6
        found |= {(port, inode) for port, inode in parse(text) if port in ports}
    return found


def parse(text: str) -> set[tuple[int, str]]:
    """Port and inode of each listening socket in one of the kernel's tables."""
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            found.add((int(fields[1].rpartition(":")[2], 16), fields[9]))
    return found


def _holders(proc: str, inodes: set[str]) -> dict[str, Facts]:
    """Which process has each of these sockets, as far as this user may see it; the first of several."""
    found: dict[str, Facts] = {}
    pids = sorted(int(entry.name) for entry in Path(proc).iterdir() if entry.name.isdigit())
    for pid in pids:
        try:
            files = list(Path(proc, str(pid), "fd").iterdir())
        except OSError:
            continue  # it has ended, or is another user's
        for file in files:
            try:
                target = os.readlink(file)  # noqa: PTH115 - no path comes of it
            except OSError:
                continue
            socket = _SOCKET.fullmatch(target)
            if socket and socket.group(1) in inodes:
                found.setdefault(socket.group(1), {"pid": pid, "name": _name(proc, pid)})
    return found


def _name(proc: str, pid: int) -> str:
    """Its name alone: a command line may hold secrets."""
    try:
        text = Path(proc, str(pid), "comm").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "a process that has just ended"
    return "".join(char if char.isprintable() else "?" for char in text.strip()) or "a process without a name"


def _replica(proc: str, port: int, process: Facts | None, replicas: Iterable[Facts]) -> str | None:
    if process is None:
        return None
    for one in replicas:
        containers = [str(one["container_id"])] if one.get("container_id") else []
        if containers and process["name"] == _PUBLISHER and one.get("port") == port:
            return str(one["replica"])
        roots = [int(one["pid"])] if one.get("pid") else []
        if (containers or roots) and Owner(proc, containers, roots).is_ours(process["pid"]):
            return str(one["replica"])
    return None
