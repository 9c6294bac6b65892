"""AMD GPUs from ``amd-smi ... --json`` and, where that is missing, from ``rocm-smi ... --json``. Pure.

amd-smi prints a list of GPUs up to ROCm 6.3 and ``{"gpu_data": [...]}`` from 6.4 on; values are numbers, texts, or
``{"value": 750, "unit": "W"}``. rocm-smi prints one object with ``card0``, ``card1`` ... and ``system``, all values texts,
and has changed the case of its keys between versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.nvidia_xml import program
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import (
    Reader,
    absent,
    address,
    blank,
    hexadecimal,
)

AMD_SMI, ROCM_SMI = "amd-smi", "rocm-smi"
_CARD = re.compile(r"^card([0-9]{1,4})$")
_PROCESS = re.compile(r"^PID([0-9]{1,9})$")


def parse_amd_smi(
    static: Any, metric: Any, listing: Any, process: Any
) -> tuple[list[dict[str, Any]], str | None, str]:
    """GPUs, the version of the kernel driver, and a sentence when ``amd-smi static`` told no GPUs.

    Arguments are what was read from the JSON of the four commands, in any shape. What is only in one that failed is
    unknown.
    """
    rows = _by_index(static)
    if rows is None:
        return [], None, f"{AMD_SMI} printed no list of GPUs"
    metrics, listed, processes = _by_index(metric), _by_index(listing), _by_index(process)
    gpus = []
    version = None
    for index, row in sorted(rows.items()):
        reader, gpu = Reader(AMD_SMI), blank("amd")
        gpu["index"] = index
        _static(row, gpu, reader)
        driver = _at(row, "driver", "version") or _at(row, "driver", "driver_version")
        version = version or (None if absent(driver) else driver)
        uuid = _at((listed or {}).get(index), "uuid")
        gpu["uuid"] = None if absent(uuid) else (uuid or "")[:64]
        if metrics is None or index not in metrics:
            for field in ("memory_used", "temperature", "ecc", "throttle"):
                reader.doubt(field, f"{AMD_SMI} metric does not tell it")
        else:
            _metric(metrics[index], gpu, reader)
        gpu["processes"] = None if processes is None else _processes(processes.get(index))
        gpu["state"], gpu["unknown"] = "up", reader.unknown
        gpus.append(gpu)
    return gpus, version, ""


def _static(row: Mapping[str, Any], gpu: dict[str, Any], reader: Reader) -> None:
    gpu["address"] = address(_at(row, "bus", "bdf"))
    gpu["device"] = hexadecimal(_at(row, "asic", "device_id"))
    name = _at(row, "asic", "market_name")
    gpu["name"] = None if absent(name) else (name or "")[:120]
    target = _at(row, "asic", "target_graphics_version")
    gpu["compute"] = target if re.match(r"^gfx[0-9a-f]{3,5}$", target or "") else None
    gpu["memory_total"] = reader.size("memory_total", _at(row, "vram", "size"), unit="MB", needed=True)
    gpu["temperature_slowdown"] = reader.quantity(
        "temperature_slowdown", _at(row, "limit", "slowdown_hotspot_temperature"), 1, 200
    )
    limit = _at(row, "limit", "socket_power") or _at(row, "limit", "ppt0", "socket_power_limit")
    gpu["power_limit"] = reader.quantity("power_limit", limit, 0, 10_000)


def _metric(row: Mapping[str, Any], gpu: dict[str, Any], reader: Reader) -> None:
    used = reader.size("memory_used", _at(row, "mem_usage", "used_vram"), unit="MB", needed=True)
    gpu["memory_total"], gpu["memory_used"] = reader.memory(gpu["memory_total"], used)
    hot = [_at(row, "temperature", name) for name in ("hotspot", "edge")]
    gpu["temperature"] = reader.quantity(
        "temperature", next((one for one in hot if not absent(one)), None), -40, 200, needed=True
    )
    gpu["power"] = reader.quantity("power", _at(row, "power", "socket_power"), 0, 10_000)
    gpu["ecc"]["volatile_uncorrected"] = reader.count("ecc", _at(row, "ecc", "total_uncorrectable_count"))
    gpu["throttle"] = _throttle(row)


def _throttle(row: Mapping[str, Any]) -> list[str] | None:
    """Limits that hold the clock down now, such as ``socket_thermal``; None when the card does not tell."""
    section = row.get("throttle")
    told, active = False, []
    for key, value in sorted(section.items()) if isinstance(section, dict) else []:
        word = str(value).strip().upper()
        if str(key).endswith("_violation_status") and word in ("ACTIVE", "NOT ACTIVE"):
            told = True
            active += [str(key)[: -len("_violation_status")]] if word == "ACTIVE" else []
    status = (_at(row, "power", "throttle_status") or "").upper()
    if not told and status in ("THROTTLED", "UNTHROTTLED"):
        told, active = True, ["throttled"] if status == "THROTTLED" else []
    return active if told else None


def _processes(row: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Of a list whose items are ``{"process_info": {...}}``, or a sentence where there is none."""
    listed = (row or {}).get("process_list")
    found = []
    for item in listed if isinstance(listed, list) else []:
        info = item.get("process_info") if isinstance(item, dict) else None
        pid = _at(info, "pid") if isinstance(info, dict) else None
        if not re.match(r"^[0-9]{1,9}$", pid or ""):
            continue
        memory = _at(info, "memory_usage", "vram_mem") or _at(info, "vram_mem") or _at(info, "mem_usage")
        found.append(
            {
                "pid": int(pid or 0),
                "name": program(_at(info, "name")),
                "memory": Reader(AMD_SMI).size("memory", memory, unit="B"),
            }
        )
    return found


