"""What lspci and the kernel's log say of a scenario. Imitates pciutils 3.9 and util-linux 2.38."""

from __future__ import annotations

from typing import Any

Answer = tuple[str, str, int]
_CLASSES = {
    "0300": "VGA compatible controller",
    "0302": "3D controller",
    "0380": "Display controller",
    "0403": "Audio device",
    "0680": "Bridge",
    "1200": "Processing accelerators",
    "0200": "Ethernet controller",
}
_VENDORS = {
    "10de": "NVIDIA Corporation",
    "1002": "Advanced Micro Devices, Inc. [AMD/ATI]",
    "1a03": "ASPEED Technology, Inc.",
}


def devices(scenario: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything on the bus: GPUs of both vendors, and what else the scenario names under ``pci``."""
    found = list(scenario.get("pci", ()))
    for vendor, number in (("nvidia", "10de"), ("amd", "1002")):
        part = scenario.get(vendor) or {}
        defaults = part.get("defaults", {})
        for gpu in part.get("gpus", ()):
            gpu = {**defaults, **gpu}
            found.append(
                {
                    "address": gpu["address"],
                    "class": gpu["class"],
                    "vendor": number,
                    "device": gpu["device"],
                    "name": gpu["pci_name"],
                    "numa": gpu.get("numa", -1),
                    "driver": gpu.get("bound", part.get("bound")),
                }
            )
    return sorted(found, key=lambda one: one["address"])


def lspci(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """``lspci -D -mm -nn``."""
    if arguments != ["-D", "-mm", "-nn"]:
        return "", "lspci: the stand-in knows -D -mm -nn only\n", 1
    lines = [
        f'{one["address"]} "{_CLASSES[one["class"]]} [{one["class"]}]" "{_VENDORS[one["vendor"]]} [{one["vendor"]}]" '
        f'"{one["name"]} [{one["device"]}]" -ra1 -p00 "{_VENDORS[one["vendor"]]} [{one["vendor"]}]" "Device [1000]"'
        for one in devices(scenario)
    ]
    return "".join(f"{line}\n" for line in lines), "", 0


def dmesg(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """With ``--time-format iso`` or plain. ``restricted`` in the scenario is kernel.dmesg_restrict=1 for a user."""
    if scenario.get("restricted"):
        return "", "dmesg: read kernel buffer failed: Operation not permitted\n", 1
    lines = ["Linux version 6.1.0 (stand-in)", *scenario.get("kernel_log", ())]
    if arguments:
        return (
            "".join(f"2026-01-02T03:04:{n:02d},123456+00:00 {line}\n" for n, line in enumerate(lines)),
            "",
            0,
        )
    return "".join(f"[{n + 10:5d}.123456] {line}\n" for n, line in enumerate(lines)), "", 0


def journalctl(scenario: dict[str, Any], arguments: list[str]) -> Answer:
    """``journalctl --dmesg --output short-iso`` of systemd 252."""
    if scenario.get("restricted") == "journal too":
        return "", "No journal files were opened due to insufficient permissions.\n", 1
    lines = ["Linux version 6.1.0 (stand-in)", *scenario.get("kernel_log", ())]
    return (
        "".join(f"2026-01-02T03:04:{n:02d}+0000 host kernel: {line}\n" for n, line in enumerate(lines)),
        "",
        0,
    )
