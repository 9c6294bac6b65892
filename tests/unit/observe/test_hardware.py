"""What is observed of GPUs for the planner, at machines whose tools are stand-ins."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.observe import hardware
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.gpus import Owner

from tests.tools import standins
from tests.tools.run_module import run_module
from tests.unit.gpus.machines import CATALOG, machine

GIB = 2**30


@pytest.fixture(autouse=True)
def _own_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins are started by `env python3`: it is to be this one."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def process(there: standins.Machine, pid: int, group: str) -> None:
    directory = there.proc / str(pid)
    directory.mkdir()
    (directory / "cgroup").write_text(f"0::{group}\n", encoding="ascii")
    (directory / "stat").write_text(f"{pid} (python3) S 1 0\n", encoding="ascii")


def look(
    there: standins.Machine, vendor: str = "nvidia", **replicas: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What is seen; ``replicas`` are container ids by name."""
    params = there.params()
    host = Host(20, params["proc"], params["sys"], params["path"])
    ours = Owner(params["proc"], list(replicas.values()), [])
    owners = {name: Owner(params["proc"], [one], []) for name, one in replicas.items()}
    return hardware.look(host, vendor, CATALOG, ours, owners)


def test_gpus_that_are_well_and_whose_memory_it_is(tmp_path: Path) -> None:
    there = machine(tmp_path, "h100")
    pid = there.scenario["nvidia"]["gpus"][1]["processes"][0]["pid"]
    process(there, pid, "/docker/ours")
    devices, seen = look(there, m="ours")
    assert {one["health"] for one in seen["gpus"]} == {"up"}
    assert [one["foreign_processes"] for one in devices] == [[]] * 8
    assert [sorted(one["used"]) for one in seen["gpus"]] == [[], ["m"], *([[]] * 6)]
    assert seen["gpus"][1]["used"]["m"] > GIB
    assert [(one["kind"], len(one["gpus"])) for one in seen["groups"]] == [
        ("nvlink", 8),
        ("numa", 4),
        ("numa", 4),
    ]
    assert {one["kind"] for one in seen["links"]} == {"NV18"}
    # the same process in nobody's container
    assert look(there, m="other")[0][1]["foreign_processes"] == [pid]
    assert look(there, m="other")[1]["gpus"][1]["used"] == {}


@pytest.mark.parametrize("name", [name for name in standins.NAMES if name != "none"])
def test_a_sound_machine_of_whatever_kind_has_only_gpus_that_are_well(name: str, tmp_path: Path) -> None:
    there = machine(tmp_path, name)
    devices, seen = look(there, "amd" if there.scenario.get("amd") else "nvidia")
    assert [one["reason"] for one in seen["gpus"] if one["health"] != "up"] == []
    assert len(devices) == len(seen["gpus"]) > 0


def test_one_gpu_with_bad_memory_is_down_and_says_why(tmp_path: Path) -> None:
    seen = look(machine(tmp_path, "l40s", gpu1={"ecc": {"volatile": 3}}))[1]
    assert [one["health"] for one in seen["gpus"]] == ["up", "down", "up", "up"]
    assert "3 errors that ECC could not correct" in seen["gpus"][1]["reason"]
    assert [one["reason"] for one in seen["gpus"] if one["health"] == "up"] == ["", "", ""]


def test_a_fabric_manager_that_is_not_there_concerns_every_gpu(tmp_path: Path) -> None:
    there = machine(tmp_path, "h100")
    (there.bin / "nv-fabricmanager").unlink()
    seen = look(there)[1]
    assert {one["health"] for one in seen["gpus"]} == {"down"}
    assert {one["reason"].split(".")[0] for one in seen["gpus"]} == {
        "The GPUs are joined by NVSwitches and there is no fabric manager"
    }


def test_a_tool_that_fails_leaves_gpus_unknown(tmp_path: Path) -> None:
    there = machine(tmp_path, "l40s")
    there.fault("nvidia-smi", mode="say", code=9, stderr="something new is wrong")
    devices, seen = look(there)
    assert devices == []
    assert seen["state"] == "unknown"
    assert {one["health"] for one in seen["gpus"]} == {"unknown"}
    assert all(one["reason"] for one in seen["gpus"])


def test_rocm_smi_does_not_tell_enough(tmp_path: Path) -> None:
    there = machine(tmp_path, "mi300x")
    (there.bin / "amd-smi").unlink()
    (there.bin / "rocm-smi").unlink(missing_ok=True)
    (there.bin / "rocm-smi").symlink_to(standins.HERE / "standin.py")
    devices, seen = look(there, "amd")
    assert len(devices) == 8
    assert {one["health"] for one in seen["gpus"]} == {"unknown"}
    assert "rocm-smi does not tell it" in seen["gpus"][0]["reason"]


def test_instances_of_a_cut_gpu(tmp_path: Path) -> None:
    seen = look(machine(tmp_path, "a100_mig"))[1]
    assert [len(one["instances"]) for one in seen["gpus"]] == [2, 0, 0, 0]
    assert seen["gpus"][0]["instances"][0]["uuid"].startswith("MIG-")
    assert seen["gpus"][0]["instances"][0]["memory_total"] < 41 * GIB


def asked(there: standins.Machine, home: Path, **params: Any) -> dict[str, Any]:
    """The result of ``fleet_facts`` on a machine of stand-ins."""
    return run_module("fleet_facts", {**there.params(), "catalog": CATALOG, "home": str(home), **params})


def test_the_module_looks_at_gpus_in_the_same_go(tmp_path: Path) -> None:
    there = machine(tmp_path, "mi300x")
    found = asked(there, tmp_path / "home", accelerator="rocm")
    assert [one["uuid"] for one in found["gpus"]] == [one["uuid"] for one in found["hardware"]["gpus"]]
    assert found["hardware"]["groups"][0]["kind"] == "xgmi"
    assert found["hardware"]["health"] == "up"


def test_a_host_without_gpus_for_models_is_not_asked_more(tmp_path: Path) -> None:
    there = machine(tmp_path, "l40s")
    found = asked(there, tmp_path / "home")
    assert "hardware" not in found
    # none of the stand-in's tools was started: each counts its calls in a file
    assert list(there.bin.glob("*.calls")) == []


def test_the_size_of_weights_that_lie_here(tmp_path: Path) -> None:
    there = machine(tmp_path, "l40s")
    for name, files in {
        "whole": {"config.json": '{"model_type": "x"}', "model.safetensors": "1234"},
        "parts": {"config.json": "{}", "model-00001-of-00002.safetensors": "1234"},
        "bare": {"config.json": "{}"},
        "broken": {"config.json": "{", "model.safetensors": "1234"},
        "list": {"config.json": "[]"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text, encoding="utf-8")
    paths = [str(tmp_path / name) for name in ("whole", "parts", "bare", "broken", "list", "absent")]
    found = asked(there, tmp_path / "home", accelerator="nvidia", weights=paths)["weights"]
    assert found == {
        paths[0]: {"config": {"model_type": "x"}, "files_bytes": 4},
        paths[1]: {"config": {}, "files_bytes": None},
        paths[2]: {"config": {}, "files_bytes": None},
    }
