"""Disks, memory, load and clock of a host against the limits of ``fleet_doctor_limits``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    WARNING,
    Facts,
    Finding,
    finding,
    size,
    some,
)

_GIB = 1024**3
_MAKE_ROOM = "Remove weights and images that nobody needs, or give it more room."


def findings(host: str, health: Facts, limits: Facts) -> Iterator[Finding]:
    """Everything but the container engine and the ports."""
    yield from _disks(host, health["disks"], limits)
    yield from _memory(host, health["memory"], limits)
    yield from _load(host, health["load"], limits)
    yield from _clock(host, health["clock"], limits)


def _disks(host: str, disks: list[dict[str, Any]], limits: Facts) -> Iterator[Finding]:
    """Directories on one file system are told together."""
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for disk in disks:
        if disk["state"] != "up":
            yield finding(
                "disk_unknown",
                UNKNOWN,
                host,
                "disk",
                f"It is not known how full {disk['path']} is: {disk['reason']}. A file system that does not answer holds "
                "up every engine that reads from it: look at its server and at the kernel's log.",
                disk["path"],
            )
            continue
        key = (disk["filesystem"], disk["total"])
        together.setdefault(key, []).append(disk)
    for group in together.values():
        yield from _file_system(host, group, limits)


def _file_system(host: str, group: list[dict[str, Any]], limits: Facts) -> Iterator[Finding]:
    names = some([disk["path"] for disk in group], 5)
    first = min(group, key=lambda disk: int(disk["free"]))
    free, total = first["free"], first["total"]
    told = f"{size(free)} of {size(total)} are free for {names}"
    if _below(free, total, limits["disk_full_percent"], limits["disk_full_gib"]):
        yield finding("disk_full", CRITICAL, host, "disk", f"{told}: as good as nothing. {_MAKE_ROOM}", names)
    elif _below(free, total, limits["disk_low_percent"], limits["disk_low_gib"]):
        yield finding("disk_low", WARNING, host, "disk", f"{told}. {_MAKE_ROOM}", names)
    inodes, left = first["inodes"], first["inodes_free"]
    if inodes is None:
        return
    share = f"{left} of {inodes} inodes are free for {names}"
    if left < inodes * limits["disk_full_percent"] / 100:
        text = (
            f"{share}: no more files can be made there soon. Remove directories with very many small files."
        )
        yield finding("inodes_full", CRITICAL, host, "disk", text, names)
    elif left < inodes * limits["disk_low_percent"] / 100:
        text = f"{share}. Look for directories with very many small files."
        yield finding("inodes_low", WARNING, host, "disk", text, names)


def _below(free: float, total: float, percent: float, gib: float) -> bool:
    """A share of a large disk is much: what counts is the lesser of both limits."""
    return free < min(total * percent / 100, gib * _GIB)


def _memory(host: str, memory: Facts, limits: Facts) -> Iterator[Finding]:
    if memory["state"] != "up":
        text = f"How much memory is free is not known: {memory['reason']}. See that /proc is mounted."
        yield finding("memory_unknown", UNKNOWN, host, "memory", text)
        return
    free, total = memory["available"], memory["total"]
    told = f"{size(free)} of {size(total)} memory can still be had"
    if free < total * limits["memory_full_percent"] / 100:
        text = f"{told}: the kernel will soon end a process, an engine maybe. End what uses it, or move a replica away."
        yield finding("memory_full", CRITICAL, host, "memory", text)
    elif free < total * limits["memory_low_percent"] / 100:
        text = f"{told}. See what uses it (top), and set resources.memory of the models."
        yield finding("memory_low", WARNING, host, "memory", text)
    used = memory["swap_total"] - memory["swap_free"]
    if memory["swap_total"] and used > memory["swap_total"] * limits["swap_used_percent"] / 100:
        text = (
            f"{size(used)} of {size(memory['swap_total'])} swap are in use: what lies there answers slowly. "
            "Free memory, then swapoff and swapon."
        )
        yield finding("swap_used", WARNING, host, "memory", text)


def _load(host: str, load: Facts, limits: Facts) -> Iterator[Finding]:
    if load["state"] != "up":
        text = f"The load is not known: {load['reason']}. See that /proc is mounted."
        yield finding("load_unknown", UNKNOWN, host, "load", text)
        return
    average, cores = load["averages"][2], load["cores"]
    if average > limits["load_per_core"] * cores:
        text = (
            f"For 15 minutes {average:g} processes have waited for {cores} cores or for a disk. Engines that wait for the "
            "processor leave their GPUs idle: see what runs (top), and whether a disk hangs."
        )
        yield finding("load_high", WARNING, host, "load", text)


def _clock(host: str, clock: Facts, limits: Facts) -> Iterator[Finding]:
    ahead, within = clock.get("offset_s"), clock.get("within_s")
    if ahead is None or within is None:
        text = "How far the clock is from the controller's is not known: it was not measured. Look again."
        yield finding("clock_unknown", UNKNOWN, host, "clock", text)
    else:
        yield from _offset(host, float(ahead), float(within), limits)
    if clock["synchronised"] is None:
        text = f"Whether the clock is kept right is not known: {clock['reason']}. Install chrony or systemd-timesyncd."
        yield finding("clock_sync_unknown", UNKNOWN, host, "clock", text)
    elif not clock["synchronised"]:
        text = (
            f"Nothing keeps the clock right ({clock['source']} says so). Start chrony or systemd-timesyncd, and see that "
            "it reaches its servers."
        )
        yield finding("clock_unsynchronised", WARNING, host, "clock", text)


def _offset(host: str, ahead: float, within: float, limits: Facts) -> Iterator[Finding]:
    """Only what surely is beyond a limit is wrong; what cannot be told within it is unknown."""
    least = abs(ahead) - within
    side = "ahead of" if ahead > 0 else "behind"
    told = f"The clock is {abs(ahead):.1f} s {side} the controller's (within {within:.1f} s)"
    if least > limits["clock_wrong_s"]:
        text = f"{told}: certificates and expiry times are judged wrongly. Set it, and start a time service."
        yield finding("clock_wrong", CRITICAL, host, "clock", text)
    elif least > limits["clock_off_s"]:
        text = f"{told}, so logs and traces of both do not fit together. Look at the time service of both machines."
        yield finding("clock_off", WARNING, host, "clock", text)
    elif within > limits["clock_wrong_s"]:
        text = f"{told}: the host took so long to answer that nobody can tell. Look again."
        yield finding("clock_unknown", UNKNOWN, host, "clock", text)
    elif abs(ahead) + within > limits["clock_wrong_s"]:
        yield finding(
            "clock_doubtful", NOTE, host, "clock", f"{told}. Look again when the host is less busy."
        )
