"""Read the files on GPU generations into frozen objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

OPEN_MODULES = ("required", "recommended", "unsupported")


@dataclass(frozen=True, slots=True)
class GpuGeneration:
    """One generation of GPUs, or a part of one with rules of its own.

    ``devices`` are ranges of PCI device ids in four lower-case hexadecimal digits, both ends included. ``open_modules``
    says whether NVIDIA's open kernel modules are required, recommended or unsupported; ``first_branch`` and
    ``last_branch`` bound the driver branches that know it. None where there is no such rule.
    """

    name: str
    compute: tuple[str, ...]
    devices: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    open_modules: str | None
    first_branch: int | None
    last_branch: int | None


@dataclass(frozen=True, slots=True)
class GpuVendor:
    """A maker of GPUs; ``data`` is the whole file, for what runs on hosts."""

    name: str
    title: str
    pci_vendor: str
    generations: tuple[GpuGeneration, ...]
    data: dict[str, Any]


def _generation(data: dict[str, Any]) -> GpuGeneration:
    rule = data.get("open_modules")
    if rule is not None and rule not in OPEN_MODULES:
        raise ValueError(f"open_modules of {data['name']} is {rule}")
    return GpuGeneration(
        name=data["name"],
        compute=tuple(data.get("compute", ())),
        devices=tuple((first, last) for first, last in data["devices"]),
        names=tuple(data["names"]),
        open_modules=rule,
        first_branch=data.get("first_branch"),
        last_branch=data.get("last_branch"),
    )


@cache
def load_gpus() -> dict[str, GpuVendor]:
    """All vendors of the catalog by name."""
    found = {}
    for entry in sorted(files(__package__).joinpath("gpus").iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yml"):
            data = yaml.safe_load(entry.read_text(encoding="utf-8"))
            found[data["name"]] = GpuVendor(
                name=data["name"],
                title=data["title"],
                pci_vendor=data["pci_vendor"],
                generations=tuple(_generation(one) for one in data["generations"]),
                data=data,
            )
    return found
