# ruff: noqa: E501 - a case is a line
"""From facts to findings: each has its own sentence, and what is not known is never well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.tools import standins
from tests.unit.gpus.machines import codes, look, machine, text

QUIET = ("note",)


@pytest.mark.parametrize("name", standins.NAMES)
def test_a_machine_that_is_well_has_no_finding_but_notes(tmp_path: Path, name: str) -> None:
    there = machine(tmp_path, name)
    count = len((there.scenario.get("nvidia") or there.scenario.get("amd") or {}).get("gpus", ()))
    facts = look(there, count=count)
    assert codes(facts, *QUIET) == []
    assert facts["health"] == "up"
    assert {gpu["health"] for gpu in facts["gpus"]} <= {"up"}
    assert facts["state"] == ("down" if name == "none" else "up")


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str, str]] = {
    # machine, changes, expectation, code and a part of its sentence
    "module and libraries differ": (
        "h100", {"module": "550.90.07"}, {}, "driver_mismatch", "is 550.90.07 and the libraries are 550.54.15"),
    "fabric manager differs": (
        "h100", {"fabric_manager": "550.90.07"}, {}, "fabric_manager_mismatch", "is 550.54.15 and the fabric manager 550.90.07"),
    "fabric not ready": ("h100", {"gpu3": {"fabric": "In Progress"}}, {}, "fabric_not_ready", "has not joined the NVLink fabric: In Progress"),
    "fewer than declared": ("l40s", {}, {"count": 5}, "gpu_missing", "5 GPUs are declared and 4 answer"),
    "silent GPU": ("l40s", {"attached": 5}, {}, "gpu_not_reported", "has 5 GPUs and reports 4"),
    "lost GPU": (
        "l40s", {"gpu2": {"lost": "GPU is lost.  Reboot the system to recover this GPU"}}, {}, "gpu_lost",
        "no access to a GPU (AD102GL [L40S], 0000:a1:00.0): GPU is lost."),
    "errors in memory": ("h100", {"gpu1": {"ecc": {"volatile": 3}}}, {}, "ecc_uncorrected", "has had 3 errors that ECC could not correct"),
    "errors in memory of an old card": ("p100", {"gpu1": {"ecc": {"volatile": 3}}}, {}, "ecc_uncorrected", "since the driver was loaded"),
    "errors long ago": ("h100", {"gpu1": {"ecc": {"aggregate": 9}}}, {}, "ecc_uncorrected_before", "9 errors in its life"),
    "rows to be replaced": ("h100", {"gpu1": {"remap": {"pending": "Yes"}}}, {}, "remap_pending", "to replace bad rows"),
    "pages to be retired": ("t4", {"gpu0": {"retired": "Yes"}}, {}, "retirement_pending", "to replace bad pages"),
    "a channel to be repaired": ("b200", {"gpu0": {"channel_repair_pending": "Yes"}}, {}, "repair_pending", "to replace bad parts"),
    "no spare rows": ("a100_mig", {"gpu1": {"remap": {"failure": "Yes"}}}, {}, "remap_failed", "no spare rows left"),
    "hot": ("t4", {"gpu0": {"heat": 94}}, {}, "gpu_hot", "has 94 C and slows down from 93 C on"),
    "hot by its margin": ("h100", {"gpu0": {"heat": 90, "margin": -3}}, {}, "gpu_hot", "is 1 C above the point where it slows down"),
    "hot AMD": ("mi300x", {"gpu7": {"heat": 101}}, {}, "gpu_hot", "slows down from 100 C on"),
    "slow by heat": ("v100", {"gpu0": {"reasons": ["hw_slowdown", "hw_thermal_slowdown"]}}, {}, "throttled_by_heat", "hw thermal slowdown"),
    "slow by heat, AMD": ("mi300x", {"gpu0": {"reasons": ["socket_thermal"]}}, {}, "throttled_by_heat", "(socket thermal)"),
    "slow by power": ("l40s", {"gpu0": {"reasons": ["hw_power_brake_slowdown"]}}, {}, "throttled_by_power", "power supply holds it back"),
    "slow, and no reason": ("l40s", {"gpu0": {"reasons": ["hw_slowdown"]}}, {}, "throttled", "does not tell why"),
    "at its power limit": ("l40s", {"gpu0": {"reasons": ["sw_power_cap"]}}, {}, "power_capped", "normal under load"),
    "the driver wants a reset": ("b200", {"gpu0": {"recovery": "Drain and Reset"}}, {}, "recovery_action", "Drain and Reset"),
    "persistence": ("h100", {"gpu0": {"persistence": False}}, {}, "persistence_off", "Start nvidia-persistenced"),
    "layout": (
        "a100_mig", {}, {"mig": {"0": ["3g.40gb", "2g.20gb", "2g.20gb"]}}, "mig_layout",
        "should have 2 x 2g.20gb, 1 x 3g.40gb and has 2 x 3g.40gb"),
    "should not be cut": ("a100_mig", {}, {"mig": {"all": []}}, "mig_layout", "should have no MIG instances and has 2 x 3g.40gb"),
    "should be cut": ("h100", {}, {"mig": {"7": ["7g.80gb"]}}, "mig_layout", "should have 1 x 7g.80gb and has MIG off"),
    "to be cut": ("h100", {"gpu7": {"mig": {"on": False, "pending": True}}}, {}, "mig_pending", "will be on after its next reset"),
    "another branch": ("h100", {}, {"driver": "580"}, "driver_other", "Driver 580 is declared and 550.54.15 runs"),
    "no driver, no tool": ("b200", {"module": None, "bound": None}, {}, "driver_absent", "There are NVIDIA GPUs, but no NVIDIA driver is loaded"),
    "no AMD driver": ("mi300x", {"module": False, "bound": None}, {}, "driver_absent", "no AMD driver is loaded"),
    "Blackwell needs open modules": ("b200", {"open": False}, {}, "open_modules_required", "open kernel modules only"),
    "Pascal cannot have them": ("p100", {"open": True}, {}, "open_modules_unsupported", "(Pascal) does not work with"),
    "Ampere should have them": ("a100_mig", {}, {}, "open_modules_recommended", "For Ampere NVIDIA recommends"),
    "a branch that knows no Volta": (
        "v100", {"driver": "590.48.01", "module": "590.48.01", "schema": "v13"}, {}, "driver_too_new", "no longer knows Volta"),
    "a branch that knows no Blackwell": (
        "b200", dict.fromkeys(("driver", "module", "fabric_manager"), "550.54.15"), {}, "driver_too_old", "does not know Blackwell yet"),
    "in a virtual machine": ("l40s", {"gpu1": {"bound": "vfio-pci", "hidden": True}}, {}, "gpu_passed_through", "held for a virtual machine"),
    "not driven": ("l40s", {"gpu1": {"hidden": True}}, {}, "gpu_not_driven", "on the PCI bus, and the driver does not show it"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_finding_and_its_sentence(tmp_path: Path, case: str) -> None:
    name, changes, expect, code, words = CASES[case]
    facts = look(machine(tmp_path, name, **changes), **expect)
    assert words in text(facts, code)
    for one in facts["findings"]:
        assert re.fullmatch(r"[A-Z0-9].*[^ ]\.", one["text"])
        assert "  " not in one["text"]
        assert "None" not in one["text"]
    severities = {one["severity"] for one in facts["findings"]}
    assert facts["health"] == (
        "down" if "critical" in severities else "unknown" if "unknown" in severities else "up"
    )


@pytest.mark.parametrize(
    ("code", "severity", "words"),
    [
        (13, "warning", "did something illegal"),
        (31, "warning", "not mapped"),
        (43, "warning", "the GPU itself goes on"),
        (45, "note", "cleaned away"),
        (48, "critical", "error in two bits"),
        (61, "critical", "breakpoint"),
        (62, "critical", "halted"),
        (63, "warning", "will be replaced at the next reset"),
        (64, "critical", "could not be noted"),
        (74, "critical", "NVLink"),
        (79, "critical", "fallen off the bus"),
        (94, "warning", "only the program that met it"),
        (95, "critical", "any program on the GPU"),
        (119, "critical", "did not answer the driver in time"),
        (120, "critical", "an error of its own"),
        (777, "warning", "no words for"),
    ],
)
def test_xids_are_told_with_their_meaning(tmp_path: Path, code: int, severity: str, words: str) -> None:
    line = f"NVRM: Xid (PCI:0000:2a:00): {code}, pid=7, name=python3, something"
    facts = look(machine(tmp_path, "h100", top={"kernel_log": [line, line]}))
    (found,) = [one for one in facts["findings"] if one["code"] == f"xid_{code}"]
    assert (found["severity"], found["gpu"]) == (severity, "0000:2a:00.0")
    assert f"XID {code} for GPU 1 (NVIDIA H100 80GB HBM3, 0000:2a:00.0) since boot, 2 times" in found["text"]
    assert words in found["text"]
    by_health = {gpu["address"]: gpu["health"] for gpu in facts["gpus"]}
    assert by_health.pop("0000:2a:00.0") == ("down" if severity == "critical" else "up")
    assert set(by_health.values()) == {"up"}


def test_a_log_that_may_not_be_read_is_no_log_without_errors(tmp_path: Path) -> None:
    facts = look(machine(tmp_path, "t4", top={"restricted": "journal too"}))
    assert "Operation not permitted" in text(facts, "xids_unknown")
    assert facts["health"] == "unknown"
    # and the journal is asked where dmesg may not be read
    line = "NVRM: Xid (PCI:0000:00:1e): 79, GPU has fallen off the bus."
    facts = look(machine(tmp_path / "2", "t4", top={"restricted": True, "kernel_log": [line]}))
    assert facts["xids"]["source"] == "journalctl"
    assert facts["health"] == "down"


def test_a_gpu_that_the_driver_lost_leaves_the_others_their_numbers(tmp_path: Path) -> None:
    facts = look(
        machine(tmp_path, "l40s", gpu1={"lost": "GPU is lost.  Reboot the system to recover this GPU"}),
        count=4,
    )
    assert [(gpu["index"], gpu["state"]) for gpu in facts["gpus"]] == [
        (0, "up"),
        (2, "up"),
        (3, "up"),
        (None, "down"),
    ]
    assert {"gpu_lost", "gpu_missing", "field_unknown", "report_partial"} <= set(codes(facts))
    # the report failed as a whole, so nobody knows of the others' memory errors
    assert [gpu["health"] for gpu in facts["gpus"]] == ["unknown", "unknown", "unknown", "down"]


def test_two_gpus_with_one_uuid_cannot_be(tmp_path: Path) -> None:
    there = machine(tmp_path, "p100", gpu0={"uuid": "GPU-00000000-1111"}, gpu1={"uuid": "GPU-00000000-1111"})
    facts = look(there)
    assert [gpu["health"] for gpu in facts["gpus"]] == ["unknown", "unknown"]
    assert "gives GPU-00000000-1111 to 2 GPUs" in facts["gpus"][0]["unknown"]["uuid"]


def test_a_driver_that_tells_another_generation_than_the_bus(tmp_path: Path) -> None:
    facts = look(machine(tmp_path, "h100", gpu0={"compute": "8.0"}))
    assert facts["gpus"][0]["generation"] is None
    assert (
        "says Hopper, and the driver tells 8.0, which is Ampere" in facts["gpus"][0]["unknown"]["generation"]
    )


@pytest.mark.parametrize(
    ("expected", "fits"),
    [
        ("550", True),
        ("550.54.15", True),
        ("550.54", True),
        ("55", False),
        ("550.54.14", False),
        ("580", False),
    ],
)
def test_a_branch_or_a_version_may_be_declared(tmp_path: Path, expected: str, fits: bool) -> None:
    facts = look(machine(tmp_path, "h100"), driver=expected)
    assert ("driver_other" not in codes(facts)) == fits
