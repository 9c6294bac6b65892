"""What the AMD driver and its tools say: amd-smi where it is, else rocm-smi."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import amd, topology
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.collect_nvidia import no_topology
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import HUNG, OK
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import json_in

UP, DOWN, UNKNOWN = "up", "down", "unknown"
ROCM_ARGUMENTS = (
    "--showid", "--showuniqueid", "--showbus", "--showproductname", "--showmeminfo", "vram", "--showtemp",
    "--showpower", "--showmaxpower", "--showdriverversion", "--showtopotype", "--json",
)  # fmt: skip
Facts = dict[str, Any]


def collect(host: Host, devices: list[Facts], bus_known: bool) -> Facts:
    """As ``collect_nvidia.collect``."""
    on_bus = any(one["role"] == "gpu" for one in devices)
    loaded = (host.sys / "module" / "amdgpu").is_dir()
    version = (host.read(host.sys / "module" / "amdgpu" / "version") or "").strip() or None
    found: Facts = {"gpus": [], "topology": no_topology()}
    driver, tool, problem = _ask(host, found)
    if found["gpus"]:
        state, reason = UP, ""
    elif not on_bus and bus_known:
        state, reason = DOWN, "there is no AMD GPU"
    elif on_bus and not loaded and host.sys.is_dir() and not tool:
        state, reason = DOWN, "no AMD driver is loaded, and neither amd-smi nor rocm-smi is there"
    elif on_bus and not loaded and host.sys.is_dir() and not problem[1]:
        state, reason = DOWN, "no AMD driver is loaded"
    elif not on_bus and not tool:
        state, reason = (
            UNKNOWN,
            "what is on the PCI bus cannot be seen, and neither amd-smi nor rocm-smi is there",
        )
    else:
        state, reason = UNKNOWN, problem[0] or "neither amd-smi nor rocm-smi is there"
    present: bool | None = True if on_bus or found["gpus"] else (False if state == DOWN else None)
    found["drivers"] = {
        "module": {
            "state": UP if loaded else (DOWN if host.sys.is_dir() else UNKNOWN),
            "version": driver or version,
            "open": True if loaded else None,
            "reason": "" if loaded else "the kernel module amdgpu is not loaded",
        },
        "userspace": {"state": UP if found["gpus"] else DOWN, "tool": tool or None, "reason": problem[0]},
    }
    return {"present": present, "state": state, "reason": reason, **found}


def _ask(host: Host, found: Facts) -> tuple[str | None, str, tuple[str, bool]]:
    """Version of the driver, the tool that answered or should have, and why it did not and whether it hung."""
    problem = ("", False)
    asked_tool = ""
    if host.has(amd.AMD_SMI):
        asked_tool = amd.AMD_SMI
        asked = host.run(amd.AMD_SMI, "static", "--json")
        problem = (asked.reason, asked.state == HUNG)
        if asked.state == OK:
            rest = [
                json_in(host.run(amd.AMD_SMI, word, "--json").out) for word in ("metric", "list", "process")
            ]
            gpus, driver, why = amd.parse_amd_smi(json_in(asked.out), *rest)
            problem = (why, False)
            if gpus:
                found["gpus"] = gpus
                _links(host, found, amd.AMD_SMI)
                return driver, asked_tool, ("", False)
    if host.has(amd.ROCM_SMI):
        asked = host.run(amd.ROCM_SMI, *ROCM_ARGUMENTS)
        value = json_in(asked.out)
        gpus, driver, why = amd.parse_rocm_smi(value)
        if gpus:
            found["gpus"] = gpus
            if len(gpus) > 1:
                links, why = topology.parse_rocm(value.get("system"))
                found["topology"] = {"links": links, "nodes": {}, "reason": why}
            return driver, amd.ROCM_SMI, ("", False)
        told = asked.reason or why
        problem = (f"{problem[0]}; {told}" if problem[0] else told, problem[1] or asked.state == HUNG)
        asked_tool = asked_tool or amd.ROCM_SMI
    return None, asked_tool, problem


def _links(host: Host, found: Facts, tool: str) -> None:
    if len(found["gpus"]) < 2:
        return
    asked = host.run(tool, "topology", "--json")
    links, why = topology.parse_amd(json_in(asked.out))
    found["topology"] = {"links": links, "nodes": {}, "reason": asked.reason or why}
