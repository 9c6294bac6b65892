"""``nvidia-smi -q -x`` -> GPUs. Pure.

Understands the schemas ``nvsmi_device_v10`` (drivers of the 400s), ``v11`` (450 to 530), ``v12`` (535 to 575) and ``v13``
(580 and later). They differ in names: ``clocks_throttle_reasons`` became ``clocks_event_reasons``, ``power_readings``
became ``gpu_power_readings``, ``power_draw`` was split into average and instant, temperatures of newer cards are margins
(``tlimit``), and ECC counts went from ``double_bit`` over ``sram_uncorrectable`` to parity and SECDED.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import (
    Reader,
    absent,
    address,
    blank,
    hexadecimal,
)

TOOL = "nvidia-smi"
LIMIT_CHARS = 16 * 1024 * 1024
_REASON = re.compile(r"^clocks_(?:event|throttle)_reason_(\w+)$")
_UUID = re.compile(r"^GPU-[0-9a-fA-F-]{8,60}$")

Element = ElementTree.Element


def parse_query(text: str) -> tuple[dict[str, Any], str]:
    """``driver``, ``cuda``, ``attached`` and ``gpus``, and a sentence when this is no such output (there are no GPUs then).

    Output that declares entities is refused: nvidia-smi has none, and they are how XML is made to grow.
    """
    empty: dict[str, Any] = {"driver": None, "cuda": None, "attached": None, "gpus": []}
    if not text.strip():
        return empty, f"{TOOL} said nothing"
    if len(text) > LIMIT_CHARS or "<!ENTITY" in text:
        return empty, f"{TOOL} printed something that is none of its reports"
    try:
        root = ElementTree.fromstring(text.strip())  # noqa: S314 - no entities, and expat loads no external ones
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return empty, f"{TOOL} printed no XML, or only a part of it"
    if root.tag != "nvidia_smi_log":
        return empty, f"{TOOL} printed XML that is none of its reports"
    attached = (_text(root, "attached_gpus") or "").strip()
    return {
        "driver": _version(_text(root, "driver_version")),
        "cuda": _version(_text(root, "cuda_version")),
        "attached": int(attached) if re.match(r"^[0-9]{1,4}$", attached) else None,
        "gpus": [_gpu(element, place) for place, element in enumerate(root.findall("gpu"))],
    }, ""


def _gpu(root: Element, place: int) -> dict[str, Any]:
    reader, gpu = Reader(TOOL), blank("nvidia")
    uuid = (_text(root, "uuid") or "").strip()
    if _UUID.match(uuid):
        gpu["uuid"] = uuid
    else:
        reader.doubt("uuid", f"{TOOL} tells no UUID")
    gpu["index"] = place  # nvidia-smi counts in the order of PCI addresses
    gpu["address"] = address(_text(root, "pci/pci_bus_id")) or address(root.get("id"))
    if gpu["address"] is None:
        reader.doubt("address", f"{TOOL} tells no PCI address")
    device = (_text(root, "pci/pci_device_id") or "").strip().lower().replace("0x", "", 1)
    gpu["device"] = hexadecimal(device[:4]) if device.endswith("10de") else None
    gpu["name"] = (
        None if absent(_text(root, "product_name")) else (_text(root, "product_name") or "").strip()[:120]
    )
    gpu["mig"] = _mig(root, reader)
    sliced = gpu["mig"]["mode"] is True
    gpu["memory_total"], gpu["memory_used"] = reader.memory(
        reader.size("memory_total", _text(root, "fb_memory_usage/total"), needed=not sliced),
        reader.size("memory_used", _text(root, "fb_memory_usage/used"), needed=not sliced),
    )
    _heat(root, gpu, reader)
    gpu["throttle"] = _throttle(root, reader)
    gpu["ecc"] = _ecc(root, reader)
    action = _text(root, "gpu_recovery_action")
    gpu["recovery_action"] = None if absent(action) else (action or "").strip()[:60]
    gpu["persistence"] = reader.truth("persistence", _text(root, "persistence_mode"))
    gpu["fabric"] = {
        name: None
        if absent(_text(root, f"fabric/{name}"))
        else (_text(root, f"fabric/{name}") or "").strip()[:60]
        for name in ("state", "status")
    }
    gpu["processes"] = list(_processes(root))
    gpu["state"], gpu["unknown"] = "up", reader.unknown
    return gpu


def _heat(root: Element, gpu: dict[str, Any], reader: Reader) -> None:
    """Temperature, its limit or the margin to it, and power."""
    heat = "temperature/gpu_temp"
    gpu["temperature"] = reader.quantity("temperature", _text(root, heat), -40, 200, needed=True)
    gpu["temperature_slowdown"] = reader.quantity(
        "temperature_slowdown", _text(root, f"{heat}_slow_threshold"), 1, 200
    )
    margin = reader.quantity("temperature_margin", _text(root, f"{heat}_tlimit"), -100, 200)
    slow = reader.quantity("temperature_margin", _text(root, f"{heat}_slow_tlimit_threshold"), -100, 100)
    if margin is not None and slow is not None:
        gpu["temperature_margin"] = margin - slow
    for place in ("gpu_power_readings", "power_readings"):
        if root.find(place) is None:
            continue
        drawn = ("instant_power_draw", "average_power_draw", "power_draw")
        limits = ("current_power_limit", "enforced_power_limit", "power_limit")
        gpu["power"] = reader.quantity("power", _first(root, place, drawn), 0, 10_000)
        gpu["power_limit"] = reader.quantity("power_limit", _first(root, place, limits), 0, 10_000)
        return


def _throttle(root: Element, reader: Reader) -> list[str] | None:
    """Reasons that are active now, such as ``hw_thermal_slowdown``; None when the card does not tell."""
    told = False
    active = []
    for place in ("clocks_event_reasons", "clocks_throttle_reasons"):
        for element in root.findall(f"{place}/*"):
            found = _REASON.match(element.tag)
            if not found:
                continue
            state = reader.truth("throttle", element.text)
            told = told or state is not None
            if state:
                active.append(found.group(1))
    return sorted(active) if told else None


def _ecc(root: Element, reader: Reader) -> dict[str, Any]:
    mode = reader.truth("ecc", _text(root, "ecc_mode/current_ecc"))
    pages, rows = "retired_pages", "remapped_rows"
    pending = _text(root, f"{pages}/pending_retirement")
    repairs = [
        reader.truth("ecc", _text(root, f"ecc_errors/{name}"))
        for name in ("channel_repair_pending", "tpc_repair_pending")
    ]
    ecc = {
        "mode": mode,
        "volatile_uncorrected": _uncorrected(root, "volatile", reader),
        "aggregate_uncorrected": _uncorrected(root, "aggregate", reader),
        "retirement_pending": reader.truth("ecc", pending),
        "remap_pending": reader.truth("ecc", _text(root, f"{rows}/remapped_row_pending")),
        "remap_failed": reader.truth("ecc", _text(root, f"{rows}/remapped_row_failure")),
        "repair_pending": True in repairs if any(one is not None for one in repairs) else None,
    }
    if mode and ecc["volatile_uncorrected"] is None:
        reader.doubt("ecc", f"{TOOL} says that ECC is on, but not what it has counted")
    return ecc


def _uncorrected(root: Element, span: str, reader: Reader) -> int | None:
    """Errors that ECC could not correct, in all memories together; None when the card does not count."""
    base = f"ecc_errors/{span}"
    old = _text(root, f"{base}/double_bit/total")
    if not absent(old):
        return reader.count("ecc", old)
    names = (
        "sram_uncorrectable",
        "sram_uncorrectable_parity",
        "sram_uncorrectable_secded",
        "dram_uncorrectable",
    )
    counts = [reader.count("ecc", _text(root, f"{base}/{name}")) for name in names]
    known = [one for one in counts if one is not None]
    return sum(known) if known else None


def _mig(root: Element, reader: Reader) -> dict[str, Any]:
    """Mode now and after the next reset, and the instances; UUIDs and profiles are not in here but in ``nvidia-smi -L``."""
    instances = []
    for element in root.findall("mig_devices/mig_device"):
        instances.append(
            {
                "index": reader.count("mig", _text(element, "index")),
                "gpu_instance": reader.count("mig", _text(element, "gpu_instance_id")),
                "compute_instance": reader.count("mig", _text(element, "compute_instance_id")),
                "uuid": None,
                "profile": None,
                "memory_total": reader.size("mig", _text(element, "fb_memory_usage/total")),
                "memory_used": reader.size("mig", _text(element, "fb_memory_usage/used")),
            }
        )
    return {
        "mode": reader.truth("mig", _text(root, "mig_mode/current_mig")),
        "pending": reader.truth("mig", _text(root, "mig_mode/pending_mig")),
        "instances": instances,
    }


def _processes(root: Element) -> Iterator[dict[str, Any]]:
    """Those that compute. Of the command only the program's own name is kept: arguments may hold secrets."""
    for element in root.findall("processes/process_info"):
        pid = (_text(element, "pid") or "").strip()
        if "C" not in (_text(element, "type") or "") or not re.match(r"^[0-9]{1,9}$", pid):
            continue
        yield {
            "pid": int(pid),
            "name": program(_text(element, "process_name")),
            "memory": Reader(TOOL).size("memory", _text(element, "used_memory")),
        }


def program(command: str | None) -> str:
    """The file name of a program in a command line."""
    words = (command or "").split()
    return words[0].rstrip("/").rpartition("/")[2][:60] if words else ""


def _version(text: str | None) -> str | None:
    found = re.match(r"^[0-9]{1,5}(?:\.[0-9]{1,5}){1,3}$", (text or "").strip())
    return found.group(0) if found else None


def _text(root: Element, path: str) -> str | None:
    element = root.find(path)
    return None if element is None else element.text or ""


def _first(root: Element, place: str, names: tuple[str, ...]) -> str | None:
    """The first of these that has a value."""
    texts = [_text(root, f"{place}/{name}") for name in names]
    return next((text for text in texts if not absent(text)), None)
