"""Stand-in hardware: executables that answer as ``nvidia-smi``, ``amd-smi``, ``lspci`` ... do on machines with GPUs.

``bin/`` holds the executables, ``scenarios/`` the machines. What they say follows one JSON file, named by
``MODELYARD_STANDIN`` or lying beside the executable as ``scenario.json``. They need only Python 3.9.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NAMES = tuple(sorted(file.stem for file in (HERE / "scenarios").glob("*.json")))
"""The machines there are."""


def load(name: str) -> dict[str, Any]:
    """One of the scenarios, to be changed at will."""
    scenario: dict[str, Any] = json.loads((HERE / "scenarios" / f"{name}.json").read_text(encoding="utf-8"))
    return scenario


class Machine:
    """A directory with the tools of a scenario in ``bin`` and the kernel's files in ``proc`` and ``sys``."""

    def __init__(self, root: Path, scenario: dict[str, Any]) -> None:
        self.bin, self.proc, self.sys = root / "bin", root / "proc", root / "sys"
        for directory in (self.bin, self.proc, self.sys):
            directory.mkdir(parents=True)
        self.scenario = scenario
        for tool in scenario["tools"]:
            (self.bin / tool).symlink_to(HERE / "standin.py")
        self.change()
        self._kernel()

    def change(self) -> None:
        """Put what is in ``scenario`` into force for the tools."""
        (self.bin / "scenario.json").write_text(json.dumps(self.scenario), encoding="utf-8")

    def fault(self, tool: str, **how: Any) -> None:
        """Have a tool misbehave, see ``standin.py``."""
        self.scenario.setdefault("faults", {}).setdefault(tool, []).append(how)
        self.change()

    def params(self) -> dict[str, Any]:
        """The module's options that make it look at this machine."""
        return {"path": [str(self.bin)], "proc": str(self.proc), "sys": str(self.sys)}

    def _kernel(self) -> None:
        from tests.tools.standins import render_bus, render_nvidia

        nvidia, amd = self.scenario.get("nvidia") or {}, self.scenario.get("amd") or {}
        if nvidia.get("module"):
            version = self.proc / "driver" / "nvidia" / "version"
            version.parent.mkdir(parents=True)
            version.write_text(render_nvidia.kernel_module(nvidia), encoding="utf-8")
        if amd.get("module"):
            (self.sys / "module" / "amdgpu").mkdir(parents=True)
        devices = self.sys / "bus" / "pci" / "devices"
        drivers = self.sys / "bus" / "pci" / "drivers"
        devices.mkdir(parents=True)
        for device in render_bus.devices(self.scenario):
            files = devices / device["address"]
            files.mkdir()
            (files / "class").write_text(f"0x{device['class']}00\n", encoding="ascii")
            (files / "vendor").write_text(f"0x{device['vendor']}\n", encoding="ascii")
            (files / "device").write_text(f"0x{device['device']}\n", encoding="ascii")
            (files / "numa_node").write_text(f"{device.get('numa', -1)}\n", encoding="ascii")
            if device.get("driver"):
                (drivers / device["driver"]).mkdir(parents=True, exist_ok=True)
                (files / "driver").symlink_to(drivers / device["driver"])
