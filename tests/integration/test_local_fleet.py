"""The main job on this machine, as `make up` does it: playbooks, processes, proxy, an answer.

Everything runs for real, with directories and ports of its own, so that it can run beside a `make up`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tools.ports import free_ports, free_range

ROOT = Path(__file__).resolve().parents[2]
SECRET = "correct-horse-battery"
RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=\d+")


@dataclass
class Fleet:
    """A private copy of the local inventory, and how to run playbooks over it."""

    home: Path
    inventory: Path
    port: int
    ports: tuple[int, int]

    def play(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """One playbook run, its output kept."""
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory),
            f"playbooks/{name}.yml", *more,
        ]  # fmt: skip
        environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        return subprocess.run(
            command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=240, check=False
        )

    def changed(self, result: subprocess.CompletedProcess[str]) -> int:
        """Changed tasks of a run that must have gone well."""
        assert result.returncode == 0, result.stdout + result.stderr
        recaps = [match for line in result.stdout.splitlines() if (match := RECAP.match(line))]
        assert recaps, result.stdout
        return sum(int(match["changed"]) for match in recaps)

    def changed_tasks(self, result: subprocess.CompletedProcess[str]) -> list[str]:
        """Names of the changed tasks of a run that must have gone well, in order."""
        self.changed(result)
        names, task = [], ""
        for line in result.stdout.splitlines():
            if line.startswith("TASK ["):
                task = line[6:].rpartition("]")[0]
            elif line.startswith("changed: "):
                names.append(task)
        return names

    def kill_supervisors(self) -> None:
        """End both supervisors of this fleet at once; their programs live on."""
        for folder in ("supervisor", "proxy/supervisor"):
            os.kill(int((self.home / "home" / folder / "supervisord.pid").read_text(encoding="utf-8")), 9)

    def get(self, path: str) -> tuple[int, Any]:
        """One GET at the proxy."""
        return self._ask(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """One JSON POST at the proxy."""
        return self._ask(
            urllib.request.Request(
                f"http://127.0.0.1:{self.port}{path}",
                data=json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
        )

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, json.load(answer)

    def listening(self) -> list[int]:
        """Which of the fleet's ports somebody listens on."""
        found = []
        for port in (self.port, *range(self.ports[0], self.ports[1] + 1)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    found.append(port)
        return found

    def processes(self) -> list[str]:
        """Command lines of processes that name this fleet's directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:  # it ended while we looked
                    continue
                if str(self.home) in line:
                    found.append(f"{entry.name} {line}")
        return found


@contextmanager
def local_fleet(home: Path) -> Iterator[Fleet]:
    """A copy of the local inventory below ``home``, with ports of its own; what was started is stopped at the end."""
    inventory = home / "inventory"
    source = ROOT / "inventories" / "local"
    for path in source.rglob("*.yml"):
        copy = inventory / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (port,) = free_ports(1)
    ports = free_range(8)
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars" / "localhost.yml").write_text(
        json.dumps(
            {
                "fleet_home": str(home / "home"),
                "fleet_ports": f"{ports[0]}-{ports[1]}",
                "fleet_proxy_port": port,
            }
        ),
        encoding="utf-8",
    )
    running = Fleet(home, inventory, port, ports)
    try:
        yield running
    finally:
        running.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true")
    left = running.processes()
    assert not left, left


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with local_fleet(tmp_path_factory.mktemp("f")) as fleet:
        yield fleet


@pytest.mark.timeout(600)
def test_the_life_of_a_local_fleet(fleet: Fleet) -> None:
    # check mode on a machine where nothing is there yet
    predicted = fleet.changed_tasks(fleet.play("site", "--check", "--diff"))
    assert not fleet.listening()
    assert predicted

    assert fleet.changed_tasks(fleet.play("site")) == predicted
    assert len(fleet.listening()) == 3

    # the generation backend's documented requests
    status, models = fleet.get("/models")
    assert status == 200
    assert [set(model) >= {"id", "name", "hf_name", "endpoint", "available"} for model in models] == [True]
    assert models[0]["available"] is True
    assert fleet.get("/models/gpt-2/health")[1]["status"] == "available"
    status, answer = fleet.post(
        "/generate",
        {
            "model_id": "gpt-2", "prompt": "Once upon a time", "max_new_tokens": 20,
            "temperature": 0.7, "top_p": 0.95, "repetition_penalty": 1.0,
        },
    )  # fmt: skip
    assert status == 200
    assert answer["generated_text"]
    assert answer["model_id"] == "gpt-2"

    # a second run changes nothing, and says so beforehand
    before = sorted(fleet.processes())
    assert fleet.changed(fleet.play("site", "--check", "--diff")) == 0
    again = fleet.play("site")
    assert fleet.changed(again) == 0
    assert "2 replicas answered when they were compared with the wish" in " ".join(again.stdout.split())
    assert sorted(fleet.processes()) == before

    # a changed argument replaces the replicas, and the plan says so first
    models_file = fleet.inventory / "group_vars" / "all" / "models.yml"
    original = models_file.read_text(encoding="utf-8")
    changed = original.replace("    engine: echo\n", "    engine: echo\n    args: {ttft: 0.01}\n")
    models_file.write_text(changed, "utf-8")
    result_file = fleet.home / "plan.json"
    fleet.changed(fleet.play("plan", "-e", json.dumps({"modelyard_result_file": str(result_file)})))
    plan = json.loads(result_file.read_text(encoding="utf-8"))
    assert [change["action"] for change in plan["changes"]] == ["replace", "replace"]
    assert all("ttft" in change["reason"] for change in plan["changes"])
    assert fleet.changed(fleet.play("deploy")) > 0
    assert fleet.post("/generate", {"model_id": "echo", "prompt": "again"})[0] == 200

    # nothing is stopped by a slip of the hand
    for slip, said in (("model=ecko", "did you mean echo?"), ("model=", "Say what to stop")):
        refused = fleet.play("stop", "-e", slip)
        assert refused.returncode != 0
        assert said in refused.stdout
    assert len(fleet.listening()) == 3

    # one model is stopped and no other thing
    fleet.changed(fleet.play("stop", "-e", "model=echo"))
    assert fleet.listening() == [fleet.port]
    assert fleet.get("/live")[0] == 200

    # everything is stopped
    fleet.changed(fleet.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true"))
    assert not fleet.listening()
    assert not fleet.processes()


@pytest.mark.timeout(600)
def test_what_is_broken_heals_and_keeps_its_secrets(fleet: Fleet) -> None:
    models_file = fleet.inventory / "group_vars" / "all" / "models.yml"
    original = models_file.read_text(encoding="utf-8")
    secret = original.replace("    engine: echo\n", f"    engine: echo\n    env: {{TOKEN: {SECRET}}}\n")
    models_file.write_text(secret, "utf-8")
    assert fleet.changed(fleet.play("site")) > 0
    ports = fleet.listening()

    # supervisors die, their programs live on: the plan says so, the run puts all back where it was
    fleet.kill_supervisors()
    assert fleet.listening() == ports
    predicted = fleet.changed_tasks(fleet.play("site", "--check"))
    run = fleet.play("site")
    assert fleet.changed_tasks(run) == predicted
    assert "2 to replace" in run.stdout
    assert "it has outlived its supervisor" in run.stdout
    assert fleet.listening() == ports
    launched = sorted((fleet.home / "home" / "process").glob("*/launch.json"))
    assert [json.loads(path.read_text(encoding="utf-8"))["environment"] for path in launched] == [
        {"TOKEN": SECRET}
    ] * 2
    assert SECRET not in run.stdout
    assert fleet.changed(fleet.play("site")) == 0

    # a registry that is lost, and other aliases: the proxy takes the new one, for its generation goes on
    registry = fleet.home / "home" / "endpoints.yml"
    generation = json.loads(registry.read_text(encoding="utf-8"))["generation"]
    registry.unlink()
    models_file.write_text(secret.replace("gpt-2", "gpt-9"), "utf-8")
    before = sorted(fleet.processes())
    fleet.changed(fleet.play("deploy"))
    assert sorted(fleet.processes()) == before, "aliases restart nothing"
    assert json.loads(registry.read_text(encoding="utf-8"))["generation"] >= generation
    deadline = time.monotonic() + 20
    while fleet.get("/models/gpt-9/health")[0] != 200:
        assert time.monotonic() < deadline, "the proxy does not take the registry"
        time.sleep(0.1)

    # another port, which somebody has: the proxy stays where it is, and the message says what to change
    settings = fleet.inventory / "host_vars" / "localhost.yml"
    kept = settings.read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = json.loads(kept) | {"fleet_proxy_port": stranger.getsockname()[1]}
        settings.write_text(json.dumps(taken), "utf-8")
        refused = fleet.play("site")
    settings.write_text(kept, "utf-8")
    assert refused.returncode != 0
    assert "is taken by another program" in refused.stdout + refused.stderr
    assert fleet.get("/live")[0] == 200
