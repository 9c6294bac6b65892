"""A fleet of "hosts" and a proxy on this machine, each with a home and ports of its own, and a load on it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.chaos.client import Client
from tests.tools.ports import free_range

ROOT = Path(__file__).resolve().parents[2]
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=\d+", re.MULTILINE)
RATE = {"token_rate": 12}
SLOWER = {"token_rate": 10}
REPLICAS = {"n1.echo.0", "n1.echo.2", "n2.echo.1", "n2.echo.3"}


class RollingFleet:
    """Playbook runs over the fleet; ``home`` is short, for Unix sockets lie below it.

    From ``first_port`` on it has four ports for each host, and two more.
    """

    def __init__(self, home: Path, first_port: int, hosts: int = 2) -> None:
        self.home = home
        self.names = [f"n{at}" for at in range(1, hosts + 1)]
        self.inventory = home / "inv"
        self.state = self.inventory / ".modelyard"
        self.port = first_port + 4 * hosts + 1
        everyone = self.inventory / "group_vars" / "all"
        everyone.mkdir(parents=True)
        variables = {
            name: {"fleet_ports": f"{first_port + 4 * at}-{first_port + 4 * at + 3}"}
            for at, name in enumerate(self.names)
        }
        self.shared: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "fleet_runtime": "process",
            "fleet_proxy_service": "supervisor",
            "fleet_home": f"{home}/{{{{ inventory_hostname }}}}",
            "fleet_name": "rolling",
            "fleet_proxy_port": self.port,
        }
        # n2 is reached by something that looks like ssh, so that it can be lost on the way
        self.lost = home / "lost"
        ssh = home / "ssh"
        ssh.write_text(
            f'#!/bin/bash\n[ -e {self.lost} ] && {{ echo "ssh: No route to host" >&2; exit 255; }}\n'
            'exec /bin/sh -c "${@: -1}"\n',
            encoding="utf-8",
        )
        ssh.chmod(0o700)
        variables["n2"] |= {
            "ansible_connection": "ssh",
            "ansible_ssh_executable": str(ssh),
            "ansible_host": "127.0.0.1",
            "fleet_python": sys.executable,
        }
        self._children = {"engine_hosts": {"hosts": variables}, "proxy_hosts": {"hosts": {"p1": {}}}}

    def _write(self, name: str, content: Any) -> None:
        (self.inventory / name).write_text(json.dumps(content), encoding="utf-8")

    def wish(self, **more: Any) -> None:
        """One echo model with four replicas, and whatever else."""
        self._write("hosts.yml", {"all": {"vars": self.shared, "children": self._children}})
        model = {"id": "echo", "engine": "echo", "placement": {"replicas": 4, "gpus": 0}, **more}
        self._write("group_vars/all/models.yml", {"models": [model]})

    def play(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """One playbook run, its output kept."""
        tool = str(Path(sys.executable).with_name("ansible-playbook"))
        return subprocess.run(
            [tool, "-i", str(self.inventory), f"playbooks/{name}.yml", *more],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )

    def play_until(self, said: str, then: Callable[[], object]) -> str:
        """A deploy in whose midst, once it has said something, something happens; its whole output."""
        tool = str(Path(sys.executable).with_name("ansible-playbook"))
        with subprocess.Popen(
            [tool, "-i", str(self.inventory), "playbooks/deploy.yml"],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as run:
            assert run.stdout is not None
            lines = []
            for line in run.stdout:
                lines.append(line)
                if said in line:
                    then()
        assert run.returncode != 0
        return "".join(lines)

    def well(self, name: str, *more: str) -> str:
        """The output of a run that must have gone well."""
        done = self.play(name, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pids(self) -> dict[str, int]:
        """The process of each replica."""
        found = {}
        for host in self.names:
            for path in (self.home / host / "process").glob("*/pid"):
                found[path.parent.name] = int(path.read_text(encoding="ascii"))
        return found

    def registry(self) -> dict[str, str]:
        """What the proxy's registry says of each replica."""
        document = json.loads((self.home / "p1" / "endpoints.yml").read_text(encoding="utf-8"))
        return {
            one["id"]: one["state"] for model in document["models"].values() for one in model["endpoints"]
        }

    def ends(self) -> None:
        """Stop everything."""
        self.play("stop", "-e", "confirm=all", "-e", "stop_proxies=true")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RollingFleet]:
    """A fleet that serves the usual wish, for the tests of one module."""
    running = RollingFleet(tmp_path_factory.mktemp("r"), free_range(10)[0])
    running.wish(args=RATE)
    running.well("site")
    yield running
    running.ends()


def settled(fleet: RollingFleet) -> dict[str, int]:
    """The replicas' processes once the usual wish runs and is in use."""
    fleet.wish(args=RATE)
    fleet.well("deploy")
    assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
    return fleet.pids()


def changed(output: str) -> dict[str, int]:
    """Changed tasks by host, from a run's recap."""
    return {host: int(number) for host, number in RECAP.findall(output)}


class Load:
    """Clients that ask for one stream after the other, in a thread of its own; ``bad`` must stay empty."""

    def __init__(self, port: int, clients: int) -> None:
        self.tally: Counter[str] = Counter()
        self.bad: list[str] = []
        self._port = port
        self._clients = clients
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        serial = 0
        while not self._over.is_set():
            serial += 1
            body = {
                "model": "echo",
                "messages": [{"role": "user", "content": f"client {number} asks {serial}"}],
                "max_tokens": 12,
                "stream": True,
            }
            try:
                async with await Client.connect(self._port) as client:
                    await client.post("/v1/chat/completions", body)
                    answer = await client.rest()
            except OSError as error:
                self.bad.append(str(error))
                continue
            whole = answer.status == 200 and answer.whole and answer.body.endswith(b"data: [DONE]\n\n")
            self.tally["whole" if whole else "bad"] += 1
            if not whole:
                self.bad.append(f"{answer.told()}: {answer.body[-300:]!r}")
