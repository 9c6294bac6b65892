"""Whether a host's driver is one: what runs, what is installed, whether a reboot is due, what does not fit. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.health_driver import same

Data = Mapping[str, Any]


def installed_module(modinfo: str) -> dict[str, Any]:
    """Version and kind of the kernel module on disk, as ``modinfo`` prints them; None where there is none."""
    fields = dict(re.findall(r"^(version|license):\s+(.+?)\s*$", modinfo, re.MULTILINE))
    licence = fields.get("license")
    return {"version": fields.get("version"), "open": None if licence is None else "GPL" in licence}


def reboot_reasons(facts: Data, choice: Data, module: Data, asking: Iterable[str]) -> list[str]:
    """Why a reboot is needed; empty when it is not.

    ``module`` is what is installed, ``asking`` the packages that the distribution says want a reboot.
    """
    reasons = []
    if choice["vendor"] == "nvidia":
        loaded = facts["drivers"]["nvidia"]["module"]
        if module["version"] and loaded["version"] and not same(loaded["version"], module["version"]):
            reasons.append(
                f"the kernel module {loaded['version']} is loaded, {module['version']} is installed"
            )
        elif module["version"] and loaded["version"] and loaded["open"] != module["open"]:
            kinds = {True: "open", False: "proprietary"}
            reasons.append(
                f"the {kinds.get(loaded['open'], 'other')} kernel module is loaded, "
                f"the {kinds.get(module['open'], 'other')} one is installed"
            )
        elif module["version"] and not loaded["version"]:
            reasons.append(f"the kernel module {module['version']} is installed and not loaded")
    elif choice["vendor"] == "amd" and module["version"]:
        loaded = facts["drivers"]["amd"]["module"]
        if loaded.get("state") != "up":
            reasons.append(f"the kernel module {module['version']} is installed and not loaded")
        elif loaded.get("version") not in (None, module["version"]):
            reasons.append(
                f"the kernel module {loaded['version']} is loaded, {module['version']} is installed"
            )
    names = [re.compile(pattern) for pattern in choice["hold"]]
    ours = sorted({name for name in asking if any(one.fullmatch(name) for one in names)})
    if ours:
        reasons.append(f"{', '.join(ours)} asked for it")
    return reasons


def disagreements(facts: Data, choice: Data, module: Data) -> list[str]:
    """What is not as chosen, and every finding that keeps engines from being started; empty when all is well."""
    wrong = []
    if choice["vendor"] == "nvidia":
        parts = facts["drivers"]["nvidia"]
        versions = {
            "kernel module (loaded)": parts["module"]["version"],
            "kernel module (installed)": module["version"],
            "userspace": parts["userspace"]["version"],
        }
        if choice["fabric_manager"]:
            versions["fabric manager"] = parts["fabric_manager"]["version"]
        known = {name: version for name, version in versions.items() if version}
        wrong += [f"the version of the {name} is not known" for name in versions if name not in known]
        if any(not same(one, other) for one in known.values() for other in known.values()):
            wrong.append(
                "versions differ: " + ", ".join(f"{name} {version}" for name, version in known.items())
            )
        elif known and not same(next(iter(known.values())), str(choice["branch"])):
            wrong.append(f"branch {choice['branch']} is chosen and {next(iter(known.values()))} runs")
        if parts["module"]["open"] not in (None, choice["modules"] == "open"):
            wrong.append(f"the {choice['modules']} kernel modules are chosen and the others are loaded")
    wrong += [one["text"] for one in facts["findings"] if one["severity"] in ("critical", "unknown")]
    return wrong
