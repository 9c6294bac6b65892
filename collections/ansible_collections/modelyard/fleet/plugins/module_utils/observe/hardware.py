"""A host's GPUs as the planner needs them: which there are, whether they are well, how they are joined, who uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import health_driver
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.findings import CRITICAL, UNKNOWN
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.observe import observe
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.gpus import Owner

Facts = dict[str, Any]
UP, DOWN = "up", "down"
_MIB = 1024**2
_JOINED = ("NV", "XGMI")


def look(
    host: Host, vendor: str, catalog: Mapping[str, Any], ours: Owner, replicas: Mapping[str, Owner]
) -> tuple[list[Facts], Facts]:
    """The vendor's GPUs as ``gpus.devices`` lists them, and what is known of them.

    ``ours`` tells the fleet's processes from others, ``replicas`` the processes of each replica.
    """
    facts = observe(host, catalog, {})
    gpus = [gpu for gpu in facts["gpus"] if gpu["vendor"] == vendor]
    everywhere = _everywhere(facts) if vendor == "nvidia" else ""
    devices = [_device(gpu, ours) for gpu in gpus if gpu["index"] is not None and gpu["uuid"] is not None]
    topology = facts["topology"]
    seen = facts["vendors"][vendor]
    return devices, {
        "vendor": vendor,
        "state": seen["state"],
        "reason": seen["reason"],
        "health": facts["health"],
        "findings": facts["findings"],
        "gpus": [_gpu(gpu, facts["findings"], everywhere, replicas) for gpu in gpus],
        "groups": [one for one in topology["groups"] if one["vendor"] == vendor],
        "links": [
            {"gpus": one["gpus"], "kind": one["kind"]}
            for one in topology["links"]
            if one["vendor"] == vendor and one["kind"].startswith(_JOINED)
        ],
    }


def _device(gpu: Facts, ours: Owner) -> Facts:
    memory = gpu["memory_total"]
    return {
        "index": gpu["index"],
        "uuid": gpu["uuid"],
        "name": gpu["name"] or "",
        "memory_mib": None if memory is None else memory // _MIB,
        "foreign_processes": [one["pid"] for one in gpu["processes"] or () if not ours.is_ours(one["pid"])],
    }


def _gpu(gpu: Facts, findings: list[Facts], everywhere: str, replicas: Mapping[str, Owner]) -> Facts:
    instances = gpu["mig"]["instances"] if gpu["mig"]["mode"] else []
    health, reason = gpu["health"], _reason(gpu, findings)
    if everywhere and health != DOWN:
        health, reason = DOWN, everywhere
    return {
        **{name: gpu[name] for name in ("index", "uuid", "address", "name", "memory_total", "memory_used")},
        "health": health,
        "reason": reason,
        "instances": [{name: one.get(name) for name in ("uuid", "memory_total")} for one in instances],
        "used": {} if instances else _used(gpu, replicas),
    }


def _everywhere(facts: Facts) -> str:
    """What is wrong with NVIDIA's driver or fabric manager, and so with every GPU; empty where nothing is."""
    wrong = health_driver.findings(facts, None)
    return next((one["text"] for one in wrong if one["severity"] == CRITICAL and one["gpu"] is None), "")


def _reason(gpu: Facts, findings: list[Facts]) -> str:
    """Why it is not well, the worst first; empty where it is."""
    if gpu["health"] == UP:
        return ""
    own = [one for one in findings if one["gpu"] and one["gpu"] == gpu["address"]]
    worst = [one["text"] for kind in (CRITICAL, UNKNOWN) for one in own if one["severity"] == kind]
    return next(iter(worst), "") or gpu["reason"] or "Nobody can tell."


def _used(gpu: Facts, replicas: Mapping[str, Owner]) -> dict[str, int]:
    """Bytes that the processes of each replica use of the GPU; those that do not tell it are left out."""
    used: dict[str, int] = {}
    for process in gpu["processes"] or ():
        name = next((one for one, owner in replicas.items() if owner.has(process["pid"])), None)
        if name is not None and process["memory"]:
            used[name] = used.get(name, 0) + process["memory"]
    return used
