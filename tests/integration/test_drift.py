"""Drift of a fleet that really runs here: none after a deploy, each planted difference once, none after the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home, Supervisor

from tests.integration.test_local_fleet import ROOT, Fleet
from tests.tools.ports import free_ports, free_range

SECRET = "correct-horse-battery"
Found = set[tuple[str, str, str]]


def model(name: str, replicas: int, **more: Any) -> dict[str, Any]:
    placement = {"hosts": "engine_hosts", "replicas": replicas, "gpus": 0}
    return {"id": name, "name": name, "engine": "echo", "placement": placement, **more}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home = tmp_path_factory.mktemp("d")
    inventory = home / "inventory"
    (inventory / "host_vars").mkdir(parents=True)
    (inventory / "group_vars" / "all").mkdir(parents=True)
    (inventory / "hosts.yml").write_bytes((ROOT / "inventories" / "local" / "hosts.yml").read_bytes())
    (port,) = free_ports(1)
    ports = free_range(8)
    mine = {
        "fleet_home": str(home / "home"),
        "fleet_ports": f"{ports[0]}-{ports[1]}",
        "fleet_proxy_port": port,
    }
    (inventory / "host_vars" / "localhost.yml").write_text(json.dumps(mine), encoding="utf-8")
    running = Fleet(home, inventory, port, ports)
    wish(running, model("m", 2, env={"TOKEN": SECRET}), model("spare", 1))
    yield running
    running.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true")
    left = running.processes()
    assert not left, left


def wish(fleet: Fleet, *models: dict[str, Any]) -> None:
    text = yaml.safe_dump({"models": list(models)})
    (fleet.inventory / "group_vars" / "all" / "models.yml").write_text(text, encoding="utf-8")


def modelyard(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelyard", *arguments, "-i", str(fleet.inventory)]
    environment = os.environ | {"MODELYARD_HOME": str(ROOT), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(command, text=True, capture_output=True, env=environment, cwd=ROOT, timeout=120)


def drift(fleet: Fleet) -> tuple[int, Found]:
    """Exit code, and kind, subject and field of everything that is not a note; no secret in any of it."""
    done = modelyard(fleet, "drift", "--json")
    assert SECRET not in done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    real = [item for item in findings if item["severity"] != "note"]
    found = {(item["kind"], item["subject"], item["field"]) for item in real}
    assert len(found) == len(real), findings
    return done.returncode, found


def edit(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.timeout(900)
def test_each_planted_difference_is_found_and_mended(fleet: Fleet) -> None:
    assert fleet.changed(fleet.play("site")) > 0
    assert drift(fleet) == (0, set())
    status = modelyard(fleet, "status", "--json")
    assert (status.returncode, json.loads(status.stdout)["overall"]) == (0, "up")

    home = Home(fleet.home / "home")
    supervisor = Supervisor(home)
    supervisor.call("stopProcess", "localhost.m.1", True)

    def launch(data: Any) -> None:
        data["command"] += ["--delay", "0.5"]
        data["environment"] |= {"TOKEN": "another", "ADDED": SECRET}

    edit(home.program_folder("localhost.m.0") / "launch.json", launch)

    def registry(data: Any) -> None:
        (first, second) = data["models"]["m"]["endpoints"]
        first["state"] = "draining"
        second["url"] = "http://127.0.0.1:9"
        data["models"]["m"]["aliases"] = ["by-hand"]
        data["models"]["m"]["endpoints"].append({**first, "id": "ghost", "url": "http://127.0.0.1:8"})

    edit(fleet.home / "home" / "endpoints.yml", registry)
    wish(fleet, model("m", 2, env={"TOKEN": SECRET}))  # nobody wishes `spare` any more

    assert drift(fleet) == (
        2,
        {
            ("replica", "localhost.m.1", "state"),
            ("arguments", "localhost.m.0", "delay"),
            ("environment", "localhost.m.0", "env.TOKEN"),
            ("environment", "localhost.m.0", "env.ADDED"),
            ("registry", "localhost.m.0", "state"),
            ("registry", "localhost.m.1", "url"),
            ("registry", "model m", "aliases"),
            ("registry", "ghost", "endpoint"),
            ("replica", "localhost.spare.0", "state"),
            ("registry", "localhost.spare.0", "endpoint"),
            ("registry", "model spare", "model"),
        },
    )
    assert modelyard(fleet, "status").returncode == 2
    strict = fleet.play("drift", "-e", "strict=true")
    assert (strict.returncode, "11 differences, 0 unknown: see above" in strict.stdout) == (2, True)
    assert fleet.changed(fleet.play("drift")) == 0

    fleet.changed(fleet.play("deploy"))
    assert drift(fleet) == (0, set())

    # a process that was started from another file than lies there now
    path = home.program_folder("localhost.m.0") / "launch.json"
    declared = path.read_text(encoding="utf-8")
    edit(path, lambda data: data["command"].append("--delay=0.25"))
    for method in ("stopProcess", "startProcess"):
        supervisor.call(method, "localhost.m.0", True)
    path.write_text(declared, encoding="utf-8")
    assert drift(fleet) == (2, {("arguments", "localhost.m.0", "delay")})
    for method in ("stopProcess", "startProcess"):
        supervisor.call(method, "localhost.m.0", True)

    # what is not to be understood is told, and everything else as well
    (fleet.home / "home" / "endpoints.yml").write_text("{", encoding="utf-8")
    assert drift(fleet) == (2, {("registry", "localhost", "file")})
    (fleet.home / "home" / "endpoints.yml").unlink()
    fleet.changed(fleet.play("deploy"))
    wait_for(lambda: fleet.get("/models")[0] == 200)
    text = fleet.home / "drift.prom"
    assert modelyard(fleet, "drift", "--prometheus", str(text)).returncode == 0
    assert 'modelyard_drift{host="localhost",kind="registry"} 0\n' in text.read_text(encoding="utf-8")

    follow_the_log(fleet, home)


def follow_the_log(fleet: Fleet, home: Home) -> None:
    """Lines come while it runs; Ctrl-C ends it and leaves nothing."""
    wrong = modelyard(fleet, "logs", "m")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "say which: localhost.m.0, localhost.m.1." in wrong.stderr
    log = home.program_folder("localhost.m.1") / "output.log"
    last = log.read_text(encoding="utf-8").splitlines()[-1]
    assert modelyard(fleet, "logs", "m.1", "--lines", "1").stdout == f"{last}\n"
    command = [sys.executable, "-m", "modelyard", "logs", "m.1", "-f", "-n", "1", "-i", str(fleet.inventory)]
    environment = os.environ | {"MODELYARD_HOME": str(ROOT), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{last}\n"
            with log.open("a", encoding="utf-8") as file:
                file.write("planted\x07\n")
            assert process.stdout.readline() == "planted\n"
        finally:
            process.send_signal(signal.SIGINT)
        assert process.stdout.read() == ""
        assert process.wait() == 0
    assert not [line for line in fleet.processes() if "ansible" in line or "replica_log" in line]
