"""Which generation a GPU is of, and what that asks of the driver, by the catalog's data. Pure.

``catalog`` is what ``modelyard.catalog.load_gpus`` reads, as plain data: vendors by name, each with ``generations``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

RULES = ("open_modules", "first_branch", "last_branch")


def classify(catalog: Mapping[str, Any], gpu: dict[str, Any]) -> None:
    """Fill in ``generation`` and ``driver_rule``. Device id and compute capability that contradict make it unknown."""
    vendor = catalog.get(gpu["vendor"])
    if not vendor:
        return
    entries: Sequence[Mapping[str, Any]] = vendor.get("generations") or ()
    entry = _by_device(entries, gpu["device"]) or _by_name(entries, gpu["name"])
    told = _by_compute(entries, gpu["compute"])
    if entry and told and entry["name"] != told["name"]:
        gpu["unknown"]["generation"] = (
            f"its PCI id says {entry['name']}, and the driver tells {gpu['compute']}, which is {told['name']}"
        )
        return
    entry = entry or told
    if entry is None:
        if gpu["device"] or gpu["name"] or gpu["compute"]:
            gpu["unknown"]["generation"] = "it is in no generation of Modelyard's catalog"
        return
    gpu["generation"] = entry["name"]
    gpu["driver_rule"] = {rule: entry[rule] for rule in RULES if entry.get(rule) is not None}


def _by_device(entries: Sequence[Mapping[str, Any]], device: str | None) -> Mapping[str, Any] | None:
    if device is None:
        return None
    for entry in entries:
        for first, last in entry.get("devices") or ():
            if str(first) <= device <= str(last):
                return entry
    return None


def _by_name(entries: Sequence[Mapping[str, Any]], name: str | None) -> Mapping[str, Any] | None:
    for entry in entries if name else ():
        for pattern in entry.get("names") or ():
            if re.search(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", name or ""):
                return entry
    return None


def _by_compute(entries: Sequence[Mapping[str, Any]], compute: str | None) -> Mapping[str, Any] | None:
    return next((entry for entry in entries if compute and compute in (entry.get("compute") or ())), None)
