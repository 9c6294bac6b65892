"""Everything about the GPUs of one host, as plain data: asks tools, has their answers parsed, fits them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import (
    collect_amd,
    collect_nvidia,
    pci,
    topology,
    xids,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import ABSENT, OK
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.generations import classify
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import blank

UP, DOWN, UNKNOWN = "up", "down", "unknown"
VENDORS = ("nvidia", "amd")
Facts = dict[str, Any]


def collect(host: Host, catalog: Mapping[str, Any]) -> Facts:
    """The facts. ``catalog``: see ``generations``."""
    bus = _bus(host)
    seen = {
        "nvidia": collect_nvidia.collect(host, _devices(bus, "nvidia"), bus["state"] == UP),
        "amd": collect_amd.collect(host, _devices(bus, "amd"), bus["state"] == UP),
    }
    gpus = [gpu for vendor in VENDORS for gpu in _merged(seen[vendor], _devices(bus, vendor), vendor)]
    for gpu in gpus:
        classify(catalog, gpu)
        if gpu["address"]:
            gpu["kernel_driver"], gpu["numa_node"] = host.pci_more(gpu["address"])
    log = (
        _log(host)
        if seen["nvidia"]["present"] is not False
        else {"state": DOWN, "reason": "", "source": None, "events": []}
    )
    for gpu in gpus:
        gpu["xids"] = [one for one in log["events"] if gpu["address"] and one["address"] == gpu["address"]]
    vendors = {name: {key: seen[name][key] for key in ("present", "state", "reason")} for name in VENDORS}
    state, reason = _overall(vendors)
    return {
        "state": state,
        "reason": reason,
        "vendors": vendors,
        "gpus": gpus,
        "drivers": {name: seen[name]["drivers"] for name in VENDORS},
        "pci": bus,
        "topology": _topology(seen, gpus),
        "xids": log,
        "lost": [one for name in VENDORS for one in seen[name].get("lost", ())],
        "attached": seen["nvidia"].get("attached"),
    }


def _bus(host: Host) -> Facts:
    """GPUs and switches on the bus, by lspci, or by the kernel's files where that is not there or does not answer."""
    asked = host.run("lspci", "-D", "-mm", "-nn")
    why = asked.reason
    if asked.state == OK:
        devices, odd = pci.parse_lspci(asked.out)
        if odd == 0 and asked.out.strip():
            return _bus_found(host, "lspci", devices)
        why = "lspci printed lines that are no devices" if odd else "lspci said nothing"
    files = host.pci_files()
    if files is not None:
        devices, odd = pci.from_sysfs(files)
        if odd == 0:
            return _bus_found(host, "sysfs", devices, "" if asked.state == ABSENT else why)
        why += "; the kernel's files on the PCI bus cannot be understood either"
    else:
        why += "; the kernel shows no PCI bus either"
    return {"state": UNKNOWN, "source": None, "reason": why, "devices": []}


def _bus_found(host: Host, source: str, devices: list[Facts], reason: str = "") -> Facts:
    for device in devices:
        device["kernel_driver"], device["numa_node"] = host.pci_more(device["address"])
    return {"state": UP, "source": source, "reason": reason, "devices": devices}


def _devices(bus: Facts, vendor: str) -> list[Facts]:
    return [one for one in bus["devices"] if one["vendor"] == vendor]


def _merged(seen: Facts, devices: list[Facts], vendor: str) -> list[Facts]:
    """The driver's GPUs, and those on the bus that it does not show, which are down or unknown with a reason."""
    told = {one["address"]: one for one in seen.get("lost", ()) if one["address"]}
    shown = {gpu["address"] for gpu in seen["gpus"]}
    merged = list(seen["gpus"])
    for gpu in merged:
        if gpu["address"] in told:
            _lose(gpu, told[gpu["address"]])
    for device in devices:
        if device["role"] != "gpu" or device["address"] in shown:
            continue
        gpu = blank(vendor)
        gpu.update({key: device[key] for key in ("address", "device")}, name=device["name"] or None)
        if device["address"] in told:
            _lose(gpu, told[device["address"]])
        elif device["kernel_driver"] == "vfio-pci":
            gpu["state"], gpu["reason"] = DOWN, "it is held for a virtual machine (vfio-pci)"
        elif seen["state"] == UP:
            gpu["state"], gpu["reason"] = DOWN, "it is on the PCI bus, and the driver does not show it"
        else:
            gpu["state"], gpu["reason"] = seen["state"], seen["reason"]
        merged.append(gpu)
    return merged


def _lose(gpu: Facts, told: Facts) -> None:
    gpu["state"] = DOWN if told["lost"] else UNKNOWN
    gpu["reason"] = f"the driver has no access to it: {told['text']}"


def _overall(vendors: Mapping[str, Facts]) -> tuple[str, str]:
    """Unknown where GPUs are there and nothing is known of them; up where some answer; down where there surely is none."""
    silent = [one for one in vendors.values() if one["state"] == UNKNOWN]
    there = [one for one in silent if one["present"]]
    if there:
        return UNKNOWN, there[0]["reason"]
    if any(one["state"] == UP for one in vendors.values()):
        return UP, ""
    if silent:
        return UNKNOWN, silent[0]["reason"]
    present = [one for one in vendors.values() if one["present"]]
    return DOWN, present[0]["reason"] if present else "there is no GPU"


def _topology(seen: Mapping[str, Facts], gpus: list[Facts]) -> Facts:
    """Links and groups of both vendors. NUMA nodes are the kernel's, the tool's where it has none."""
    links, groups, reasons = [], [], []
    for vendor in VENDORS:
        found = seen[vendor]["topology"]
        links += [{"vendor": vendor, **link} for link in found["links"]]
        nodes = dict(found["nodes"])
        nodes.update(
            {
                gpu["index"]: gpu["numa_node"]
                for gpu in gpus
                if gpu["vendor"] == vendor and gpu["index"] is not None and gpu["numa_node"] is not None
            }
        )
        groups += topology.groups(vendor, found["links"], nodes)
        reasons += [found["reason"]] if found["reason"] else []
    known = UP if any(gpu["state"] == UP for gpu in gpus) else DOWN
    return {
        "state": UNKNOWN if reasons else known,
        "reason": "; ".join(reasons),
        "links": links,
        "groups": groups,
    }


def _log(host: Host) -> Facts:
    """XID errors since boot, from dmesg, else from the journal."""
    reasons = []
    for tool, arguments in (
        ("dmesg", ("--time-format", "iso")),
        ("dmesg", ()),
        ("journalctl", ("--dmesg", "--boot", "--no-pager", "--quiet", "--output", "short-iso")),
    ):
        asked = host.run(tool, *arguments)
        if asked.state == OK and asked.out.strip():
            return {"state": UP, "reason": "", "source": tool, "events": xids.parse_log(asked.out)}
        why = asked.reason or f"{tool} said nothing"
        reasons += [] if why in reasons else [why]
    return {"state": UNKNOWN, "reason": "; ".join(reasons), "source": None, "events": []}
