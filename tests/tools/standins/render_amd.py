"""What AMD's tools say: amd-smi as of ROCm 6.2 (`form` list) and of 6.4 (gpu_data), rocm-smi as of 6.0."""

from __future__ import annotations

import json
from typing import Any

Answer = tuple[str, str, int]


def gpus_of(amd: dict[str, Any]) -> list[dict[str, Any]]:
    """The GPUs with the scenario's defaults."""
    found = [{**amd.get("defaults", {}), **gpu} for gpu in amd.get("gpus", ())]
    for number, gpu in enumerate(found):
        gpu["index"] = number
        gpu.setdefault("uuid", f"{number:02x}ff74a1-0000-1000-8000-000000000000")
    return found


def amd_smi(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """amd-smi, with the warning that it prints to users outside of the groups video and render."""
    amd = scenario["amd"]
    if not amd.get("module"):
        return (
            "",
            "ERROR:root:Unable to get devices, driver not initialized (amdgpu not found in modules)\n",
            255,
        )
    makers = {"static": _static, "metric": _metric, "list": _listed, "process": _process}
    command = arguments[0] if arguments else ""
    if arguments == ["topology", "--json"]:
        rows = [_links(amd, gpu) for gpu in gpus_of(amd)]
        return json.dumps(rows, indent=4) + "\n", "", 0
    if command not in makers or arguments[1:] != ["--json"]:
        return "", f"amd-smi: error: {arguments}\n", 2
    rows = [makers[command](gpu) for gpu in gpus_of(amd)]
    wrapped = amd.get("form") == "gpu_data" and command in ("static", "metric")
    text = json.dumps({"gpu_data": rows} if wrapped else rows, indent=4)
    return amd.get("banner", "") + text + "\n", "", 0


def _with_unit(value: Any, unit: str) -> Any:
    return "N/A" if value is None else {"value": value, "unit": unit}


def _static(gpu: dict[str, Any]) -> dict[str, Any]:
    return {
        "gpu": gpu["index"],
        "asic": {
            "market_name": gpu["name"],
            "vendor_id": "0x1002",
            "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]",
            "device_id": f"0x{gpu['device']}",
            "oam_id": gpu["index"],
            "num_compute_units": 304,
            "target_graphics_version": gpu["compute"],
        },
        "bus": {"bdf": gpu["address"], "max_pcie_width": 16, "slot_type": "OAM"},
        "limit": {
            "max_power": _with_unit(gpu["watts"], "W"),
            "socket_power": _with_unit(gpu["watts"], "W"),
            "slowdown_edge_temperature": "N/A",
            "slowdown_hotspot_temperature": _with_unit(gpu["slowdown"], "C"),
            "shutdown_hotspot_temperature": _with_unit(gpu["slowdown"] + 10, "C"),
        },
        "driver": {"name": "amdgpu", "version": gpu["driver"]},
        "numa": {"node": gpu.get("numa", 0), "affinity": 0},
        "vram": {"type": "HBM3", "vendor": "N/A", "size": _with_unit(gpu["memory"], "MB"), "bit_width": 8192},
    }


def _metric(gpu: dict[str, Any]) -> dict[str, Any]:
    names = ("prochot", "ppt", "socket_thermal", "vr_thermal", "hbm_thermal")
    return {
        "gpu": gpu["index"],
        "usage": {"gfx_activity": _with_unit(0, "%"), "umc_activity": _with_unit(0, "%")},
        "power": {
            "socket_power": _with_unit(gpu["power"], "W"),
            "gfx_voltage": "N/A",
            "throttle_status": "N/A",
        },
        "temperature": {
            "edge": "N/A",
            "hotspot": _with_unit(gpu["heat"], "C"),
            "mem": _with_unit(gpu["heat"] - 3, "C"),
        },
        "ecc": {
            "total_correctable_count": 0,
            "total_uncorrectable_count": gpu.get("uncorrected", 0),
            "total_deferred_count": 0,
        },
        "mem_usage": {
            "total_vram": _with_unit(gpu["memory"], "MB"),
            "used_vram": _with_unit(gpu.get("used", 283), "MB"),
        },
        "throttle": {
            "accumulation_counter": 4242,
            **{
                f"{name}_violation_status": "ACTIVE" if name in gpu.get("reasons", ()) else "NOT ACTIVE"
                for name in names
            },
        },
    }


def _listed(gpu: dict[str, Any]) -> dict[str, Any]:
    return {
        "gpu": gpu["index"],
        "bdf": gpu["address"],
        "uuid": gpu["uuid"],
        "kfd_id": 40000 + gpu["index"],
        "node_id": 2,
    }


def _process(gpu: dict[str, Any]) -> dict[str, Any]:
    listed = [
        {
            "process_info": {
                "name": one["command"],
                "pid": one["pid"],
                "memory_usage": {"gtt_mem": _with_unit(0, "B"), "vram_mem": _with_unit(one["memory"], "B")},
            }
        }
        for one in gpu.get("processes", ())
    ]
    return {
        "gpu": gpu["index"],
        "process_list": listed or [{"process_info": "No running processes detected"}],
    }


def _links(amd: dict[str, Any], gpu: dict[str, Any]) -> dict[str, Any]:
    links = []
    for other in reversed(gpus_of(amd)):  # nothing promises an order
        own = other["index"] == gpu["index"]
        kind = "SELF" if own else amd.get("links", "XGMI")
        links.append(
            {
                "gpu": other["index"],
                "bdf": other["address"],
                "weight": 0 if own else 15,
                "link_type": kind,
                "num_hops": 1 - own,
            }
        )
    return {"gpu": gpu["index"], "bdf": gpu["address"], "links": links}


def rocm_smi(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """``rocm-smi ... --json``."""
    amd = scenario["amd"]
    if not amd.get("module"):
        return "ERROR:root:Driver not initialized (amdgpu not found in modules)\n", "", 1
    gpus = gpus_of(amd)
    cards = {
        f"card{gpu['index']}": {
            "Device Name": gpu["name"],
            "Device ID": f"0x{gpu['device']}",
            "Device Rev": "0x0",
            "Unique ID": f"0x{gpu['index'] + 1:016x}",
            "Temperature (Sensor junction) (C)": f"{gpu['heat']:.1f}",
            "Temperature (Sensor memory) (C)": f"{gpu['heat'] - 3:.1f}",
            "Current Socket Graphics Package Power (W)": f"{gpu['power']:.1f}",
            "Max Graphics Package Power (W)": f"{gpu['watts']:.1f}",
            "PCI Bus": gpu["address"].upper(),
            "VRAM Total Memory (B)": str(gpu["memory"] * 1024**2),
            "VRAM Total Used Memory (B)": str(gpu.get("used", 283) * 1024**2),
            "Card series": gpu["name"],
            "Card model": f"0x{gpu['device']}",
            "Card vendor": "Advanced Micro Devices, Inc. [AMD/ATI]",
            "GFX Version": gpu["compute"],
        }
        for gpu in gpus
    }
    system = {"Driver version": gpus[0]["driver"]} if gpus else {}
    for one in gpus:
        for other in gpus[one["index"] + 1 :]:
            key = f"(Topology) Link type between DRM devices {one['index']} and {other['index']}"
            system[key] = amd.get("links", "XGMI")
    return json.dumps({**cards, "system": system}) + "\n", "", 0
