"""What the NVIDIA driver and its tools say: their versions, the GPUs, and how these are joined."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import nvidia_text, nvidia_xml, topology
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import ABSENT, HUNG, OK, Outcome
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host

UP, DOWN, UNKNOWN = "up", "down", "unknown"
SMI = nvidia_xml.TOOL
Facts = dict[str, Any]


def collect(host: Host, devices: list[Facts], bus_known: bool) -> Facts:
    """``devices`` are NVIDIA's on the bus; ``bus_known`` says whether that list is the truth.

    Gives ``present`` (None when nobody knows), ``state``, ``reason``, ``gpus``, ``lost``, ``attached``, ``drivers`` and
    ``topology``.
    """
    on_bus = any(one["role"] == "gpu" for one in devices)
    module = _module(host)
    found: Facts = {"gpus": [], "lost": [], "attached": None, "topology": no_topology()}
    userspace: Facts = {
        "state": DOWN,
        "version": None,
        "cuda": None,
        "reason": f"{SMI} is not there",
        "complaint": "",
    }
    asked = host.run(SMI, "-q", "-x")
    if asked.state == ABSENT:
        state, reason = _without_tool(on_bus, bus_known, module)
    else:
        userspace, state, reason = _ask(host, asked, found, on_bus, bus_known, module)
    if state == DOWN and not on_bus and bus_known and not found["gpus"]:
        present: bool | None = False
    else:
        present = True if on_bus or found["gpus"] else None
    found["drivers"] = {
        "module": module,
        "userspace": userspace,
        "fabric_manager": _fabric_manager(host, devices, found["gpus"]),
    }
    return {"present": present, "state": state, "reason": reason, **found}


def no_topology(reason: str = "") -> Facts:
    """No links known."""
    return {"links": [], "nodes": {}, "reason": reason}


def _module(host: Host) -> Facts:
    text = host.read(host.proc / "driver" / "nvidia" / "version")
    if text is None:
        if not host.proc.is_dir():
            return {"state": UNKNOWN, "version": None, "open": None, "reason": f"{host.proc} cannot be read"}
        return {
            "state": DOWN,
            "version": None,
            "open": None,
            "reason": "the NVIDIA kernel module is not loaded",
        }
    version, is_open = nvidia_text.parse_kernel_module(text)
    why = "" if version else "/proc/driver/nvidia/version tells no version"
    return {"state": UP if version else UNKNOWN, "version": version, "open": is_open, "reason": why}


def _without_tool(on_bus: bool, bus_known: bool, module: Facts) -> tuple[str, str]:
    if module["state"] == DOWN and on_bus:
        return DOWN, "no NVIDIA driver is loaded, and nvidia-smi is not there"
    if module["state"] == DOWN and bus_known:
        return DOWN, "there is no NVIDIA GPU"
    if module["state"] == DOWN:
        return UNKNOWN, "nvidia-smi is not there, and what is on the PCI bus cannot be seen"
    return UNKNOWN, "the NVIDIA kernel module may be loaded, but nvidia-smi is not there"


def _ask(
    host: Host, asked: Outcome, found: Facts, on_bus: bool, bus_known: bool, module: Facts
) -> tuple[Facts, str, str]:
    """Fill ``found``; gives the userspace's side, the state and its reason."""
    parsed, problem = nvidia_xml.parse_query(asked.out) if asked.state == OK else ({}, asked.reason)
    found["lost"] = nvidia_text.parse_lost(asked.said)
    complaint = nvidia_text.parse_complaint(asked.said)
    userspace: Facts = {
        "state": UP if parsed.get("driver") else UNKNOWN,
        "version": parsed.get("driver"),
        "cuda": parsed.get("cuda"),
        "reason": problem,
        "complaint": complaint,
    }
    if asked.state == HUNG:
        return userspace, UNKNOWN, asked.reason
    if userspace["version"] is None:
        versions = nvidia_text.parse_versions(host.run(SMI, "--version").out + "\n" + asked.said)
        userspace["version"] = versions["smi"] or versions["nvml"]
        userspace["cuda"] = versions["cuda"]
    if problem and complaint == "no_driver" and module["state"] == DOWN:
        if on_bus:
            return userspace, DOWN, "no NVIDIA driver is loaded"
        return (userspace, DOWN, "there is no NVIDIA GPU") if bus_known else (userspace, UNKNOWN, problem)
    if complaint == "no_devices" and not on_bus and bus_known:
        return userspace, DOWN, "there is no NVIDIA GPU"
    if complaint in ("mismatch", "no_driver", "no_devices"):
        return userspace, UNKNOWN, problem or f"{SMI} finds no GPU, though there are some on the PCI bus"
    table = _table(host)
    found["lost"] += [one for one in nvidia_text.parse_lost(table.said) if one not in found["lost"]]
    rows = nvidia_text.parse_csv(table.out) or nvidia_text.parse_csv(table.out, _OLD)
    found["gpus"] = _joined(parsed.get("gpus") or [], rows, problem)
    found["attached"] = parsed.get("attached")
    _name_instances(host, found["gpus"])
    if len(found["gpus"]) > 1:
        asked_links = host.run(SMI, "topo", "-m")
        links, nodes, why = topology.parse_nvidia(asked_links.out)
        found["topology"] = {"links": links, "nodes": nodes, "reason": asked_links.reason or why}
    if found["gpus"]:
        return userspace, UP, problem
    if not problem and not on_bus and bus_known and parsed.get("attached") == 0:
        return userspace, DOWN, "there is no NVIDIA GPU"
    return userspace, UNKNOWN, problem or f"{SMI} lists no GPU"


