"""Four containers that somebody started by hand: imported, deployed without a restart, served, and at last replaced."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts.owner import LABEL, Owner
from tests.parts import rootfs
from tests.parts.building import PARTS, ensure, say_on_stderr
from tests.parts.docker import docker
from tests.tools.ports import free_ports, free_range

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
RECAP = re.compile(r"changed=(\d+)")

# `vllm serve` to whoever looks at the process, and the smallest engine in truth
LAUNCHER = """#!/usr/bin/python3
import runpy, sys
sys.argv = ["tiny_engine.py", "8000"]
runpy.run_path("/opt/tiny_engine.py", run_name="__main__")
"""


class Machine:
    """A machine as somebody left it: containers of ``docker run``, and nothing of ours."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = f"adopt-{random.randrange(16**8):08x}"
        self.inventory = directory / "inventory"
        self.launcher = directory / "vllm"
        self.launcher.write_text(LAUNCHER)
        self.launcher.chmod(0o755)
        self.names: list[str] = []

    def start(self, name: str, port: int, model: str, *more: str, env: tuple[str, ...] = ()) -> str:
        """One container, as an operator would start it."""
        full = f"{self.mark}-{name}"
        docker(
            *[
                "run",
                "--detach",
                "--name",
                full,
                "--label",
                f"{LABEL}={Owner.current()}",
                "--restart",
                "always",
                "--init",
            ],
            *["--volume", f"{self.launcher}:/opt/bin/vllm:ro", "--publish", f"127.0.0.1:{port}:8000"],
            *["--volume", f"{ROOT}/tests/tools/tiny_engine.py:/opt/tiny_engine.py:ro"],
            *[part for one in env for part in ("--env", one)],
            *["--entrypoint", "/opt/bin/vllm", rootfs.BASE.tag, "serve", model, *more],
        )
        self.names.append(full)
        return full

    def state(self) -> dict[str, tuple[str, str, bool]]:
        """Id, moment of the start and whether it runs, of each container of the hand."""
        found = json.loads(docker("inspect", *self.names))
        return {
            item["Name"].lstrip("/"): (item["Id"], item["State"]["StartedAt"], item["State"]["Running"])
            for item in found
        }

    def ours(self) -> list[str]:
        """Names of the containers that Modelyard has started."""
        return docker(
            "ps", "--filter", f"label=modelyard.fleet={self.mark}", "--format", "{{.Names}}"
        ).split()

    def modelyard(self, *words: str) -> dict[str, Any]:
        done = self._run([sys.executable, "-m", "modelyard", *words, "--json"])
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def play(self, name: str, *more: str) -> str:
        """A playbook's output; it has to succeed."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory)]
        done = self._run([*command, f"playbooks/{name}.yml", *more])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        paths = f"{ROOT}/proxy:{ROOT}/collections"
        environment = {**os.environ, "PYTHONPATH": paths, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                       "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.directory / "ansible")}  # fmt: skip
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def models(self) -> list[dict[str, Any]]:
        """The inventory's models."""
        path = self.inventory / "group_vars" / "all" / "models.yml"
        return list(yaml.safe_load(path.read_text())["models"])

    def write_models(self, models: list[dict[str, Any]]) -> None:
        path = self.inventory / "group_vars" / "all" / "models.yml"
        path.write_text(yaml.safe_dump({"models": models}))

    def ask(self, url: str, model: str) -> str:
        """One answer through the proxy."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"])


@pytest.fixture
def machine() -> Iterator[Machine]:
    if not PARTS["base"].is_built():
        ensure(["base"], say_on_stderr)
    # sockets lie below it, and a socket's path may have 107 bytes
    directory = tempfile.TemporaryDirectory(prefix="m")
    Path(directory.name).chmod(0o755)
    found = Machine(Path(directory.name))
    try:
        yield found
    finally:
        if found.inventory.exists():
            found._run([str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(found.inventory),
                        "playbooks/stop.yml", "-e", "stop_proxies=true", "-e", "confirm=all"])  # fmt: skip
        left = docker("ps", "-aq", "--filter", f"name={found.mark}").split()
        if left:
            docker("rm", "--force", *left)
        if docker("images", "--quiet", f"{found.mark}-image"):
            docker("rmi", f"{found.mark}-image")
        directory.cleanup()


def test_hand_started_containers_are_adopted_and_later_replaced(machine: Machine) -> None:
    ports = free_ports(5)
    weights = machine.directory / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    machine.start("big-0", ports[0], "/weights", "--served-model-name", "big", "--max-model-len", "512",
                  env=("GREETING=hand",))  # fmt: skip
    machine.start("big-1", ports[1], "/weights", "--served-model-name", "big", "--max-model-len", "512",
                  env=("GREETING=hand",))  # fmt: skip
    machine.start("small", ports[2], "org/small", env=("GREETING=small", "HF_TOKEN=hf_0123456789abcdefghij"))
    machine.start("other", ports[3], "org/other", "--enforce-eager", env=("GREETING=other",))
    before = machine.state()

    inspected = machine.directory / "containers.json"
    inspected.write_text(docker("inspect", *machine.names))
    report = machine.modelyard("import", "docker", str(inspected), "-o", str(machine.inventory), "--host", "here",
                               "--address", "127.0.0.1")  # fmt: skip
    assert sorted(report["adopted"]) == sorted(machine.names)
    first, last = free_range(8)
    fleet = {"fleet_name": machine.mark, "fleet_home": str(machine.directory / "home"), "fleet_ports": f"{first}-{last}",
             "fleet_proxy_port": ports[4], "fleet_proxy_service": "supervisor", "ansible_connection": "local",
             "ansible_become": False, "ansible_python_interpreter": sys.executable,
             "fleet_container_ulimits": {}}  # fmt: skip
    (machine.inventory / "group_vars" / "all" / "fleet.yml").write_text(yaml.safe_dump(fleet))
    url = f"http://127.0.0.1:{ports[4]}"

    assert machine.modelyard("plan", "-i", str(machine.inventory))["counts"]["keep"] == 4
    machine.play("site")
    assert machine.state() == before
    assert machine.ours() == []
    for name, greeting in (("big", "hand"), ("small", "small"), ("org/small", "small"), ("other", "other")):
        assert greeting in machine.ask(url, name)
    changed = RECAP.findall(machine.play("deploy"))
    assert changed == ["0"]
    rows = {
        row["replica"]: row for row in machine.modelyard("status", "-i", str(machine.inventory))["replicas"]
    }
    assert {row["state"] for row in rows.values()} == {"up"}
    assert rows["here.big.1"]["reason"] == f"adopted: container {machine.mark}-big-1"

    # a changed wish ends the adoption of that model alone
    models = machine.models()
    big = next(model for model in models if model["id"] == "big")
    big["args"]["max_model_len"] = 1024
    big["source"] = {"path": str(weights)}
    big["env"] = {"GREETING": "ours"}
    # what the hand has mounted has to come from an image, or here from another model file
    big["image"] = engine_image(machine)
    machine.write_models(models)
    assert machine.modelyard("plan", "-i", str(machine.inventory))["counts"] == {
        "start": 0, "stop": 0, "replace": 2, "keep": 2, "unknown": 0,
    }  # fmt: skip
    machine.play("deploy")
    after = machine.state()
    for name, (identity, started, runs) in before.items():
        kept = "big" not in name
        assert after[name] == (identity, started, runs and kept)
    assert sorted(machine.ours()) == [f"{machine.mark}-here.big.{number}" for number in (0, 1)]
    assert "ours" in machine.ask(url, "big")
    assert RECAP.findall(machine.play("deploy")) == ["0"]


def engine_image(machine: Machine) -> str:
    """The same engine with its program inside: a replica of ours has no mounts of the hand."""
    name = f"{machine.mark}-image"
    docker("create", "--name", name, rootfs.BASE.tag, "true")
    docker("cp", str(machine.launcher), f"{name}:/usr/local/bin/vllm")
    docker("cp", str(ROOT / "tests" / "tools" / "tiny_engine.py"), f"{name}:/opt/tiny_engine.py")
    docker(
        "commit", "--change", 'ENTRYPOINT ["/usr/local/bin/vllm", "serve"]', "--change", "CMD []", name, name
    )
    docker("rm", name)
    return name
