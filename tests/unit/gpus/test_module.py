"""The module run for real, in a process of its own, before tools that answer, fail, lie, hang and change."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.action.gpu_facts import catalog
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import command

from tests.unit.gpus.machines import CATALOG, codes, look, machine, run_module, text

GIB = 1024**3


def test_a_machine_with_nvlink_and_a_fabric_manager(tmp_path: Path) -> None:
    facts = run_module(machine(tmp_path, "h100"), count=8, driver="550")
    assert (facts["changed"], facts["state"], facts["health"], facts["findings"]) == (False, "up", "up", [])
    gpu = facts["gpus"][1]
    assert (gpu["index"], gpu["address"], gpu["device"], gpu["generation"]) == (
        1,
        "0000:2a:00.0",
        "2330",
        "Hopper",
    )
    assert (gpu["compute"], gpu["memory_total"] // GIB, gpu["numa_node"], gpu["kernel_driver"]) == (
        "9.0",
        79,
        0,
        "nvidia",
    )
    assert [(one["pid"], one["name"]) for one in gpu["processes"]] == [(4242, "python3")]
    assert facts["drivers"]["nvidia"]["module"] == {
        "state": "up",
        "version": "550.54.15",
        "open": True,
        "reason": "",
    }
    assert facts["drivers"]["nvidia"]["userspace"]["cuda"] == "12.4"
    assert facts["drivers"]["nvidia"]["fabric_manager"]["version"] == "550.54.15"
    assert facts["drivers"]["nvidia"]["fabric_manager"]["switches"] == 4
    groups = [(one["kind"], one["gpus"], one["node"]) for one in facts["topology"]["groups"]]
    assert groups == [("nvlink", list(range(8)), None), ("numa", [0, 1, 2, 3], 0), ("numa", [4, 5, 6, 7], 1)]


def test_no_secret_of_a_command_line_is_in_the_result(tmp_path: Path) -> None:
    assert "secret-of-a-user" not in str(run_module(machine(tmp_path, "h100")))


def test_check_mode_sees_the_same(tmp_path: Path) -> None:
    there = machine(tmp_path, "a100_mig")
    assert {**run_module(there, check=True), "invocation": 0} == {**run_module(there), "invocation": 0}


def test_instances_of_a_cut_gpu_have_names_and_sizes(tmp_path: Path) -> None:
    gpu = run_module(machine(tmp_path, "a100_mig"))["gpus"][0]
    assert (gpu["mig"]["mode"], [one["profile"] for one in gpu["mig"]["instances"]]) == (
        True,
        ["3g.40gb", "3g.40gb"],
    )
    assert all(
        one["uuid"].startswith("MIG-") and one["memory_total"] > 39 * GIB for one in gpu["mig"]["instances"]
    )


@pytest.mark.parametrize("form", ["list", "gpu_data"])
def test_amd_with_its_newer_tool(tmp_path: Path, form: str) -> None:
    banner = "WARNING: User is missing the following required groups: render, video.\n"
    facts = run_module(machine(tmp_path, "mi300x", form=form, banner=banner), count=8)
    assert (facts["state"], facts["findings"]) == ("up", [])
    gpu = facts["gpus"][7]
    assert (gpu["vendor"], gpu["index"], gpu["address"], gpu["generation"]) == (
        "amd",
        7,
        "0000:e5:00.0",
        "CDNA 3",
    )
    assert (gpu["memory_total"], gpu["temperature"], gpu["throttle"]) == (196592 * 1024**2, 43, [])
    assert facts["drivers"]["amd"]["module"]["version"] == "6.8.5"
    assert facts["topology"]["groups"][0] == {
        "vendor": "amd",
        "kind": "xgmi",
        "gpus": list(range(8)),
        "node": None,
    }


def test_amd_with_its_older_tool_says_what_that_does_not_tell(tmp_path: Path) -> None:
    there = machine(tmp_path, "mi300x", top={"tools": ["rocm-smi", "lspci", "dmesg"]})
    facts = run_module(there)
    assert (facts["state"], facts["health"], len(facts["gpus"])) == ("up", "unknown", 8)
    assert facts["gpus"][0]["unknown"] == {
        "ecc": "rocm-smi does not tell it",
        "throttle": "rocm-smi does not tell it",
    }
    assert facts["topology"]["groups"][0]["kind"] == "xgmi"


def test_before_any_driver_the_bus_tells_what_there_is(tmp_path: Path) -> None:
    there = machine(tmp_path, "b200", module=None, bound=None, top={"tools": ["lspci"]})
    facts = run_module(there, count=8)
    assert (facts["state"], facts["reason"]) == (
        "down",
        "no NVIDIA driver is loaded, and nvidia-smi is not there",
    )
    assert [gpu["state"] for gpu in facts["gpus"]] == ["down"] * 8
    assert {gpu["generation"] for gpu in facts["gpus"]} == {"Blackwell"}
    assert facts["gpus"][0]["driver_rule"] == {"open_modules": "required", "first_branch": 570}
    assert facts["gpus"][0]["name"] == "GB100 [B200]"
    assert "driver_absent" in codes(facts)


def test_without_lspci_the_kernel_tells_it(tmp_path: Path) -> None:
    facts = run_module(machine(tmp_path, "h100", module=None, top={"tools": []}))
    assert (facts["pci"]["source"], facts["state"]) == ("sysfs", "down")
    assert [one["role"] for one in facts["pci"]["devices"]].count("nvswitch") == 4
    assert [gpu["device"] for gpu in facts["gpus"]] == ["2330"] * 8


def test_absent_and_unknown_are_two_things(tmp_path: Path) -> None:
    facts = run_module(machine(tmp_path, "none"), count=0)
    assert [one["present"] for one in facts["vendors"].values()] == [False, False]
    assert (facts["state"], facts["reason"], facts["health"]) == ("down", "there is no GPU", "up")
    # neither lspci nor /sys: nobody knows
    there = machine(tmp_path / "2", "none", top={"tools": []})
    shutil.rmtree(there.sys)
    facts = run_module(there)
    assert [one["present"] for one in facts["vendors"].values()] == [None, None]
    assert (facts["state"], facts["health"]) == ("unknown", "unknown")
    assert "lspci is not there; the kernel shows no PCI bus either" in text(facts, "pci_unknown")


NO_DRIVER = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
FAULTS: dict[str, dict[str, Any]] = {
    "status 9": {"mode": "say", "code": 9, "stdout": f"{NO_DRIVER}\n"},
    "status 9, no words": {"mode": "say", "code": 9},
    "garbage": {"mode": "garbage"},
    "nothing": {"mode": "say"},
    "other XML": {"mode": "say", "stdout": "<html>404</html>"},
    "killed": {"mode": "garbage", "code": 137},
}  # fmt: skip
REASONS = {
    "status 9": f"nvidia-smi ended with status 9: {NO_DRIVER}",
    "status 9, no words": "nvidia-smi ended with status 9: it said nothing",
    "garbage": "nvidia-smi printed no XML, or only a part of it",
    "nothing": "nvidia-smi said nothing",
    "other XML": "nvidia-smi printed XML that is none of its reports",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tool_that_fails_makes_the_gpus_unknown_and_not_absent(tmp_path: Path, fault: str) -> None:
    there = machine(tmp_path, "l40s")
    there.fault("nvidia-smi", **FAULTS[fault])
    facts = run_module(there, count=4)
    assert (facts["state"], facts["health"]) == ("unknown", "unknown")
    assert facts["vendors"]["nvidia"]["present"] is True
    assert [gpu["state"] for gpu in facts["gpus"]] == ["unknown"] * 4
    assert [gpu["address"] for gpu in facts["gpus"]] == [
        "0000:21:00.0",
        "0000:22:00.0",
        "0000:a1:00.0",
        "0000:a2:00.0",
    ]
    assert {"gpus_unknown", "gpu_unknown", "gpu_count_unknown"} <= set(codes(facts))
    assert "gpu_missing" not in codes(facts)
    if fault in REASONS:
        assert facts["reason"] == REASONS[fault]


def test_a_report_that_is_cut_off_leaves_what_the_table_says(tmp_path: Path) -> None:
    there = machine(tmp_path, "l40s")
    there.fault("nvidia-smi", mode="lie", args="-q", cut=700)
    facts = run_module(there, count=4)
    assert (facts["state"], facts["health"]) == ("up", "unknown")
    assert [gpu["index"] for gpu in facts["gpus"]] == [0, 1, 2, 3]
    assert set(facts["gpus"][0]["unknown"]) == {"mig", "ecc", "throttle", "processes"}
    assert "only a part of it" in text(facts, "report_partial")


def test_a_tool_that_is_missing_beside_a_loaded_driver(tmp_path: Path) -> None:
    facts = run_module(machine(tmp_path, "l40s", top={"tools": ["lspci", "dmesg"]}))
    assert (facts["state"], facts["reason"]) == (
        "unknown",
        "the NVIDIA kernel module may be loaded, but nvidia-smi is not there",
    )


@pytest.mark.parametrize("child", [False, True], ids=["alone", "with a child that holds its outputs"])
def test_a_tool_that_hangs_is_left_in_time_and_asked_once(tmp_path: Path, child: bool) -> None:
    there = machine(tmp_path, "h100")
    there.fault("nvidia-smi", mode="hang", child=child)
    begun = time.monotonic()
    facts = run_module(there, timeout=1)
    assert time.monotonic() - begun < 15  # it hangs for 30 s
    assert (there.bin / "nvidia-smi.calls").read_text() == "1"
    assert (facts["state"], facts["reason"]) == ("unknown", "nvidia-smi did not answer within 1 s")
    assert facts["health"] == "down"
    assert "A GPU or its driver hangs" in text(facts, "gpu_hung")
    assert [gpu["state"] for gpu in facts["gpus"]] == ["unknown"] * 8


def test_a_tool_that_hangs_halfway_keeps_what_it_said_before(tmp_path: Path) -> None:
    there = machine(tmp_path, "v100")
    there.fault("nvidia-smi", mode="hang", args="topo")
    facts = run_module(there, timeout=1)
    assert (facts["state"], facts["health"], len(facts["gpus"])) == ("up", "up", 4)
    assert (facts["topology"]["state"], facts["topology"]["reason"]) == (
        "unknown",
        "nvidia-smi did not answer within 1 s",
    )


def test_other_tools_that_hang_do_not_hide_the_gpus(tmp_path: Path) -> None:
    there = machine(tmp_path, "h100")
    for tool in ("lspci", "dmesg", "journalctl", "nv-fabricmanager"):
        there.fault(tool, mode="hang")
    facts = run_module(there, timeout=1)
    assert (facts["state"], facts["pci"]["source"], len(facts["gpus"])) == ("up", "sysfs", 8)
    assert facts["health"] == "unknown"
    assert "lspci did not answer within 1 s" in facts["pci"]["reason"]
    assert {"xids_unknown", "fabric_manager_unknown"} <= set(codes(facts))


def test_a_tool_that_prints_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LIMIT_BYTES", 200_000)
    there = machine(tmp_path, "t4")
    there.fault("nvidia-smi", mode="flood")
    facts = look(there)
    assert facts["state"] == "unknown"
    assert facts["reason"].startswith("nvidia-smi ended with status")


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    there = machine(tmp_path, "t4")
    (there.bin / "nvidia-smi").unlink()
    (there.bin / "nvidia-smi").write_bytes(b"\x00\x01 no program")
    (there.bin / "nvidia-smi").chmod(0o755)
    facts = run_module(there)
    assert (facts["state"], facts["reason"]) == (
        "unknown",
        "nvidia-smi could not be started: Exec format error",
    )


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("<gpu_temp>31 C<", "<gpu_temp>511 C<", "temperature"),
        ("<used>0 MiB<", "<used>[Unknown Error]<", "memory_used"),
        ("<dram_uncorrectable>0<", "<dram_uncorrectable>ERR!<", "ecc"),
    ],
)
def test_a_lie_in_a_field_is_unknown_there_and_nowhere_else(
    tmp_path: Path, old: str, new: str, field: str
) -> None:
    there = machine(tmp_path, "l40s")
    there.fault("nvidia-smi", mode="lie", args="-q", replace=[[old, new]])
    facts = run_module(there)
    assert (facts["state"], facts["health"]) == ("up", "unknown")
    assert all(list(gpu["unknown"]) == [field] and gpu["health"] == "unknown" for gpu in facts["gpus"])
    assert codes(facts, "note") == ["field_unknown"] * 4


def test_amd_that_fails_falls_back_to_the_older_tool(tmp_path: Path) -> None:
    there = machine(tmp_path, "mi300x")
    there.fault("amd-smi", mode="garbage")
    assert run_module(there)["drivers"]["amd"]["userspace"]["tool"] == "rocm-smi"
    there.fault("rocm-smi", mode="say", stdout="{}")
    facts = run_module(there)
    assert (facts["state"], facts["vendors"]["amd"]["present"]) == ("unknown", True)
    assert facts["reason"] == "amd-smi printed no list of GPUs; rocm-smi printed no list of GPUs"
    assert [gpu["state"] for gpu in facts["gpus"]] == ["unknown"] * 8


def test_amd_that_hangs(tmp_path: Path) -> None:
    there = machine(tmp_path, "mi300x")
    there.fault("amd-smi", mode="hang")
    there.fault("rocm-smi", mode="hang")
    facts = run_module(there, timeout=1)
    assert "The AMD GPUs do not answer" in text(facts, "gpu_hung")
    assert facts["state"] == "unknown"


def test_a_machine_that_changes(tmp_path: Path) -> None:
    there = machine(tmp_path, "t4")
    assert run_module(there)["health"] == "up"
    lost = "Unable to determine the device handle for GPU 0000:00:1E.0: GPU is lost.  Reboot the system to recover\n"
    there.fault("nvidia-smi", mode="say", code=15, stdout=lost)
    facts = run_module(there, count=1)
    assert (facts["state"], facts["health"]) == ("unknown", "down")
    assert [(gpu["state"], gpu["health"]) for gpu in facts["gpus"]] == [("down", "down")]
    there.scenario["faults"] = {}
    there.change()
    assert run_module(there)["health"] == "up"


def test_old_drivers_that_do_not_know_every_question(tmp_path: Path) -> None:
    facts = run_module(machine(tmp_path, "v100"))
    assert [(gpu["compute"], gpu["generation"], gpu["index"]) for gpu in facts["gpus"]] == [
        (None, "Volta", n) for n in range(4)
    ]
    assert facts["findings"] == []


def test_without_the_catalog_generations_are_left_open(tmp_path: Path) -> None:
    gpu = run_module(machine(tmp_path, "t4"), catalog={})["gpus"][0]
    assert (gpu["generation"], gpu["driver_rule"], gpu["unknown"]) == (None, {}, {})


def test_the_action_gives_the_module_the_catalog() -> None:
    assert catalog() == CATALOG


def test_a_time_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    result = run_module(machine(tmp_path, "none"), timeout=0)
    assert (result["failed"], result["msg"]) == (True, "timeout must be greater than 0")
