"""What is known of a host's GPUs -> which of them may be given to a replica, and how they are joined. Pure.

A GPU that is declared and not seen any more stays the host's: what runs on it is not moved by that, and nobody new gets it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import DOWN, UNKNOWN, UP, Gpu

Facts = Mapping[str, Any]

GIVEN = {"up": (UP,), "not_down": (UP, UNKNOWN), "any": (UP, UNKNOWN, DOWN)}
"""By ``fleet_gpu_health`` the health that a GPU must have to be given to a new replica."""
_LINK_TIERS = {"nvlink": 0, "xgmi": 0, "pcie_switch": 1, "numa": 2}
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Devices:
    """By the names that the inventory has: GPUs, those that are not well with the reason, and sets that are joined."""

    gpus: tuple[str, ...]
    known: Mapping[str, Gpu] = field(default_factory=dict)
    unwell: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[tuple[int, frozenset[str]], ...] = ()
    links: Mapping[frozenset[str], int] = field(default_factory=dict)
    missing: int = 0


def read_devices(declared: Sequence[str], facts: Facts, settings: Facts) -> Devices:
    """The GPUs of a host that answered. ``declared`` are the names of ``fleet_gpus``."""
    said = settings.get("fleet_gpu_memory_gib")
    memory = None if said is None else int(float(said) * _GIB)
    hardware = facts.get("hardware")
    if hardware is None:
        return _listed(declared, facts, memory)
    by_name = _by_name(hardware)
    known: dict[str, Gpu] = {}
    unwell: dict[str, str] = {}
    first: dict[int, str] = {}
    for name in declared:
        known[name] = gpu = by_name.get(name) or _unseen(hardware)
        if name in by_name and first.setdefault(id(gpu), name) != name:
            unwell[name] = f"it is the same as GPU {first[id(gpu)]}"
            continue
        if gpu.memory is None:
            known[name] = gpu = replace(gpu, memory=memory)
        if gpu.health not in GIVEN[str(settings.get("fleet_gpu_health") or "up")]:
            unwell[name] = f"its health is {gpu.health}: {gpu.reason}"
    names: dict[int, list[str]] = {}
    for name, gpu in known.items():
        if gpu.index is not None:
            names.setdefault(gpu.index, []).append(name)
    return Devices(
        gpus=tuple(declared),
        known=known,
        unwell=unwell,
        groups=_groups(hardware, names),
        links=_links(hardware, names),
        missing=sum(name not in by_name for name in declared),
    )


def _listed(declared: Sequence[str], facts: Facts, memory: int | None) -> Devices:
    """Those that the bare list of a host has, of whose health nothing is said; all of them where there is no list."""
    devices = list(facts.get("gpus", ()))
    sizes: dict[str, int | None] = {}
    for device in devices:
        size = device.get("memory_mib")
        sizes |= dict.fromkeys(
            (str(device["uuid"]), str(device["index"])), None if size is None else size * 2**20
        )
    gpus = tuple(gpu for gpu in declared if gpu in sizes) if devices else tuple(declared)
    known = {gpu: Gpu(memory=sizes.get(gpu) or memory) for gpu in gpus}
    return Devices(gpus=gpus, known=known, missing=len(declared) - len(gpus))


def _by_name(hardware: Facts) -> dict[str, Gpu]:
    """GPUs by index and UUID, instances of a cut one by theirs."""
    found: dict[str, Gpu] = {}
    for item in hardware["gpus"]:
        names = frozenset(str(name) for name in (item["uuid"], item["index"]) if name is not None)
        gpu = Gpu(
            item["index"], item["health"], item["reason"], item["memory_total"], names, used=item["used"]
        )
        found |= dict.fromkeys(names, gpu)
        for part in item.get("instances") or ():
            if part["uuid"] is not None:
                own = frozenset([str(part["uuid"])])
                found[str(part["uuid"])] = replace(gpu, memory=part["memory_total"], names=own)
    return found


def _unseen(hardware: Facts) -> Gpu:
    """A declared GPU that is not among those that the host shows."""
    why = str(hardware["reason"] or "").rstrip(".")
    if hardware["state"] == UP and not why:
        return Gpu(
            health=DOWN, reason="It is declared in fleet_gpus, and the host does not show it.", seen=False
        )
    if hardware["state"] == DOWN:
        told = f"It is declared in fleet_gpus, and {why or 'the host has none'}."
        return Gpu(health=DOWN, reason=told, seen=False)
    return Gpu(health=UNKNOWN, reason=f"Nothing is known of it: {why or 'no reason told'}.", seen=False)


def _groups(hardware: Facts, names: Mapping[int, Sequence[str]]) -> tuple[tuple[int, frozenset[str]], ...]:
    """Sets of GPUs that are joined: 0 by fast links, 1 behind one PCIe switch, 2 on one NUMA node."""
    found = []
    for group in hardware.get("groups") or ():
        members = frozenset(name for index in group["gpus"] for name in names.get(index, ()))
        if group["kind"] in _LINK_TIERS and len(members) > 1:
            found.append((_LINK_TIERS[group["kind"]], members))
    return tuple(sorted(found, key=lambda one: (one[0], sorted(one[1]))))


def _links(hardware: Facts, names: Mapping[int, Sequence[str]]) -> dict[frozenset[str], int]:
    """How many fast links join two GPUs directly."""
    found: dict[frozenset[str], int] = {}
    for link in hardware.get("links") or ():
        one, other = link["gpus"]
        digits = "".join(char for char in link["kind"] if char.isdigit())
        for left in names.get(one, ()):
            for right in names.get(other, ()):
                found[frozenset((left, right))] = int(digits or 1)
    return found
