"""Hosts that want a driver: stand-in machines before any driver is there, and the platforms of the role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.gpu_driver.choose import choose

from tests.tools import standins
from tests.unit.gpus.machines import look

ROLE = Path(__file__).resolve().parents[3] / "roles" / "gpu_driver"
PLATFORMS: dict[str, dict[str, Any]] = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))["__gpu_driver_platform"]
    for file in sorted((ROLE / "vars").glob("*_*.yml"))
}
WISH: dict[str, Any] = {
    "vendor": "auto", "route": "distribution", "branch": 0, "modules": "auto", "kernel": "auto",
    "kernel_flavour": "generic", "fabric_manager": "auto", "change_route": False, "upgrade": False,
}  # fmt: skip


def bare(root: Path, *names: str, **gpu: Any) -> dict[str, Any]:
    """Facts of a machine without a driver, with the GPUs of these scenarios; ``gpu`` changes each GPU."""
    scenario = standins.load(names[0])
    for name in names[1:]:
        more = standins.load(name)["nvidia"]
        scenario["nvidia"]["gpus"] += [
            {**more["defaults"], **one, "address": f"0001{one['address'][4:]}"} for one in more["gpus"]
        ]
    scenario["tools"] = [tool for tool in scenario["tools"] if tool in ("lspci", "dmesg", "journalctl")]
    for vendor in ("nvidia", "amd"):
        if vendor in scenario:
            scenario[vendor].update(module=None, bound=None)
            scenario[vendor]["defaults"].update(gpu)
    return look(standins.Machine(root / "-".join(names), scenario))


def decide(
    facts: dict[str, Any], platform: str, installed: dict[str, str] | None = None, **wish: Any
) -> dict[str, Any]:
    """The choice on a platform."""
    return choose(facts, PLATFORMS[platform], {**WISH, **wish}, installed or {})