_OLD = tuple(field for field in nvidia_text.FIELDS if field != "compute_cap")


def _table(host: Host) -> Outcome:
    """The CSV query; without compute capabilities where the driver is too old to tell them."""
    form = "--format=csv,noheader,nounits"
    asked = host.run(SMI, f"--query-gpu={','.join(nvidia_text.FIELDS)}", form)
    if asked.state != OK and "not a valid field" in asked.said:
        return host.run(SMI, f"--query-gpu={','.join(_OLD)}", form)
    return asked


def _joined(gpus: list[Facts], rows: list[Facts], problem: str) -> list[Facts]:
    """The report's GPUs with what only the table has; the table's own where there is no report.

    The table's numbers count: where a GPU is lost, the others keep theirs. Two GPUs with one UUID cannot be.
    """
    table = {row["uuid"]: row for row in rows}
    if not gpus:
        for row in rows:
            for field in ("mig", "ecc", "throttle", "processes"):
                row["unknown"].setdefault(field, problem or f"{SMI} told only its table")
        gpus = rows
    for gpu in gpus:
        if gpu["uuid"] in table:
            row = table[gpu["uuid"]]
            gpu["index"], gpu["compute"] = row["index"], row["compute"]
    for field in ("uuid", "address"):
        values = [gpu[field] for gpu in gpus]
        for gpu in gpus:
            if gpu[field] is not None and values.count(gpu[field]) > 1:
                gpu["unknown"][field] = f"{SMI} gives {gpu[field]} to {values.count(gpu[field])} GPUs"
    return sorted(gpus, key=lambda gpu: gpu["index"])


def _name_instances(host: Host, gpus: list[Facts]) -> None:
    """UUIDs and profiles of MIG instances, which only ``nvidia-smi -L`` has."""
    sliced = [gpu for gpu in gpus if gpu["mig"]["mode"]]
    if not sliced:
        return
    asked = host.run(SMI, "-L")
    listed = nvidia_text.parse_list(asked.out)
    for gpu in sliced:
        known = {one["index"]: one for one in listed.get(gpu["uuid"], ())}
        for instance in gpu["mig"]["instances"]:
            instance.update(known.pop(instance["index"], {}))
        lacking = any(one["uuid"] is None for one in gpu["mig"]["instances"])
        if lacking or known or asked.state != OK:
            gpu["unknown"].setdefault(
                "mig", asked.reason or f"{SMI} -L and {SMI} -q do not tell the same instances"
            )


def _fabric_manager(host: Host, devices: list[Facts], gpus: list[Facts]) -> Facts:
    """The service that joins GPUs over NVSwitches; ``needed`` where there is a switch or a GPU waits for one."""
    switches = sum(one["role"] == "nvswitch" for one in devices)
    needed = switches > 0 or any(gpu["fabric"]["state"] for gpu in gpus)
    facts: Facts = {"needed": needed, "switches": switches, "state": DOWN, "version": None, "reason": ""}
    if not needed:
        return facts
    asked = host.run("nv-fabricmanager", "--version")
    version = nvidia_text.parse_fabric_manager(asked.said)
    if version:
        return {**facts, "state": UP, "version": version}
    if asked.state == ABSENT:
        return {**facts, "reason": asked.reason}
    return {**facts, "state": UNKNOWN, "reason": asked.reason or "nv-fabricmanager tells no version"}
