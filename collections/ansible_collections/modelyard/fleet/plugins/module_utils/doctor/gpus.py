"""What is declared of a host's GPUs, and what ``gpu_facts`` found, as findings of the doctor. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    UNKNOWN,
    Facts,
    Finding,
    finding,
    some,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.fleet_status import why_silent
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.vendors import VENDOR_OF

_TITLES = {"nvidia": "NVIDIA", "amd": "AMD"}


def declared(settings: Facts) -> list[str]:
    """Indexes and UUIDs of ``fleet_gpus``."""
    gpus = settings["fleet_gpus"]
    return [str(gpu) for gpu in (range(gpus) if isinstance(gpus, int) else gpus)]


def expected(settings: Facts) -> dict[str, Any]:
    """What ``gpu_facts`` is to expect; None where nothing is declared. A list of GPUs says nothing of their number."""
    named = settings["fleet_gpus"] if not isinstance(settings["fleet_gpus"], int) else None
    count = len(declared(settings)) if named is None else None
    return {"count": count or None, "driver": settings.get("fleet_gpu_driver")}


def findings(host: str, settings: Facts, facts: Facts) -> Iterator[Finding]:
    """For a host that has GPUs declared or computes with them; ``facts`` is what ``gpu_facts`` gave, in any state."""
    if "findings" not in facts:
        why = why_silent(facts)
        yield finding(
            "gpus_unknown",
            UNKNOWN,
            host,
            "gpu",
            f"Nothing is known of the GPUs: {why}. See to it, then look again.",
        )
        return
    for one in facts["findings"]:
        yield finding(one["code"], one["severity"], host, "gpu", one["text"], one["gpu"] or "")
    vendor = VENDOR_OF[settings["fleet_accelerator"]]
    if declared(settings) and facts["vendors"][vendor]["present"] is False and facts["gpus"]:
        text = (
            f"There is no {_TITLES[vendor]} GPU, and fleet_accelerator is {settings['fleet_accelerator']}. Declare what "
            "the host has."
        )
        yield finding("gpu_vendor", CRITICAL, host, "gpu", text)
    if not isinstance(settings["fleet_gpus"], int):
        yield from _named(host, settings, facts)


def _named(host: str, settings: Facts, facts: Facts) -> Iterator[Finding]:
    """GPUs that are declared one by one."""
    there: set[str] = set()
    for gpu in facts["gpus"]:
        if gpu["state"] == "up" and gpu["vendor"] == VENDOR_OF[settings["fleet_accelerator"]]:
            there |= {str(gpu["index"]), str(gpu["uuid"])}
            there |= {str(one["uuid"]) for one in gpu["mig"]["instances"]}
    missing = [gpu for gpu in declared(settings) if gpu not in there]
    if not missing:
        return
    names = f"GPU{'s' if missing[1:] else ''} {some(missing, 8)}"
    doubtful = facts["state"] == "unknown" or any(gpu["state"] == "unknown" for gpu in facts["gpus"])
    if doubtful:
        text = (
            f"{names} of fleet_gpus: nobody can tell whether they are there. See to the other findings first."
        )
        yield finding("gpu_count_unknown", UNKNOWN, host, "gpu", text)
    else:
        text = (
            f"{names} of fleet_gpus {'do' if missing[1:] else 'does'} not answer, or "
            f"{'are' if missing[1:] else 'is'} not there. Look with lspci and in the kernel's log, or declare others."
        )
        yield finding("gpu_missing", CRITICAL, host, "gpu", text)
