"""The plain texts about NVIDIA GPUs: CSV queries, ``nvidia-smi -L``, versions, complaints. Pure."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import (
    Reader,
    absent,
    address,
    blank,
)

TOOL = "nvidia-smi"
FIELDS = (
    "index",
    "uuid",
    "pci.bus_id",
    "memory.total",
    "memory.used",
    "temperature.gpu",
    "power.draw",
    "persistence_mode",
    "compute_cap",
    "name",
)
"""What is asked with ``--query-gpu``. ``compute_cap`` came with driver 495; names may hold commas, so they stand last."""

_LIST_GPU = re.compile(r"^GPU ([0-9]{1,4}): .*\(UUID: (GPU-[0-9A-Za-z-]+)\)\s*$")
_LIST_MIG = re.compile(r"^\s+MIG (\S+)\s+Device\s+([0-9]{1,4}): \(UUID: (MIG-[^)\s]+)\)\s*$")
_HANDLE = re.compile(
    r"unable to determine the device handle for gpu\s*"
    r"(?:(?:([0-9]{1,4})\s*:\s*)?([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])|([0-9]{1,4}))\s*:\s*(.*)",
    re.IGNORECASE,
)
_INDEX = re.compile(r"^[0-9]{1,4}$")
_UUID = re.compile(r"^GPU-[0-9a-fA-F-]{8,60}$")
_VERSION = r"([0-9]{1,5}(?:\.[0-9]{1,5}){1,3})"


def parse_csv(text: str, fields: tuple[str, ...] = FIELDS) -> list[dict[str, Any]]:
    """GPUs of ``--query-gpu=<fields> --format=csv,noheader,nounits``; lines that are none (complaints) are left out."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", len(fields) - 1)]
        row = dict(zip(fields, cells))  # noqa: B905 - `strict` came with Python 3.10
        if len(cells) != len(fields) or not _INDEX.match(cells[0]) or not _UUID.match(row["uuid"]):
            continue
        reader, gpu = Reader(TOOL), blank("nvidia")
        gpu["index"], gpu["uuid"] = int(cells[0]), row["uuid"]
        gpu["address"] = address(row.get("pci.bus_id"))
        gpu["name"] = None if absent(row.get("name")) or row["name"].startswith("[") else row["name"][:120]
        gpu["memory_total"], gpu["memory_used"] = reader.memory(
            reader.size("memory_total", row.get("memory.total"), unit="MiB", needed=True),
            reader.size("memory_used", row.get("memory.used"), unit="MiB", needed=True),
        )
        gpu["temperature"] = reader.quantity("temperature", row.get("temperature.gpu"), -40, 200, needed=True)
        gpu["power"] = reader.quantity("power", row.get("power.draw"), 0, 10_000)
        gpu["persistence"] = reader.truth("persistence", row.get("persistence_mode"))
        compute = row.get("compute_cap", "")
        gpu["compute"] = compute if re.match(r"^[0-9]{1,2}\.[0-9]{1,2}$", compute) else None
        gpu["state"], gpu["unknown"] = "up", reader.unknown
        gpus.append(gpu)
    return gpus


def parse_list(text: str) -> dict[str, list[dict[str, Any]]]:
    """MIG instances of ``nvidia-smi -L`` by the GPU's UUID: index, profile such as ``3g.40gb``, UUID."""
    found: dict[str, list[dict[str, Any]]] = {}
    current: list[dict[str, Any]] | None = None
    for line in text.splitlines():
        gpu, mig = _LIST_GPU.match(line), _LIST_MIG.match(line)
        if gpu:
            current = found.setdefault(gpu.group(2), [])
        elif mig and current is not None:
            current.append(
                {"index": int(mig.group(2)), "profile": mig.group(1)[:40], "uuid": mig.group(3)[:100]}
            )
    return found


def parse_lost(text: str) -> list[dict[str, Any]]:
    """GPUs that nvidia-smi has no access to: ``index`` and ``address`` as far as told, and what it says of them.

    ``lost`` is whether it says that the GPU is lost for good, until a reboot. Such lines stand on either output, and the
    exit status is 0 when other GPUs still answer.
    """
    found = []
    for match in _HANDLE.finditer(text):
        words = " ".join(match.group(4).split())[:120]
        index = match.group(1) or match.group(3)
        found.append(
            {
                "index": None if index is None else int(index),
                "address": address(match.group(2)),
                "text": words or "no reason told",
                "lost": "gpu is lost" in words.lower() or "fallen off the bus" in words.lower(),
            }
        )
    return found


def parse_complaint(text: str) -> str:
    """Which of the well-known complaints this is: ``mismatch``, ``no_driver``, ``no_devices``, ``lost``, or empty."""
    words = text.lower()
    if "driver/library version mismatch" in words:
        return "mismatch"
    if "couldn't communicate with the nvidia driver" in words or "driver not loaded" in words:
        return "no_driver"
    if "gpu is lost" in words or "unable to determine the device handle" in words:
        return "lost"
    return "no_devices" if "no devices were found" in words else ""


def parse_kernel_module(text: str) -> tuple[str | None, bool | None]:
    """Version of the loaded kernel module from ``/proc/driver/nvidia/version``, and whether it is the open one."""
    found = re.search(rf"^NVRM version:\s*(.*Kernel Module.*?)\s+{_VERSION}\b", text, re.MULTILINE)
    return (found.group(2), "Open Kernel Module" in found.group(1)) if found else (None, None)


def parse_versions(text: str) -> dict[str, str | None]:
    """``smi``, ``nvml`` and ``cuda`` of ``nvidia-smi --version`` (driver 530 and later) or of a complaint about a mismatch.

    The version of the library may lack its last part there: ``580.173`` for 580.173.02.
    """

    def value(label: str) -> str | None:
        found = re.search(rf"^\s*{label}\s*:\s*{_VERSION}\s*$", text, re.MULTILINE | re.IGNORECASE)
        return found.group(1) if found else None

    return {
        "smi": value("NVIDIA-SMI version"),
        "nvml": value("NVML (?:library )?version"),
        "cuda": value("CUDA (?:UMD )?Version"),
    }


def parse_fabric_manager(text: str) -> str | None:
    """Version of ``nv-fabricmanager --version``."""
    found = re.search(rf"Fabric Manager version is\s*:\s*{_VERSION}", text)
    return found.group(1) if found else None
