"""The driver that each generation of GPUs gets on each platform, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.gpu_driver.hosts import PLATFORMS, bare, decide

APT = ("debian_12", "ubuntu_22_04", "ubuntu_24_04")
UBUNTU = APT[1:]
MACHINES = {  # scenario: modules, fabric manager
    "p100": ("proprietary", False),
    "v100": ("proprietary", False),
    "t4": ("open", False),
    "a100_mig": ("open", False),
    "l40s": ("open", False),
    "h100": ("open", True),
    "b200": ("open", True),
}
KERNEL = {
    ("debian_12", "open"): "nvidia-kernel-open-dkms",
    ("debian_12", "proprietary"): "nvidia-kernel-dkms",
    ("ubuntu_22_04", "open"): "nvidia-dkms-580-open",
    ("ubuntu_22_04", "proprietary"): "nvidia-dkms-580",
    ("ubuntu_24_04", "open"): "nvidia-dkms-580-open",
    ("ubuntu_24_04", "proprietary"): "nvidia-dkms-580",
    ("redhat_9", "open"): "kmod-nvidia-open-dkms",
    ("redhat_9", "proprietary"): "kmod-nvidia-latest-dkms",
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("scenario", MACHINES)
def test_from_the_cuda_repository(tmp_path: Path, scenario: str, platform: str) -> None:
    modules, fabric = MACHINES[scenario]
    choice = decide(bare(tmp_path, scenario), platform, route="cuda")
    assert choice["problems"] == []
    assert (choice["vendor"], choice["branch"], choice["modules"]) == ("nvidia", 580, modules)
    assert choice["install"][0] == KERNEL[platform, modules]
    assert choice["install"] == choice["packages"]
    assert choice["fabric_manager"] is fabric
    assert any("fabric" in name and "manager" in name for name in choice["packages"]) is fabric
    assert (choice["remove"], len(choice["why"])) == ([], 3 if fabric else 2)


@pytest.mark.parametrize("platform", UBUNTU)
@pytest.mark.parametrize("scenario", MACHINES)
def test_from_ubuntus_archive(tmp_path: Path, scenario: str, platform: str) -> None:
    modules, fabric = MACHINES[scenario]
    choice = decide(bare(tmp_path, scenario), platform)
    kind = "-open" if modules == "open" else ""
    assert choice["problems"] == []
    assert choice["packages"] == [
        f"nvidia-headless-580-server{kind}",
        "linux-headers-generic",
        "nvidia-utils-580-server",
        "nvidia-compute-utils-580-server",
        *(["nvidia-fabricmanager-580"] if fabric else []),
    ]
    assert choice["pin"] == []


@pytest.mark.parametrize(
    ("scenario", "why"), [("b200", "570 or later"), ("h100", "fabric manager of branch 535")]
)
def test_what_debians_archive_is_too_old_for(tmp_path: Path, scenario: str, why: str) -> None:
    (problem,) = decide(bare(tmp_path, scenario), "debian_12")["problems"]
    assert why in problem
    assert "gpu_driver_nvidia.route to cuda" in problem


@pytest.mark.parametrize(
    ("scenario", "first"),
    [
        ("p100", "nvidia-kernel-dkms"),
        ("v100", "nvidia-kernel-dkms"),
        ("t4", "nvidia-open-kernel-dkms"),
        ("l40s", "nvidia-open-kernel-dkms"),
    ],
)
def test_from_debians_archive(tmp_path: Path, scenario: str, first: str) -> None:
    choice = decide(bare(tmp_path, scenario), "debian_12")
    assert (choice["problems"], choice["branch"], choice["packages"][0]) == ([], 535, first)
    assert choice["install"] == [first + "=535.*", "linux-headers-generic", "libcuda1=535.*", "libnvidia-ml1=535.*",
                                 "nvidia-smi=535.*", "nvidia-persistenced=535.*"]  # fmt: skip


@pytest.mark.parametrize("scenario", MACHINES)
def test_red_hat_has_no_packages_of_its_own(tmp_path: Path, scenario: str) -> None:
    (problem,) = decide(bare(tmp_path, scenario), "redhat_9")["problems"]
    assert "They hold no driver of NVIDIA. Set gpu_driver_nvidia.route to cuda." in problem


@pytest.mark.parametrize(
    ("modules", "stream"), [("open", "nvidia-driver:590-open"), ("proprietary", "nvidia-driver:590-dkms")]
)
def test_the_module_stream_of_a_branch(tmp_path: Path, modules: str, stream: str) -> None:
    choice = decide(bare(tmp_path, "t4"), "redhat_9", route="cuda", branch=590, modules=modules)
    assert (choice["problems"], choice["stream"]) == ([], stream)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_grace_hopper_needs_the_open_modules(tmp_path: Path, platform: str) -> None:
    facts = bare(
        tmp_path, "h100", device="2342", name="NVIDIA GH200 480GB", pci_name="GH100 [GH200 120GB / 480GB]"
    )
    choice = decide(facts, platform, route="cuda")
    assert (choice["problems"], choice["modules"]) == ([], "open")
    assert "works with no others" in choice["why"][1]
    (problem,) = decide(facts, platform, route="cuda", modules="proprietary")["problems"]
    assert "GH200" in problem
    assert "works with open ones only" in problem


@pytest.mark.parametrize("platform", PLATFORMS)
def test_amd(tmp_path: Path, platform: str) -> None:
    choice = decide(bare(tmp_path, "mi300x"), platform)
    assert (choice["problems"], choice["vendor"], choice["install"][:2]) == (
        [],
        "amd",
        ["amdgpu-dkms", "amd-smi-lib"],
    )
    again = decide(bare(tmp_path / "again", "mi300x"), platform, dict.fromkeys(choice["packages"], "1"))
    assert (again["install"], again["remove"]) == ([], [])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_host_without_gpus_gets_nothing(tmp_path: Path, platform: str) -> None:
    choice = decide(bare(tmp_path, "none"), platform)
    assert (choice["vendor"], choice["problems"], choice["packages"], choice["why"]) == (
        "none",
        [],
        [],
        ["There is no GPU."],
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_vendor_that_is_not_there(tmp_path: Path, platform: str) -> None:
    (problem,) = decide(bare(tmp_path, "mi300x"), platform, vendor="nvidia")["problems"]
    assert "A driver of nvidia is wished, and the PCI bus has no GPU of that vendor" in problem
    assert decide(bare(tmp_path / "again", "h100"), platform, vendor="none")["packages"] == []


@pytest.mark.parametrize(
    ("scenario", "wish", "words"),
    [
        ("p100", {"modules": "open"}, "Tesla P100"),
        ("p100", {"modules": "open"}, "does not work with them"),
        ("v100", {"branch": 590}, "no longer knows Volta"),
        ("v100", {"branch": 590}, "580 is the last one"),
        ("b200", {"branch": 550}, "does not know Blackwell yet"),
        ("b200", {"branch": 550}, "570 or later"),
        ("b200", {"modules": "proprietary"}, "works with open ones only"),
        ("t4", {"branch": 620, "modules": "proprietary"}, "615 was the last one"),
        ("t4", {"branch": 470, "modules": "open"}, "has no open kernel modules"),
        ("t4", {"kernel": "prebuilt", "route": "cuda"}, "has no prebuilt kernel modules"),
        ("t4", {"kernel": "prebuilt", "kernel_flavour": ""}, "names no flavour"),
    ],
)
@pytest.mark.parametrize("platform", UBUNTU)
def test_forbidden_combinations_name_gpu_reason_and_way_out(
    tmp_path: Path, platform: str, scenario: str, wish: dict[str, Any], words: str
) -> None:
    choice = decide(bare(tmp_path, scenario), platform, **wish)
    assert any(words in problem for problem in choice["problems"]), choice["problems"]
    assert (choice["install"], choice["remove"], choice["pin"]) == ([], [], [])


def test_one_host_with_gpus_that_no_driver_serves_together(tmp_path: Path) -> None:
    problems = decide(bare(tmp_path, "p100", "b200"), "ubuntu_24_04")["problems"]
    assert any("No driver serves all GPUs of this host" in problem for problem in problems)


def test_an_old_and_a_recommended_gpu_share_the_proprietary_modules(tmp_path: Path) -> None:
    choice = decide(bare(tmp_path, "p100", "t4"), "ubuntu_24_04")
    assert (choice["problems"], choice["modules"], choice["branch"]) == ([], "proprietary", 580)


def test_a_gpu_of_the_future_is_not_guessed_at(tmp_path: Path) -> None:
    facts = bare(tmp_path, "t4", device="ffff", pci_name="Device")
    (problem,) = decide(facts, "ubuntu_24_04")["problems"]
    assert "Set gpu_driver_nvidia.modules." in problem
    assert decide(facts, "ubuntu_24_04", modules="open")["problems"] == []


def test_an_unknown_gpu_beside_a_known_one_is_not_guessed_at_either(tmp_path: Path) -> None:
    facts = bare(tmp_path, "v100")
    facts["gpus"][1].update(generation=None, driver_rule={})
    (problem,) = decide(facts, "ubuntu_24_04")["problems"]
    assert "is not known" in problem


def test_modules_that_ubuntu_signs_follow_the_kernels_flavour(tmp_path: Path) -> None:
    choice = decide(bare(tmp_path, "t4"), "ubuntu_24_04", kernel="prebuilt", kernel_flavour="aws")
    assert choice["packages"][:2] == [
        "linux-modules-nvidia-580-server-open-aws",
        "nvidia-headless-no-dkms-580-server-open",
    ]
    assert choice["hold"][-1] == "linux-(?:image-|headers-)?aws"


SERVER_570 = dict.fromkeys(
    (
        "nvidia-headless-570-server-open", "nvidia-dkms-570-server-open", "nvidia-kernel-source-570-server-open",
        "nvidia-utils-570-server", "nvidia-compute-utils-570-server", "libnvidia-compute-570-server",
        "nvidia-kernel-common-570-server", "nvidia-firmware-570-server-570.195.03", "nvidia-fabricmanager-570",
    ),
    "570.195.03-0ubuntu0.24.04.1",
)  # fmt: skip
BYSTANDERS = {
    "nvidia-container-toolkit": "1.18.0-1", "libnvidia-container1": "1.18.0-1", "libnvidia-container-tools": "1.18.0-1",
    "nvidia-cuda-toolkit": "12.0.140~12.0.1-4build4", "cuda-toolkit-12-9": "12.9.1-1", "kernel-devel-matched": "5.14.0",
    "linux-image-generic": "6.8.0-45.45", "linux-headers-generic": "6.8.0-45.45",
}  # fmt: skip


def test_another_branch_takes_the_place_of_all_packages_of_the_old_one_and_of_nothing_else(
    tmp_path: Path,
) -> None:
    choice = decide(bare(tmp_path, "h100"), "ubuntu_24_04", {**SERVER_570, **BYSTANDERS})
    assert choice["problems"] == []
    assert choice["remove"] == sorted(SERVER_570)
    assert choice["install"] == [name for name in choice["packages"] if name not in BYSTANDERS]


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    there = {
        **{name.replace("570", "580"): "580.95.05-0ubuntu0.24.04.1" for name in SERVER_570},
        **BYSTANDERS,
    }
    choice = decide(bare(tmp_path, "h100"), "ubuntu_24_04", there)
    assert (choice["problems"], choice["install"], choice["remove"]) == ([], [], [])


def test_a_newer_version_of_the_branch_comes_only_when_asked_for(tmp_path: Path) -> None:
    there = {
        **{name.replace("570", "580"): "580.95.05-0ubuntu0.24.04.1" for name in SERVER_570},
        **BYSTANDERS,
    }
    choice = decide(bare(tmp_path, "h100"), "ubuntu_24_04", there, upgrade=True)
    assert set(choice["install"]) == set(there) - set(BYSTANDERS)


def test_the_other_kind_of_modules_takes_only_what_differs(tmp_path: Path) -> None:
    there = {
        **{name.replace("570", "580"): "580.95.05-0ubuntu0.24.04.1" for name in SERVER_570},
        **BYSTANDERS,
    }
    choice = decide(bare(tmp_path, "h100"), "ubuntu_24_04", there, modules="proprietary")
    assert choice["install"] == ["nvidia-headless-580-server"]
    assert choice["remove"] == [
        "nvidia-dkms-580-server-open",
        "nvidia-headless-580-server-open",
        "nvidia-kernel-source-580-server-open",
    ]


def test_a_fabric_manager_that_joins_a_driver_is_of_its_very_version(tmp_path: Path) -> None:
    there = {
        name.replace("570", "580"): "580.95.05-0ubuntu0.24.04.1"
        for name in SERVER_570
        if "fabric" not in name
    }
    there["linux-headers-generic"] = "6.8.0-45.45"
    assert decide(bare(tmp_path, "h100"), "ubuntu_24_04", there)["install"] == [
        "nvidia-fabricmanager-580=580.95.05*"
    ]
    rpms = dict.fromkeys(("kmod-nvidia-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"), "580.95.05")
    rpms["kernel-devel-matched"] = "5.14.0"
    choice = decide(bare(tmp_path / "rpm", "h100"), "redhat_9", rpms, route="cuda")
    assert choice["install"] == ["nvidia-fabricmanager-580.95.05*"]


@pytest.mark.parametrize(
    ("platform", "route", "there", "titles"),
    [
        ("ubuntu_24_04", "cuda", SERVER_570, ["Ubuntu's archive"]),
        ("ubuntu_24_04", "distribution", {"cuda-drivers-570": "570.195.03-0ubuntu1"}, ["NVIDIA's CUDA repository"]),
        ("ubuntu_24_04", "distribution", {"nvidia-utils-570": "570.195.03-1ubuntu1"}, ["NVIDIA's CUDA repository"]),
        ("ubuntu_24_04", "distribution", {"nvidia-dkms-open": "590.44.01-1ubuntu1"}, ["NVIDIA's CUDA repository"]),
        ("ubuntu_22_04", "distribution", {"nvidia-utils-570": "570.195-0ubuntu0.22.04"}, ["Ubuntu's driver for desktops"]),
        ("debian_12", "cuda", {"nvidia-kernel-dkms": "535.247.01-1~deb12u1"}, ["Debian's archive (non-free)"]),
        ("debian_12", "distribution", {"nvidia-kernel-dkms": "580.95.05-1"}, ["NVIDIA's CUDA repository"]),
        ("redhat_9", "cuda", {"akmod-nvidia": "580.95.05"}, ["RPM Fusion's driver"]),
    ],
)  # fmt: skip
def test_routes_are_never_mixed_unless_the_change_is_asked_for(
    tmp_path: Path, platform: str, route: str, there: dict[str, str], titles: list[str]
) -> None:
    facts = bare(tmp_path, "t4")
    refused = decide(facts, platform, {**there, **BYSTANDERS}, route=route)
    assert [
        title for title in titles if any(f"of {title} would be mixed" in one for one in refused["problems"])
    ] == titles
    assert all(any(name in one for one in refused["problems"]) for name in there)
    assert (refused["install"], refused["remove"]) == ([], [])
    moved = decide(facts, platform, {**there, **BYSTANDERS}, route=route, change_route=True)
    shared = [name for name in there if name in moved["packages"]]
    assert (moved["problems"], moved["remove"]) == ([], sorted(set(there) - set(shared)))
    assert moved["moved"] == shared
    versions = {name: f"{name}={moved['branch']}.*" for name in (*shared, *moved["shared"])}
    assert moved["install"] == [
        versions.get(name, name) for name in moved["packages"] if name not in BYSTANDERS
    ]


def test_names_without_a_branch_move_and_are_pinned(tmp_path: Path) -> None:
    names = ("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced", "libnvidia-ml1")
    there = {**dict.fromkeys(names, "580.95.05-1"), "nvidia-driver-pinning-580": "580-1"}
    choice = decide(bare(tmp_path, "t4"), "debian_12", {**there, **BYSTANDERS}, route="cuda", branch=590)
    assert (choice["pin"], choice["unpin"]) == (["nvidia-driver-pinning-590"], ["nvidia-driver-pinning-580"])
    assert choice["remove"] == []
    assert choice["install"] == ["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_held_is_no_package_of_the_container_toolkit_or_of_cuda(
    tmp_path: Path, platform: str
) -> None:
    import re

    choice = decide(bare(tmp_path, "t4"), platform, route="cuda")
    assert all(
        any(re.fullmatch(one, name) for one in choice["hold"])
        for name in choice["packages"]
        if "nvidia" in name
    )
    assert not [name for name in BYSTANDERS if any(re.fullmatch(one, name) for one in choice["hold"])]
