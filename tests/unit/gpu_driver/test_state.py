"""When a host must be rebooted, and when its driver is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.filter.gpu_driver import FilterModule, gpu_driver_choice
from ansible_collections.modelyard.fleet.plugins.module_utils.gpu_driver import packages, state

from tests.unit.gpu_driver.hosts import PLATFORMS, WISH, bare
from tests.unit.gpus.machines import look, machine

OPEN = "filename: /lib/modules/nvidia.ko\nversion:        {}\nlicense:        Dual MIT/GPL\n"
CLOSED = "version:        {}\nlicense:        NVIDIA\n"


def choice(**more: Any) -> dict[str, Any]:
    return {
        "vendor": "nvidia",
        "branch": 550,
        "modules": "open",
        "fabric_manager": True,
        "hold": ["nvidia-.*-server"],
        **more,
    }


@pytest.mark.parametrize(
    ("modinfo", "asking", "reasons"),
    [
        (OPEN.format("550.54.15"), [], []),
        (OPEN.format("550.54.15"), ["linux-image-6.8.0-45-generic"], []),
        (OPEN.format("550.54.15"), ["nvidia-dkms-550-server"], ["nvidia-dkms-550-server asked for it"]),
        (OPEN.format("580.95.05"), [], ["the kernel module 550.54.15 is loaded, 580.95.05 is installed"]),
        (
            CLOSED.format("550.54.15"),
            [],
            ["the open kernel module is loaded, the proprietary one is installed"],
        ),
        ("modinfo: ERROR: Module nvidia not found.", [], []),
    ],
)
def test_a_reboot_is_needed_for_a_reason(
    tmp_path: Path, modinfo: str, asking: list[str], reasons: list[str]
) -> None:
    facts = look(machine(tmp_path, "h100"))
    assert state.reboot_reasons(facts, choice(), state.installed_module(modinfo), asking) == reasons


def test_a_module_that_could_not_be_loaded_needs_one(tmp_path: Path) -> None:
    module = state.installed_module(OPEN.format("580.95.05"))
    (reason,) = state.reboot_reasons(bare(tmp_path, "h100"), choice(), module, [])
    assert reason == "the kernel module 580.95.05 is installed and not loaded"


def test_amdgpu_that_is_not_loaded_needs_one(tmp_path: Path) -> None:
    module = state.installed_module("version: 6.8.5\nlicense: GPL and additional rights\n")
    facts = bare(tmp_path, "mi300x")
    assert state.reboot_reasons(facts, choice(vendor="amd"), module, []) == [
        "the kernel module 6.8.5 is installed and not loaded"
    ]
    loaded = look(machine(tmp_path / "loaded", "mi300x"))
    assert state.reboot_reasons(loaded, choice(vendor="amd"), module, []) == []
    assert state.disagreements(loaded, choice(vendor="amd"), module) == []


@pytest.mark.parametrize(
    ("part", "more", "modinfo", "words"),
    [
        ({}, {}, OPEN.format("550.54.15"), []),
        (
            {"fabric_manager": "550.90.07"},
            {},
            OPEN.format("550.54.15"),
            ["versions differ", "fabric manager 550.90.07"],
        ),
        ({"driver": "550.90.07"}, {}, OPEN.format("550.54.15"), ["userspace 550.90.07", "versions differ"]),
        ({}, {}, OPEN.format("550.90.07"), ["kernel module (installed) 550.90.07"]),
        ({}, {}, "", ["the version of the kernel module (installed) is not known"]),
        ({}, {"branch": 580}, OPEN.format("550.54.15"), ["branch 580 is chosen and 550.54.15 runs"]),
        (
            {},
            {"modules": "proprietary"},
            OPEN.format("550.54.15"),
            ["the proprietary kernel modules are chosen"],
        ),
    ],
)
def test_a_driver_is_one_or_it_is_said_what_differs(
    tmp_path: Path, part: dict[str, Any], more: dict[str, Any], modinfo: str, words: list[str]
) -> None:
    facts = look(machine(tmp_path, "h100", **part))
    said = " ".join(state.disagreements(facts, choice(**more), state.installed_module(modinfo)))
    assert all(word in said for word in words)
    assert bool(said) is bool(words)


def test_the_filter_reads_package_facts_of_deb_and_rpm(tmp_path: Path) -> None:
    facts = bare(tmp_path, "t4")
    there = {"cuda-drivers": [{"version": "570.195.03-1ubuntu1", "source": "apt"}]}
    (problem,) = gpu_driver_choice(facts, PLATFORMS["ubuntu_24_04"], WISH, there)["problems"]
    assert "cuda-drivers of NVIDIA's CUDA repository" in problem
    rpm = {"nvidia-driver-cuda": [{"version": "570.195.03", "release": "1.el9", "epoch": 3}]}
    again = gpu_driver_choice(facts, PLATFORMS["redhat_9"], {**WISH, "route": "cuda"}, rpm)
    assert "nvidia-driver-cuda" in again["install"]
    assert set(FilterModule().filters()) == {
        "gpu_driver_choice",
        "gpu_driver_faults",
        "gpu_driver_reboot",
        "kernel_flavour",
    }


@pytest.mark.parametrize(
    ("release", "flavour"),
    [("6.8.0-45-generic", "generic"), ("6.8.0-1015-aws", "aws"), ("6.8.0-1015-nvidia-64k", "nvidia-64k"),
     ("6.1.0-28-cloud-amd64", "cloud-amd64"), ("5.14.0-427.el9.x86_64", ""), ("6.18.44", "")],
)  # fmt: skip
def test_the_flavour_of_a_kernel(release: str, flavour: str) -> None:
    assert packages.flavour_of(release) == flavour
