"""A site under test: an inventory, the playbooks run over it, and what its hosts say about the result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai import OpenAI

from tests.bench.processes import tree
from tests.hosts.inventories import write_inventory, write_models
from tests.hosts.machine import Host

REPOSITORY = Path(__file__).parents[2]
PROXY_PORT = 8000
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One run of a playbook: what was called, how it ended and what it printed."""

    command: str
    status: int
    output: str

    def __str__(self) -> str:
        return f"$ {self.command}\n(status {self.status})\n{self.output[-8000:]}"

    def changed(self) -> dict[str, int]:
        """Host -> how many tasks changed something, from the recap."""
        return {host: int(changed) for host, changed, _, _ in _RECAP.findall(self.output)}


@dataclass(frozen=True)
class Begun:
    """A run of a playbook that goes on."""

    verb: str
    command: str
    process: subprocess.Popen[bytes]
    log: Path
    runs: list[Run]

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL to all of its processes, as when its machine dies: nothing of it gets to clean up.

        Its workers have sessions of their own, so the process group alone would leave them.
        """
        if self.process.poll() is None:
            for pid in tree(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(30)

    def wait(self, timeout: float = 900) -> Run:
        """Wait until it ends, well or not, and add it to the site's runs; one that takes longer is killed."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(
                f"{self.verb}.yml ran longer than {timeout:.0f} s:\n{self.output()[-8000:]}"
            ) from error
        finally:
            if self.process.poll() is None:
                self.kill()
        run = Run(self.command, status, self.output())
        self.runs.append(run)
        return run


def begin(verb: str, inventory: Path, log: Path, runs: list[Run], *more: str) -> Begun:
    """Start ``playbooks/VERB.yml`` over an inventory; what it prints goes to `log`, how it ends to `runs`."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory)]
    command += [f"playbooks/{verb}.yml", *more]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Begun(verb, " ".join(command), process, log, runs)


@dataclass
class Site:
    """Hosts, the models wished for, and the directory of the inventory that says so.

    The first of `hosts` runs the proxy, all run engines.
    """

    directory: Path
    fleet: Mapping[str, Any]
    hosts: list[Host]
    models: dict[str, dict[str, Any]]
    runs: list[Run] = field(default_factory=list)

    @property
    def inventory(self) -> Path:
        """The inventory's directory."""
        return self.directory / "inventory"

    @property
    def proxy(self) -> str:
        """The base URL of the proxy."""
        return f"http://{self.hosts[0].address}:{PROXY_PORT}"

    def write(self) -> None:
        """Write the inventory anew from hosts, models and fleet settings."""
        groups = {"engine_hosts": self.hosts, "proxy_hosts": self.hosts[:1]}
        write_inventory(self.inventory, groups, list(self.models.values()), self.fleet)

    def wish(self, models: dict[str, dict[str, Any]]) -> None:
        """Change which models are wished for, as an operator would: in the inventory, nothing else."""
        self.models = models
        write_models(self.inventory, list(models.values()))

    def play(self, verb: str, timeout: float = 900, *, check: bool = False, **variables: Any) -> Run:
        """Run ``playbooks/VERB.yml`` over the inventory, with these extra variables; it must end well.

        `check`: with ``--check --diff``.
        """
        run, _ = self._run(verb, timeout, check=check, **variables)
        return run

    def play_badly(self, verb: str, timeout: float = 300) -> Run:
        """Run ``playbooks/VERB.yml``; it must end with an error."""
        run = self.begin(verb).wait(timeout)
        assert run.status != 0, f"{verb}.yml did not fail"
        return run

    def ask(self, verb: str, timeout: float = 300) -> dict[str, Any]:
        """Run ``playbooks/VERB.yml`` and return the JSON that it writes for programs."""
        _, result = self._run(verb, timeout)
        return result

    def changes(self) -> dict[str, tuple[str, str]]:
        """What a deployment would do now: replica -> (action, reason)."""
        return {
            change["replica"]: (change["action"], str(change.get("reason", "")))
            for change in self.ask("plan")["changes"]
        }

    def states(self) -> dict[str, str]:
        """What `status` says now: replica -> up, down or unknown."""
        return {replica["replica"]: replica["state"] for replica in self.ask("status")["replicas"]}

    def containers(self, *, running: bool = False) -> dict[str, dict[str, Any]]:
        """Replica -> what the engine of its host says about its container."""
        found = {}
        for host in self.hosts:
            for container in host.containers(running=running):
                replica = container["Config"]["Labels"].get("modelyard.replica")
                if replica is not None:
                    found[replica] = container
        return found

    def identities(self, replicas: Iterable[str] | None = None) -> dict[str, str]:
        """Replica -> id and start of its container: the same as long as nobody replaced or restarted it."""
        found = self.containers()
        wanted = found if replicas is None else replicas
        return {name: f"{found[name]['Id'][:12]} {found[name]['State']['StartedAt']}" for name in wanted}

    def replicas(self, model: str) -> list[str]:
        """The replicas of `model` that have a container, sorted."""
        return sorted(
            name
            for name, container in self.containers().items()
            if container["Config"]["Labels"]["modelyard.model"] == model
        )

    def kill(self, replica: str) -> None:
        """`docker kill` a replica's container and wait until it is dead."""
        identity = self.containers()[replica]["Id"]
        host = next(host for host in self.hosts if replica.startswith(f"{host.name}."))
        end = time.monotonic() + 240
        while self.containers()[replica]["State"]["Running"]:
            assert time.monotonic() < end, f"{replica} runs on after docker kill"
            killed = host.ssh(f"sudo docker kill {identity}")
            # A large process that has been killed is a zombie while the kernel takes its memory back; Docker
            # complains when that takes long, and may have to be told again.
            gone = killed.returncode == 0 or "is zombie" in killed.stderr or "is not running" in killed.stderr
            assert gone, killed.stderr
            time.sleep(1)

    def client(self) -> OpenAI:
        """A client of the proxy that hides nothing: it does not retry by itself."""
        return OpenAI(base_url=f"{self.proxy}/v1", api_key="none", max_retries=0, timeout=120)

    def describe(self) -> str:
        """What is known when something went wrong: the last run, the hosts' containers, the proxy's log."""
        words = [str(self.runs[-1])] if self.runs else []
        for host in self.hosts:
            seen = host.ssh("sudo docker ps --all --no-trunc --format '{{.Names}} {{.Status}} {{.Command}}'")
            words.append(f"--- containers on {host.name}\n{seen.stdout}{seen.stderr}")
        log = self.hosts[0].ssh("sudo journalctl --no-pager --lines 40 --unit 'modelyard*'")
        words.append(f"--- proxy on {self.hosts[0].name}\n{log.stdout}{log.stderr}")
        return "\n".join(words)

    def begin(self, verb: str, *, check: bool = False, **variables: Any) -> Begun:
        """Start ``playbooks/VERB.yml`` over the inventory and do not wait for it."""
        result = self.directory / "result.json"
        result.unlink(missing_ok=True)
        more = json.dumps({"modelyard_result_file": str(result), **variables})
        log = self.directory / f"run-{len(self.runs)}.log"
        looking = ("--check", "--diff") if check else ()
        return begin(verb, self.inventory, log, self.runs, "-e", more, *looking)

    def _run(
        self, verb: str, timeout: float, *, check: bool = False, **variables: Any
    ) -> tuple[Run, dict[str, Any]]:
        run = self.begin(verb, check=check, **variables).wait(timeout)
        assert run.status == 0, f"{verb}.yml failed"
        result = self.directory / "result.json"
        return run, json.loads(result.read_text()) if result.exists() else {}