def parse_rocm_smi(value: Any) -> tuple[list[dict[str, Any]], str | None, str]:
    """The same from rocm-smi, which tells neither ECC errors nor slowdowns nor limits of temperature."""
    cards = {
        int(found.group(1)): _lower(row)
        for key, row in (value.items() if isinstance(value, dict) else ())
        if isinstance(row, dict) and (found := _CARD.match(str(key)))
    }
    if not cards:
        return [], None, f"{ROCM_SMI} printed no list of GPUs"
    system = _lower(value.get("system"))
    gpus = []
    for index, row in sorted(cards.items()):
        reader, gpu = Reader(ROCM_SMI), blank("amd")
        gpu["index"] = index
        gpu["address"] = address(row.get("pci bus"))
        gpu["device"] = hexadecimal(row.get("device id")) or hexadecimal(row.get("gpu id"))
        gpu["uuid"] = None if absent(row.get("unique id")) else row["unique id"][:64]
        name = next((row[key] for key in ("card series", "device name") if not absent(row.get(key))), None)
        gpu["name"] = name[:120] if name else None
        target = row.get("gfx version", "")
        gpu["compute"] = target if re.match(r"^gfx[0-9a-f]{3,5}$", target) else None
        gpu["memory_total"], gpu["memory_used"] = reader.memory(
            reader.size("memory_total", row.get("vram total memory (b)"), needed=True),
            reader.size("memory_used", row.get("vram total used memory (b)"), needed=True),
        )
        hot = [row.get(f"temperature (sensor {name}) (c)") for name in ("junction", "edge")]
        gpu["temperature"] = reader.quantity(
            "temperature", next((one for one in hot if not absent(one)), None), -40, 200, needed=True
        )
        drawn = [row.get(f"{name} graphics package power (w)") for name in ("current socket", "average")]
        gpu["power"] = reader.quantity(
            "power", next((one for one in drawn if not absent(one)), None), 0, 10_000
        )
        gpu["power_limit"] = reader.quantity(
            "power_limit", row.get("max graphics package power (w)"), 0, 10_000
        )
        reader.doubt("ecc", f"{ROCM_SMI} does not tell it")
        reader.doubt("throttle", f"{ROCM_SMI} does not tell it")
        gpu["state"], gpu["unknown"] = "up", reader.unknown
        gpus.append(gpu)
    driver = system.get("driver version")
    return gpus, None if absent(driver) else driver, ""


def _lower(row: Any) -> dict[str, str]:
    """A flat object with its keys in lower case and its values as texts."""
    return (
        {str(key).lower().rstrip(":"): str(value) for key, value in row.items()}
        if isinstance(row, dict)
        else {}
    )


def _by_index(value: Any) -> dict[int, dict[str, Any]] | None:
    """GPUs by their number, from either shape; None when there is none."""
    listed: Any = value.get("gpu_data") if isinstance(value, dict) else value
    rows: Iterable[Any] = listed if isinstance(listed, list) else ()
    found = {}
    for row in rows:
        index = row.get("gpu") if isinstance(row, dict) else None
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < 10_000:
            found[index] = row
    return found or None


def _at(row: Any, *path: str) -> str | None:
    """A value as text, units and all; None when it is not there or no plain value."""
    for key in path:
        if not isinstance(row, dict):
            return None
        row = row.get(key)
    if isinstance(row, dict):
        value, unit = row.get("value"), row.get("unit")
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return f"{value} {unit}".strip() if isinstance(unit, str) else str(value)
        return None
    return str(row) if isinstance(row, (str, int, float)) and not isinstance(row, bool) else None
