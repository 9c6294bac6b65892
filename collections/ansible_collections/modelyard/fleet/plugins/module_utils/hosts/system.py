"""Memory, load and uptime, as the kernel's files tell them."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host

_NEEDED = {
    "total": "MemTotal",
    "available": "MemAvailable",
    "swap_total": "SwapTotal",
    "swap_free": "SwapFree",
}
Facts = dict[str, Any]


def memory(host: Host) -> Facts:
    """Memory and swap in bytes."""
    figures = parse_memory(host.read(host.proc / "meminfo") or "")
    if figures is None:
        return {"state": "unknown", "reason": f"{host.proc / 'meminfo'} does not tell it"}
    return {"state": "up", "reason": "", **figures}


def parse_memory(text: str) -> Facts | None:
    """What ``/proc/meminfo`` says; None where something is missing or cannot be."""
    lines = dict(re.findall(r"^(\w+):\s+(\d{1,15}) kB$", text, re.MULTILINE))
    if not all(name in lines for name in _NEEDED.values()):
        return None
    found = {key: int(lines[name]) * 1024 for key, name in _NEEDED.items()}
    odd = found["available"] > found["total"] or found["swap_free"] > found["swap_total"]
    return None if odd or found["total"] == 0 else found


def load(host: Host) -> Facts:
    """Load of the last 1, 5 and 15 minutes, and the number of processor cores."""
    averages = parse_load(host.read(host.proc / "loadavg") or "")
    cores = os.cpu_count()
    if averages is None or not cores:
        return {"state": "unknown", "reason": f"{host.proc / 'loadavg'} does not tell it"}
    return {"state": "up", "reason": "", "averages": averages, "cores": cores}


def parse_load(text: str) -> list[float] | None:
    """The three averages of ``/proc/loadavg``."""
    found = re.match(r"(\d+\.\d+) (\d+\.\d+) (\d+\.\d+) ", text)
    return [float(number) for number in found.groups()] if found else None


def uptime(host: Host) -> float | None:
    """Seconds since the host was started; None when nobody knows."""
    found = re.match(r"(\d+\.\d+) ", host.read(host.proc / "uptime") or "")
    return float(found.group(1)) if found else None
