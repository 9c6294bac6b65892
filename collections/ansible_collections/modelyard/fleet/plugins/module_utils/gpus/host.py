"""What is looked at on a host: tools with a time limit each, and the kernel's files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import (
    ABSENT,
    HUNG,
    Outcome,
    find,
    run,
)

USUAL = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/rocm/bin")
"""Where tools are besides PATH, which is short in a shell that nobody logged into."""
_LIMIT_BYTES = 64 * 1024


class Host:
    """The machine as the collectors see it. Nothing here raises; a tool that has hung is not asked again."""

    def __init__(self, timeout_s: float, proc: str, sys: str, path: Sequence[str] = ()) -> None:
        self.timeout_s = timeout_s
        self.proc = Path(proc)
        self.sys = Path(sys)
        self.path = tuple(path) or (*os.environ.get("PATH", "").split(os.pathsep), *USUAL)
        self._hung: dict[str, Outcome] = {}

    def has(self, tool: str) -> bool:
        """Whether there is such a tool."""
        return find(tool, self.path) is not None

    def run(self, tool: str, *arguments: str) -> Outcome:
        """Ask a tool."""
        file = find(tool, self.path)
        if file is None:
            return Outcome(ABSENT, reason=f"{tool} is not there")
        if tool in self._hung:
            return self._hung[tool]
        outcome = run((file, *arguments), self.timeout_s, tool)
        if outcome.state == HUNG:
            self._hung[tool] = outcome
        return outcome

    def read(self, file: Path) -> str | None:
        """A small text file; None when it cannot be read."""
        try:
            with file.open("rb") as stream:
                return stream.read(_LIMIT_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return None

    def pci_files(self) -> list[tuple[str, dict[str, str]]] | None:
        """For each device of the PCI bus what identifies it; None when the kernel shows no bus."""
        root = self.sys / "bus" / "pci" / "devices"
        try:
            slots = sorted(entry.name for entry in root.iterdir())
        except OSError:
            return None
        return [
            (slot, {name: self.read(root / slot / name) or "" for name in ("class", "vendor", "device")})
            for slot in slots
        ]

    def pci_more(self, slot: str) -> tuple[str | None, int | None]:
        """Which kernel driver a device is bound to, and its NUMA node; None where there is none or nobody knows."""
        device = self.sys / "bus" / "pci" / "devices" / slot
        try:
            driver = (device / "driver").resolve(strict=True).name
        except OSError:
            driver = None
        node = (self.read(device / "numa_node") or "").strip()
        return driver, int(node) if node.isascii() and node.isdigit() and len(node) < 5 else None
