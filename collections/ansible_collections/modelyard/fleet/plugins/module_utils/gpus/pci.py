"""GPUs and NVSwitches on the PCI bus, as lspci or the kernel's files show them, before any driver is there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import address, hexadecimal

VENDORS = {"10de": "nvidia", "1002": "amd"}
GPU_CLASSES = frozenset({"0300", "0302", "0380", "1200"})
"""VGA controller, 3D controller, display controller, processing accelerator (MI300X is one)."""
BRIDGE = "0680"
"""NVSwitches are "bridge, other"; no other NVIDIA device of that class is called a switch."""

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ID = re.compile(r"^(.*?)\s*\[([0-9a-fA-F]{4})\]$", re.DOTALL)


def parse_lspci(text: str) -> tuple[list[dict[str, Any]], int]:
    """Devices of ``lspci -D -mm -nn`` (pciutils 3.x), and how many lines were none.

    A line is: slot "class [id]" "vendor [id]" "device [id]" -rREV -pPROGIF "subsystem vendor" "subsystem". Quotes and
    backslashes in names are escaped by a backslash.
    """
    devices, odd = [], 0
    for line in text.splitlines():
        if not line.strip():
            continue
        tokens = [quoted or bare for quoted, bare in _TOKEN.findall(line)]
        slot = address(tokens[0]) if tokens else None
        names = [_ID.match(token) for token in tokens[1:4]]
        if slot is None or len(names) < 3 or None in names:
            odd += 1
            continue
        (_, kind), (_, vendor), (name, device) = [one.groups() for one in names if one]
        devices.append(_device(slot, kind, vendor, device, name.replace('\\"', '"').replace("\\\\", "\\")))
    return [one for one in devices if one["role"]], odd


def from_sysfs(entries: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[list[dict[str, Any]], int]:
    """The same from ``/sys/bus/pci/devices``: for each address the files ``class``, ``vendor`` and ``device``."""
    devices, odd = [], 0
    for slot, files in entries:
        where = address(slot)
        kind = re.match(r"^0x([0-9a-f]{6})$", files.get("class", "").strip().lower())
        vendor, device = hexadecimal(files.get("vendor")), hexadecimal(files.get("device"))
        if where is None or kind is None or vendor is None or device is None:
            odd += 1
            continue
        devices.append(_device(where, kind.group(1)[:4], vendor, device, ""))
    return [one for one in devices if one["role"]], odd


def _device(slot: str, kind: str, vendor: str, device: str, name: str) -> dict[str, Any]:
    """``role`` is gpu, nvswitch, or empty for whatever is none of our business."""
    maker = VENDORS.get(vendor.lower(), "")
    role = ""
    if maker and kind.lower() in GPU_CLASSES:
        role = "gpu"
    elif maker == "nvidia" and kind.lower() == BRIDGE:
        role = "nvswitch"
    return {
        "address": slot,
        "vendor": maker,
        "device": device.lower(),
        "name": name,
        "role": role,
        "kernel_driver": None,
        "numa_node": None,
    }
