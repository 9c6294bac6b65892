"""From facts and what is expected -> what is wrong with a host's GPUs, and what to do about each. Pure.

A finding is ``critical`` (nothing should be started there), ``warning`` (it works, but somebody should look), ``unknown``
(nobody can tell) or ``note``. What is not known is never taken for well: it is a finding of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import health_driver
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.findings import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    WARNING,
    Finding,
    finding,
    named,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.xids import describe

Facts = Mapping[str, Any]
VITAL = (
    "uuid",
    "address",
    "memory_total",
    "memory_used",
    "temperature",
    "ecc",
    "throttle",
    "recovery_action",
    "mig",
)
"""Fields without which nobody can say that a GPU is well."""
WORST_FIRST = (CRITICAL, UNKNOWN, WARNING, NOTE)
_TITLES = {"nvidia": "NVIDIA", "amd": "AMD"}
_HEAT = frozenset(
    {"hw_thermal_slowdown", "sw_thermal_slowdown", "socket_thermal", "vr_thermal", "hbm_thermal", "prochot"}
)
_POWER = frozenset({"hw_power_brake_slowdown", "ppt"})
_CAPPED = frozenset({"sw_power_cap"})


def diagnose(facts: Facts, expect: Mapping[str, Any]) -> list[Finding]:
    """All findings, the worst first.

    ``expect``: ``count`` (GPUs that should be there), ``driver`` (NVIDIA's branch such as 580, or a version), ``mig``
    (profiles by index, UUID or PCI address of a GPU, or by ``all``; an empty list means that MIG is off). Each may
    be left out.
    """
    found = [
        *_hosts(facts),
        *_counts(facts, expect.get("count")),
        *health_driver.findings(facts, expect.get("driver")),
        *_log(facts),
    ]
    for gpu in facts["gpus"]:
        found += _gpu(gpu, expect.get("mig") or {})
    return sorted(found, key=lambda one: WORST_FIRST.index(one["severity"]))


def verdict(facts: Facts, findings: list[Finding]) -> str:
    """``down`` when something is critical, ``unknown`` when nobody can tell, else ``up``."""
    severities = {one["severity"] for one in findings}
    if CRITICAL in severities:
        return "down"
    return "unknown" if UNKNOWN in severities or facts["state"] == "unknown" else "up"


def verdict_of(gpu: Facts, findings: list[Finding]) -> str:
    """The same for one GPU, by the findings that name it."""
    own = {one["severity"] for one in findings if one["gpu"] and one["gpu"] == gpu["address"]}
    if CRITICAL in own or gpu["state"] == "down":
        return "down"
    return "unknown" if UNKNOWN in own or gpu["state"] != "up" or gpu["address"] is None else "up"


def _hosts(facts: Facts) -> Iterator[Finding]:
    """What concerns all GPUs of a vendor."""
    if facts["pci"]["state"] == "unknown":
        yield finding(
            "pci_unknown",
            UNKNOWN,
            f"What is on the PCI bus cannot be seen: {facts['pci']['reason']}. Install pciutils, or "
            "mount /sys.",
        )
    for vendor, seen in facts["vendors"].items():
        title, why = _TITLES[vendor], seen["reason"]
        if seen["state"] == "unknown" and seen["present"] is not None and "did not answer within" in why:
            yield finding(
                "gpu_hung",
                CRITICAL,
                f"The {title} GPUs do not answer: {why}. A GPU or its driver hangs: look at the kernel's "
                "log, stop what "
                "uses the GPUs and reboot the host.",
            )
        elif seen["state"] == "unknown":
            yield finding(
                "gpus_unknown",
                UNKNOWN,
                f"Nothing is known of {title} GPUs: {why}. See to it, then look again.",
            )
        elif seen["state"] == "down" and seen["present"]:
            yield finding(
                "driver_absent",
                CRITICAL,
                f"There are {title} GPUs, but {why}. Install the driver, or load its kernel module.",
            )
        elif seen["state"] == "up" and why:
            yield finding(
                "report_partial", UNKNOWN, f"Only a part is known of the {title} GPUs: {why}. Look again."
            )
    if facts["topology"]["state"] == "unknown":
        yield finding(
            "topology_unknown", NOTE, f"How the GPUs are joined is not known: {facts['topology']['reason']}."
        )


def _counts(facts: Facts, count: int | None) -> Iterator[Finding]:
    up = sum(gpu["state"] == "up" for gpu in facts["gpus"])
    unknown = sum(gpu["state"] == "unknown" for gpu in facts["gpus"])
    silent = [one for one in facts["vendors"].values() if one["state"] == "unknown"]
    attached = facts.get("attached")
    listed = sum(gpu["vendor"] == "nvidia" and gpu["state"] == "up" for gpu in facts["gpus"])
    if attached is not None and attached > listed and facts["vendors"]["nvidia"]["state"] == "up":
        yield finding(
            "gpu_not_reported",
            CRITICAL,
            f"The NVIDIA driver has {attached} GPUs and reports {listed}. Look at the kernel's log for "
            "the one that is silent, "
            "and reboot the host.",
        )
    for one in facts["lost"]:
        if one["address"] is None or all(gpu["address"] != one["address"] for gpu in facts["gpus"]):
            which = f"GPU {one['index']}" if one["index"] is not None else "a GPU"
            yield _lost(which, one["address"], one["text"])
    if count is None or up >= count:
        return
    if up + unknown < count and not silent and facts["pci"]["state"] == "up":
        yield finding(
            "gpu_missing",
            CRITICAL,
            f"{count} GPUs are declared and {up} answer. Look for the missing ones with lspci and in the "
            "kernel's log; reseat "
            "them or have them replaced, or declare fewer.",
        )
    else:
        yield finding(
            "gpu_count_unknown",
            UNKNOWN,
            f"{count} GPUs are declared and {up} answer; nobody can tell about the others. See to the "
            "other findings first.",
        )


def _lost(which: str, address: str | None, text: str) -> Finding:
    return finding(
        "gpu_lost",
        CRITICAL,
        f"The driver has no access to {which}: {text}. Stop what uses the host's GPUs and reboot it; if "
        "it comes back, have the "
        "GPU replaced.",
        address,
    )


def _gpu(gpu: Facts, mig: Mapping[str, Any]) -> Iterator[Finding]:
    who, where = named(gpu), gpu["address"]
    if gpu["state"] != "up":
        if gpu["reason"].startswith("the driver has no access to it"):
            yield _lost(who, where, gpu["reason"].partition(": ")[2])
        elif "does not show it" in gpu["reason"]:
            yield finding(
                "gpu_not_driven",
                CRITICAL,
                f"{who} is on the PCI bus, and the driver does not show it. Look at the kernel's log "
                "(NVRM, amdgpu) and reboot "
                "the host; if it stays so, have the GPU replaced.",
                where,
            )
        elif "vfio-pci" in gpu["reason"]:
            yield finding(
                "gpu_passed_through",
                WARNING,
                f"{who} is held for a virtual machine (vfio-pci). Give it back to the host, or declare "
                "one GPU less.",
                where,
            )
        elif gpu["state"] == "unknown":
            yield finding(
                "gpu_unknown",
                UNKNOWN,
                f"Nothing is known of {who}: {gpu['reason'] or 'no reason told'}.",
                where,
            )
        return
    yield from _memory(gpu, who)
    yield from _heat(gpu, who)
    action = gpu["recovery_action"]
    if action:
        yield finding(
            "recovery_action",
            CRITICAL,
            f"The driver asks for an action on {who}: {action}. Drain it and do so.",
            where,
        )
    if gpu["persistence"] is False:
        yield finding(
            "persistence_off",
            WARNING,
            f"Persistence mode of {who} is off, so each first program waits for the driver. Start "
            "nvidia-persistenced.",
            where,
        )
    yield from _mig(gpu, who, mig)
    for field in VITAL:
        if field in gpu["unknown"]:
            what = field.replace("_", " ")
            yield finding(
                "field_unknown", UNKNOWN, f"Of {who} the {what} is not known: {gpu['unknown'][field]}.", where
            )


def _memory(gpu: Facts, who: str) -> Iterator[Finding]:
    ecc, where = gpu["ecc"], gpu["address"]
    if ecc["volatile_uncorrected"]:
        yield finding(
            "ecc_uncorrected",
            CRITICAL,
            f"Memory of {who} has had {ecc['volatile_uncorrected']} errors that ECC could not correct "
            "since the driver was loaded. "
            "Drain it and reset it; if they come back, have the GPU replaced.",
            where,
        )
    elif ecc["aggregate_uncorrected"]:
        yield finding(
            "ecc_uncorrected_before",
            WARNING,
            f"Memory of {who} has had {ecc['aggregate_uncorrected']} errors in its life that ECC could "
            "not correct, none since the "
            "driver was loaded. Watch it.",
            where,
        )
    if ecc["remap_failed"]:
        yield finding(
            "remap_failed",
            CRITICAL,
            f"{who} has no spare rows left for its bad memory. Drain it and have it replaced.",
            where,
        )
    waiting = [("remap_pending", "rows"), ("retirement_pending", "pages"), ("repair_pending", "parts")]
    for key, what in waiting:
        if ecc[key]:
            yield finding(
                key,
                WARNING,
                f"{who} waits for a reset to replace bad {what} of its memory. Drain it and reset it "
                "(nvidia-smi --gpu-reset).",
                where,
            )


def _heat(gpu: Facts, who: str) -> Iterator[Finding]:
    heat, limit, margin, where = (
        gpu["temperature"],
        gpu["temperature_slowdown"],
        gpu["temperature_margin"],
        gpu["address"],
    )
    advice = "Look at fans, air flow and the temperature of the room."
    if heat is not None and limit is not None and heat >= limit:
        yield finding(
            "gpu_hot", CRITICAL, f"{who} has {heat:g} C and slows down from {limit:g} C on. {advice}", where
        )
    elif margin is not None and margin <= 0:
        yield finding(
            "gpu_hot",
            CRITICAL,
            f"{who} is {-margin:g} C above the point where it slows down. {advice}",
            where,
        )
    reasons = set(gpu["throttle"] or ())
    if reasons & _HEAT:
        yield finding(
            "throttled_by_heat",
            WARNING,
            f"{who} runs slower to cool down ({_words(reasons & _HEAT)}). {advice}",
            where,
        )
    brake = reasons & _POWER
    if brake:
        yield finding(
            "throttled_by_power",
            WARNING,
            f"{who} runs slower since its power supply holds it back ({_words(brake)}). Look at power "
            "supplies and cables.",
            where,
        )
    if reasons & _CAPPED:
        yield finding("power_capped", NOTE, f"{who} is at its power limit. That is normal under load.", where)
    rest = {one for one in reasons & {"hw_slowdown", "throttled"} if not reasons & (_HEAT | _POWER)}
    if rest:
        yield finding(
            "throttled",
            WARNING,
            f"{who} runs slower and does not tell why ({_words(rest)}). Look at heat and power.",
            where,
        )


def _words(reasons: set[str]) -> str:
    return ", ".join(sorted(reasons)).replace("_", " ")


def _mig(gpu: Facts, who: str, expect: Mapping[str, Any]) -> Iterator[Finding]:
    keys = (gpu["uuid"], gpu["address"], str(gpu["index"]), "all")
    key = next((one for one in keys if one is not None and one in expect), None)
    mode, pending, where = gpu["mig"]["mode"], gpu["mig"]["pending"], gpu["address"]
    if pending is not None and pending != mode:
        yield finding(
            "mig_pending",
            WARNING,
            f"MIG of {who} will be {'on' if pending else 'off'} after its next reset. Drain it and reset it.",
            where,
        )
    if key is None or "mig" in gpu["unknown"]:
        return
    wanted = sorted(str(one) for one in expect[key] or ())
    there = sorted(str(one["profile"]) for one in gpu["mig"]["instances"])
    if wanted == there and bool(wanted) == bool(mode):
        return
    yield finding(
        "mig_layout",
        CRITICAL,
        f"{who} should have {_layout(wanted)} and has {_layout(there) if mode else 'MIG off'}. Drain it, "
        "then apply the layout with "
        "nvidia-mig-parted; the UUIDs will be others.",
        where,
    )


def _layout(profiles: list[str]) -> str:
    if not profiles:
        return "no MIG instances"
    return ", ".join(f"{profiles.count(one)} x {one}" for one in sorted(set(profiles)))


def _log(facts: Facts) -> Iterator[Finding]:
    log = facts["xids"]
    if log["state"] == "unknown":
        yield finding(
            "xids_unknown",
            UNKNOWN,
            f"Whether the driver has logged XID errors is not known: {log['reason']}. Run as root, or "
            "let the user read the "
            "kernel's log.",
        )
    for event in log["events"]:
        gpu = next(
            (one for one in facts["gpus"] if one["address"] and one["address"] == event["address"]), None
        )
        who = named(gpu) if gpu else f"the GPU at {event['address'] or 'an address that cannot be read'}"
        known = describe(event["code"])
        often = f", {event['count']} times" if event["count"] > 1 else ""
        yield finding(
            f"xid_{event['code']}",
            known.severity,
            f"The driver has logged XID {event['code']} for {who} since boot{often}: {known.meaning}. "
            f"{known.advice}",
            event["address"],
        )
