"""Plans of hosts with GPUs, with everything real but the hardware: what is observed decides, and `modelyard fit` agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.test_doctor import interpreter
from tests.integration.test_plan_playbook import play
from tests.tools import standins
from tests.unit.sizing.published import LLAMA_3_8B

GIB = 2**30


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Four L40S two and two behind switches, the first of them ill, and a machine with one T4."""
    directory = tmp_path / "inventory"
    (directory / "group_vars" / "all").mkdir(parents=True)
    machines = {
        "large": standins.Machine(tmp_path / "large", standins.load("l40s")),
        "small": standins.Machine(tmp_path / "small", standins.load("t4")),
    }
    machines["large"].scenario["nvidia"]["gpus"][0]["ecc"] = {"volatile": 3}
    machines["large"].change()
    weights = tmp_path / "weights" / "m"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    hosts: dict[str, Any] = {
        name: {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(interpreter(machine)),
            "fleet_home": str(tmp_path / f"home-{name}"),
            "fleet_runtime": "process",
            "fleet_accelerator": "nvidia",
            "fleet_gpus": len(machine.scenario["nvidia"]["gpus"]),
        }
        for name, machine in machines.items()
    }
    told = {"all": {"children": {"engine_hosts": {"hosts": hosts}, "proxy_hosts": {"hosts": {"large": {}}}}}}
    (directory / "hosts.yml").write_text(yaml.safe_dump(told), encoding="utf-8")
    wish(directory, [model(weights)])
    return directory


def model(weights: Path, **placement: Any) -> dict[str, Any]:
    return {
        "id": "m",
        "engine": "vllm",
        "source": {"path": str(weights)},
        "args": {"max_model_len": 4096},
        "placement": {"gpus": 2, **placement},
    }


def wish(directory: Path, models: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump({"models": models})
    (directory / "group_vars" / "all" / "models.yml").write_text(text, encoding="utf-8")


def test_what_is_seen_of_gpus_decides(inventory: Path) -> None:
    weights = inventory.parent / "weights" / "m"
    code, text, found = play("plan", inventory)
    assert code == 0, text
    # 0 is ill, so 1 has lost its neighbour behind the switch: 2 and 3 it is
    assert {item["replica"]: item["gpus"] for item in found["assignments"]} == {"large.m.0": ["2", "3"]}
    assert list(found["hosts"]["large"]["unwell_gpus"]) == ["0"]
    assert any("large: GPU 0 is given to no new replica" in note for note in found["notes"])
    assert "errors that ECC could not correct" in text
    # half a T4 short of the weights, and three GPUs that are well
    wish(inventory, [model(weights, gpus=1, replicas=5)])
    code, text, found = play("plan", inventory)
    assert code != 0
    (problem,) = found["problems"]
    assert "3 of 5 replicas placed, each needs 1 GPU on one host with about" in problem
    assert "large has 0 of 4 GPUs free (GPU 0 is not given: its health is down" in problem
    assert "small has" in problem
    assert "GiB on each GPU" in problem


def test_what_was_remembered_is_what_fit_goes_by(inventory: Path) -> None:
    """The weights lie on no host and not here: their size is known from the last deploy, and so are the GPUs."""
    gone = Path("/srv/models/of-nobody")
    wish(inventory, [model(gone, gpus=1)])
    gpus = {
        "large": {str(at): {"memory": 45 * GIB, "unwell": "" if at else "hot"} for at in range(4)},
        "small": {"0": {"memory": 15 * GIB, "unwell": ""}},
    }
    memory = {
        "version": 1,
        "assignments": [],
        "gpus": gpus,
        "weights": {str(gone): {"config": LLAMA_3_8B, "files_bytes": 16 * GIB}},
    }
    (inventory / ".modelyard").mkdir()
    (inventory / ".modelyard" / "assignments.json").write_text(json.dumps(memory), encoding="utf-8")
    code, text, found = play("check", inventory)
    assert code == 0, text
    hosts = {host["host"]: host for host in found["capacity"]["hosts"]}
    assert hosts["large"]["seen"]["0"] == {"memory": 45 * GIB, "unwell": "hot"}
    (told,) = found["capacity"]["models"]
    assert told["config"]["files_bytes"] == 16 * GIB
    # the plan goes by it too, where no host tells of the weights
    code, text, found = play("plan", inventory)
    assert code == 0, text
    assert {item["replica"]: item["gpus"] for item in found["assignments"]} == {"large.m.0": ["1"]}
