"""Drift of a fleet of containers: twelve planted differences, each found once, all mended by the next deploy."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from docker import APIClient

from tests.integration.test_local_fleet import ROOT, Fleet
from tests.parts import rootfs
from tests.parts.building import PARTS, ensure, say_on_stderr
from tests.parts.docker import docker
from tests.tools.ports import free_ports, free_range

SECRET = "correct-horse-battery"


@pytest.fixture
def name() -> Iterator[str]:
    """A fleet's name; no container or image with it is left."""
    fleet = f"drift-{random.randrange(16**8):08x}"
    yield fleet
    left = docker("ps", "-aq", "--filter", f"name={fleet}").split()
    if left:
        docker("rm", "--force", "--volumes", *left)
    for image in docker("images", "--format", "{{.Repository}}:{{.Tag}}", fleet).split():
        docker("rmi", "--force", image)


@pytest.fixture
def image(name: str) -> str:
    """An image with a small engine in it."""
    if not PARTS["base"].is_built():  # does not wait for somebody who builds other parts
        ensure(["base"], say_on_stderr)
    docker("create", "--name", f"{name}-build", rootfs.BASE.tag, "true")
    docker("cp", str(ROOT / "tests" / "tools" / "tiny_engine.py"), f"{name}-build:/tiny_engine.py")
    start = 'ENTRYPOINT ["sh", "-c", "exec python3 /tiny_engine.py 8000"]'
    docker("commit", "--change", start, "--change", "CMD []", f"{name}-build", f"{name}:engine")
    docker("rm", f"{name}-build")
    return f"{name}:engine"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory, name: str, image: str) -> Iterator[Fleet]:
    """Two replicas in containers of this machine, and a proxy."""
    home = tmp_path_factory.mktemp("d")  # short: a socket's path is limited
    inventory = home / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    hosts = {"localhost": None}
    (port,), ports = free_ports(1), free_range(8)
    settings = {
        "ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "fleet_name": name, "fleet_runtime": "docker", "fleet_proxy_service": "supervisor", "fleet_proxy_port": port,
        "fleet_address": "127.0.0.1", "fleet_home": str(home / "home"), "fleet_ports": f"{ports[0]}-{ports[1]}",
        # the engine of a test machine may not be allowed to raise limits
        "fleet_container_ulimits": {},
    }  # fmt: skip
    groups = {group: {"hosts": hosts} for group in ("engine_hosts", "proxy_hosts")}
    model = {
        "id": "m", "name": "m", "engine": "echo", "image": image, "env": {"TOKEN": SECRET},
        "placement": {"hosts": "engine_hosts", "replicas": 2, "gpus": 0},
    }  # fmt: skip
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"vars": settings, "children": groups}}))
    (inventory / "group_vars" / "all" / "models.yml").write_text(yaml.safe_dump({"models": [model]}))
    running = Fleet(home, inventory, port, ports)
    yield running
    running.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true")


def drift(fleet: Fleet, name: str) -> tuple[int, list[tuple[str, str, str]], list[str]]:
    """Exit code; kind, subject and field of each finding but the notes; containers of others whose name begins so."""
    command = [sys.executable, "-m", "modelyard", "drift", "--json", "-i", str(fleet.inventory)]
    environment = os.environ | {"MODELYARD_HOME": str(ROOT), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, text=True, capture_output=True, env=environment, cwd=ROOT, timeout=240)
    assert SECRET not in done.stdout + done.stderr
    findings = json.loads(done.stdout)["findings"]
    real = [item for item in findings if item["severity"] != "note"]
    notes = [item["subject"] for item in findings if item["severity"] == "note"]
    found = sorted((item["kind"], item["subject"].removeprefix(f"{name}-"), item["field"]) for item in real)
    return done.returncode, found, [note for note in notes if note.startswith(name)]


def plant(fleet: Fleet, name: str) -> None:
    """Everything that can be done to a fleet by hand."""
    first, second = f"{name}-localhost.m.0", f"{name}-localhost.m.1"
    client = APIClient(base_url="unix:///var/run/docker.sock", version="auto")
    inspected: dict[str, Any] = client.inspect_container(first)
    config: dict[str, Any] = {**inspected["Config"], "HostConfig": inspected["HostConfig"]}
    del config["Hostname"]
    docker("commit", "--change", "LABEL other=1", first, f"{name}:other")
    config["Image"] = f"{name}:other"
    config["Cmd"] = [*config["Cmd"], "--delay", "0.01"]
    config["Env"] = [
        f"TOKEN=another-{SECRET}",
        "MORE=1",
        *(one for one in config["Env"] if "TOKEN=" not in one),
    ]
    config["HostConfig"]["Binds"] = ["/tmp:/more:ro"]
    (binding,) = config["HostConfig"]["PortBindings"].values()
    binding[0]["HostPort"] = str(fleet.ports[1])
    docker("rm", "--force", first)
    client.start(client.create_container_from_config(config, first)["Id"])
    client.close()
    docker("update", "--memory", "1g", "--memory-swap", "2g", second)
    docker("stop", "--time", "1", second)
    for ending, replica in (
        ("-localhost.ghost.0", "localhost.ghost.0"),
        ("-localhost.m.1.next", "localhost.m.1"),
    ):
        labels = [f"--label=modelyard.fleet={name}", f"--label=modelyard.replica={replica}"]
        docker("create", "--name", name + ending, *labels, f"{name}:engine")
    docker("run", "--detach", "--name", f"{name}-of-others", f"{name}:engine")
    path = fleet.home / "home" / "endpoints.yml"
    registry = json.loads(path.read_text(encoding="utf-8"))
    registry["models"]["m"]["endpoints"][0]["state"] = "disabled"
    del registry["models"]["m"]["endpoints"][1]
    path.write_text(json.dumps(registry), encoding="utf-8")


@pytest.mark.timeout(900)
def test_twelve_differences_are_found_and_mended_and_nothing_of_others_is_touched(
    fleet: Fleet, name: str
) -> None:
    fleet.changed(fleet.play("site"))
    assert drift(fleet, name) == (0, [], [])
    plant(fleet, name)
    code, found, others = drift(fleet, name)
    assert found == [
        ("arguments", "localhost.m.0", "delay"),
        ("environment", "localhost.m.0", "env.MORE"),
        ("environment", "localhost.m.0", "env.TOKEN"),
        ("image", "localhost.m.0", "image"),
        ("leftover", "localhost.m.1.next", "state"),
        ("mounts", "localhost.m.0", "mounts"),
        ("ports", "localhost.m.0", "ports"),
        ("registry", "localhost.m.0", "state"),
        ("registry", "localhost.m.1", "endpoint"),
        ("replica", "localhost.ghost.0", "state"),
        ("replica", "localhost.m.1", "state"),
        ("settings", "localhost.m.1", "memory"),
    ]
    assert (code, others) == (2, [f"{name}-of-others"])
    fleet.changed(fleet.play("deploy"))
    assert drift(fleet, name) == (0, [], [f"{name}-of-others"])
    assert docker("inspect", "--format", "{{.State.Status}}", f"{name}-of-others").strip() == "running"
