"""A fleet that really runs here on GPUs that are stand-ins: what is seen of them decides, and is remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home

from tests.integration.test_doctor import interpreter
from tests.integration.test_drift import model, wish
from tests.integration.test_local_fleet import ROOT, Fleet, free_ports, free_range
from tests.tools import standins

MIB = 2**20


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> standins.Machine:
    """Four L40S, two and two behind PCIe switches."""
    return standins.Machine(tmp_path_factory.mktemp("machine"), standins.load("l40s"))


@pytest.fixture
def fleet(machine: standins.Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("g")  # short: a socket lies below it
    inventory = home / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    (port,) = free_ports(1)
    ports = free_range(8)
    mine = {
        "ansible_python_interpreter": str(interpreter(machine)),
        "fleet_home": str(home / "home"),
        "fleet_accelerator": "nvidia",
        "fleet_gpus": 4,
        "fleet_ports": f"{ports[0]}-{ports[1]}",
        "fleet_proxy_port": port,
    }
    shared = yaml.safe_load((ROOT / "inventories" / "local" / "hosts.yml").read_text(encoding="utf-8"))
    shared["all"]["children"] = {
        "engine_hosts": {"hosts": {"localhost": mine}},
        "proxy_hosts": {"hosts": {"localhost": {}}},
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump(shared), encoding="utf-8")
    running = Fleet(home, inventory, port, ports)
    yield running
    running.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true")
    left = running.processes()
    assert not left, left


def remembered(fleet: Fleet) -> dict[str, Any]:
    (file,) = Path(fleet.inventory).rglob("assignments.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def given(fleet: Fleet) -> dict[str, list[str]]:
    return {item["replica"]: item["gpus"] for item in remembered(fleet)["assignments"]}


@pytest.mark.timeout(400)
def test_a_replica_stays_on_a_gpu_gone_bad_until_it_is_restarted(
    fleet: Fleet, machine: standins.Machine
) -> None:
    wish(fleet, model("m", 1, placement={"hosts": "engine_hosts", "replicas": 1, "gpus": 1}))
    assert fleet.changed(fleet.play("site")) > 0
    assert given(fleet) == {"localhost.m.0": ["0"]}
    assert {
        gpu: one["unwell"] for gpu, one in remembered(fleet)["gpus"]["localhost"].items()
    } == dict.fromkeys("0123", "")
    assert remembered(fleet)["footprints"] == {}

    # it uses memory, and then its GPU has errors: nothing is changed by that
    pid = int((Home(fleet.home / "home").program_folder("localhost.m.0") / "pid").read_text(encoding="utf-8"))
    gpu = machine.scenario["nvidia"]["gpus"][0]
    gpu |= {"ecc": {"volatile": 3}, "processes": [{"pid": pid, "command": "engine", "memory": 1000}]}
    machine.change()
    done = fleet.play("deploy")
    assert fleet.changed(done) == 0
    assert "GPU 0 is given to no new replica, since its health is down" in done.stdout
    assert "localhost.m.0 runs on a GPU that is not known to be well (GPU 0 is down)" in done.stdout
    assert given(fleet) == {"localhost.m.0": ["0"]}
    (footprint,) = remembered(fleet)["footprints"].values()
    assert (footprint["model"], footprint["used"]) == ("m", 1000 * MIB)

    # what is started anew gets a GPU that is well, and serves
    assert fleet.changed(fleet.play("restart", "-e", "replica=localhost.m.0")) > 0
    (gpus,) = given(fleet).values()
    assert gpus != ["0"]
    code, answer = fleet.post("/v1/completions", {"model": "m", "prompt": "three small words"})
    assert (code, answer["model"]) == (200, "m")
