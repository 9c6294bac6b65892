"""The doctor at a fleet that really runs here: hosts whose hardware is lied about, and a replica that does not answer."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home, program_state

from tests.integration.test_drift import model, modelyard, wish
from tests.integration.test_local_fleet import ROOT, Fleet
from tests.tools import UNREACHABLE_SSH, standins
from tests.tools.ports import free_ports, free_range

WRONG = {
    "newdriver": "driver_mismatch",
    "missing": "gpu_missing",
    "memory": "ecc_uncorrected",
    "hot": "gpu_hot",
    "hung": "gpu_hung",
}
"""Hosts with stand-in hardware, and what is wrong with it. The host `fine` has the same, and nothing is."""
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n"


def machines(home: Path) -> dict[str, standins.Machine]:
    """Four L40S each."""
    found = {name: standins.Machine(home / name, standins.load("l40s")) for name in ("fine", *WRONG)}
    found["newdriver"].fault("nvidia-smi", mode="say", code=18, stdout=MISMATCH)
    # only the doctor's own question hangs: other looks at the host have their own time limits
    found["hung"].fault("nvidia-smi", mode="hang", args="-q -x")
    gpus = {name: machine.scenario["nvidia"]["gpus"] for name, machine in found.items()}
    gpus["memory"][1]["ecc"] = {"volatile": 3}
    gpus["hot"][2] |= {"heat": 92, "margin": -3}
    del gpus["missing"][3]
    for machine in found.values():
        machine.change()
    return found


def interpreter(machine: standins.Machine) -> Path:
    """Python that finds the machine's tools first, as a login shell with another PATH would."""
    file = machine.bin / "python-of-this-host"
    text = f'#!/bin/sh\nPATH={machine.bin}:{Path(sys.executable).parent}:$PATH exec {sys.executable} "$@"\n'
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("m")
    inventory = home / "inventory"
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "group_vars" / "all").mkdir(parents=True)
    (port,) = free_ports(1)
    ports = free_range(8)
    hosts: dict[str, Any] = {"localhost": {"fleet_home": str(home / "home"), "fleet_proxy_port": port}}
    for name, machine in machines(home).items():
        hosts[name] = {
            "ansible_python_interpreter": str(interpreter(machine)),
            "fleet_home": str(home / f"home-{name}"),
            "fleet_accelerator": "nvidia",
            "fleet_gpus": 4,
            "fleet_gpu_driver": "570",
        }
    away = {
        "ansible_connection": "ssh",
        "ansible_ssh_executable": str(UNREACHABLE_SSH),
        "ansible_ssh_retries": 0,
    }
    hosts["away"] = {**away, "ansible_host": "192.0.2.1", "fleet_accelerator": "nvidia", "fleet_gpus": 8}
    for variables in hosts.values():
        variables["fleet_ports"] = f"{ports[0]}-{ports[1]}"
    shared = yaml.safe_load((ROOT / "inventories" / "local" / "hosts.yml").read_text(encoding="utf-8"))
    shared["all"]["children"] = {
        "engine_hosts": {"hosts": hosts},
        "proxy_hosts": {"hosts": {"localhost": {}}},
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump(shared), encoding="utf-8")
    running = Fleet(home, inventory, port, ports)
    here = {"hosts": "localhost", "replicas": 2, "gpus": 0}
    wish(running, model("m", 2) | {"placement": here})
    yield running
    running.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true", "-e", "command_timeout_s=3")
    left = running.processes()
    assert not left, left


def doctor(fleet: Fleet, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = modelyard(fleet, "doctor", "--json", "--command-timeout", "3", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def told(report: dict[str, Any], host: str, *kinds: str) -> dict[str, str]:
    """Code and sentence of what is wrong with a host; its notes and what else this machine may have are left out."""
    return {
        item["code"]: item["text"]
        for item in report["findings"]
        if item["host"] == host and item["kind"] in kinds and item["severity"] != "note"
    }


@pytest.mark.timeout(600)
def test_each_fault_is_found_with_its_own_sentence(fleet: Fleet) -> None:
    assert fleet.changed(fleet.play("site", "--limit", "localhost")) > 0
    code, report = doctor(fleet, "localhost")
    assert told(report, "localhost", "gpu", "replica", "ports", "image", "weights", "proxy", "toolkit") == {}
    assert [one["generated"] for one in report["generations"]] == [True, True], report
    assert report["hosts"][0]["told"].endswith("2 of 2 replicas generated")
    assert code == (
        2
        if report["counts"]["critical"] + report["counts"]["warning"]
        else 3
        if report["counts"]["unknown"]
        else 0
    )

    # one answers no more, as if it hung
    silent = program_state(Home(fleet.home / "home"), "localhost.m.1")[1]
    assert silent is not None
    os.kill(silent, signal.SIGSTOP)
    try:
        code, report = doctor(fleet)
    finally:
        os.kill(silent, signal.SIGCONT)
    assert code == 2
    found = told(report, "localhost", "gpu", "replica", "ports")
    assert list(found) == ["replica_silent"]
    assert found["replica_silent"].startswith(
        "localhost.m.1 runs and does not answer: /health: no answer in time"
    )
    assert {one["replica"]: one["generated"] for one in report["generations"]} == {
        "localhost.m.0": True, "localhost.m.1": False,
    }  # fmt: skip

    assert told(report, "fine", "gpu", "toolkit", "ports") == {}
    for host, wanted in WRONG.items():
        gpus = told(report, host, "gpu")
        assert wanted in gpus, (host, gpus)
        others = {other for other in WRONG.values() if other != wanted}
        assert not others & set(gpus), (host, gpus)
    assert "the driver was upgraded beneath it" in told(report, "newdriver", "gpu")["driver_mismatch"]
    assert told(report, "missing", "gpu")["gpu_missing"].startswith("4 GPUs are declared and 3 answer.")
    assert "has had 3 errors that ECC could not correct" in told(report, "memory", "gpu")["ecc_uncorrected"]
    assert "C above the point where it slows down" in told(report, "hot", "gpu")["gpu_hot"]
    assert "nvidia-smi did not answer within 3 s" in told(report, "hung", "gpu")["gpu_hung"]
    assert [item["code"] for item in report["findings"] if item["host"] == "away"] == ["host_unknown"]
    verdicts = {one["name"]: one["verdict"] for one in report["hosts"]}
    assert {host for host, verdict in verdicts.items() if verdict == "ill"} >= {"localhost", *WRONG}
    assert verdicts["away"] == "unknown"
    assert next(iter(verdicts)) in {"localhost", *WRONG}  # the worst come first


@pytest.mark.timeout(600)
def test_check_mode_is_the_same_and_nothing_is_changed(fleet: Fleet) -> None:
    run = fleet.play("doctor", "--check", "-e", "strict=true", "--limit", "localhost,missing")
    assert run.returncode == 2
    assert "2 of 2 replicas generated" in run.stdout
    assert "Critical: 0" not in run.stdout
    assert re.findall(r"changed=(\d+)", run.stdout) == ["0", "0"]


@pytest.mark.timeout(600)
def test_it_says_when_it_could_not_look_or_was_asked_for_nobody(fleet: Fleet) -> None:
    done = modelyard(fleet, "doctor", "localhost", "elsewhere")
    assert done.returncode == 1
    assert (
        "There is no host elsewhere among the engine, proxy and edge hosts of this inventory." in done.stderr
    )
