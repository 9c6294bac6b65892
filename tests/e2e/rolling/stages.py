"""Two fleets for runs that are killed, one of each runtime: what is changed there, and what runs afterwards."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from typing import Any, Protocol

import yaml

from tests.e2e.rolling.conftest import MODEL
from tests.e2e.site import Begun, Run, Site, begin
from tests.integration.test_local_fleet import Fleet

_MARK = re.compile(rb"(?:^|\0)SUPERVISED_PROGRAM=([^\0]*)/([^/\0]+)(?:\0|$)")


class Stage(Protocol):
    """A fleet of `size` replicas whose argument `change` gives another value."""

    name: str
    size: int

    def change(self) -> None:
        """Wish for another value of an engine argument, in the inventory."""

    def begin(self, verb: str) -> Begun:
        """Start a playbook."""

    def running(self) -> list[tuple[str, str]]:
        """Replica and ``host:port`` of everything that runs as a replica; one that is there twice comes twice."""

    def lacks(self) -> list[str]:
        """In which ways what is there is not as it is wished."""

    def actions(self) -> set[str]:
        """What the plan says is to be done now."""


class Containers:
    """The room's site. The change goes over all hosts in one step, so that a run is short."""

    name = "docker"
    size = 6

    def __init__(self, site: Site) -> None:
        self._site = site

    def change(self) -> None:
        """Another `max_model_len`."""
        models = copy.deepcopy(self._site.models)
        models[MODEL]["args"]["max_model_len"] -= 1
        models[MODEL]["rollout"] |= {"min_ready": 0, "canary": 0, "step": 6}
        self._site.wish(models)

    def begin(self, verb: str) -> Begun:
        """Start a playbook."""
        return self._site.begin(verb)

    def running(self) -> list[tuple[str, str]]:
        """From the hosts' own engines."""
        found = []
        for host in self._site.hosts:
            for container in host.containers(running=True):
                replica = container["Config"]["Labels"].get("modelyard.replica", container["Name"])
                ports = [
                    one["HostPort"]
                    for each in container["HostConfig"]["PortBindings"].values()
                    for one in each
                ]
                found.append((replica, f"{host.name}:{','.join(ports)}"))
        return found

    def lacks(self) -> list[str]:
        """Other arguments, containers that are left or do not run."""
        wanted = str(self._site.models[MODEL]["args"]["max_model_len"])
        said = []
        for host in self._site.hosts:
            for container in host.containers():
                if wanted not in container["Config"]["Cmd"] or not container["State"]["Running"]:
                    said.append(f"{host.name}: {container['Name']} {container['State']['Status']}")
        return said

    def actions(self) -> set[str]:
        """From the plan's own JSON."""
        return {action for action, _ in self._site.changes().values()}


class Processes:
    """A copy of the local inventory: two supervised replicas on this machine."""

    name = "process"
    size = 2

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._runs: list[Run] = []
        self._model_file = fleet.inventory / "group_vars" / "all" / "models.yml"
        self._wish: dict[str, Any] = yaml.safe_load(self._model_file.read_text())
        self._length = 4096

    def change(self) -> None:
        """Another `max_model_len`."""
        self._length -= 1
        self._wish["models"][0]["args"] = {"max_model_len": self._length}
        self._model_file.write_text(yaml.safe_dump(self._wish))

    def begin(self, verb: str) -> Begun:
        """Start a playbook."""
        result = self._fleet.home / "result.json"
        log = self._fleet.home / f"run-{len(self._runs)}.log"
        more = json.dumps({"modelyard_result_file": str(result)})
        return begin(verb, self._fleet.inventory, log, self._runs, "-e", more)

    def running(self) -> list[tuple[str, str]]:
        """From the processes of this machine that carry the supervisor's mark."""
        return [(replica, f"localhost:{_port(line)}") for replica, line in self._processes()]

    def lacks(self) -> list[str]:
        """Other arguments."""
        wanted = f"--max-model-len {self._length}"
        return [f"{replica}: {line}" for replica, line in self._processes() if wanted not in line]

    def actions(self) -> set[str]:
        """From the plan's own JSON."""
        run = self.begin("plan").wait(120)
        assert run.status == 0, str(run)
        plan = json.loads((self._fleet.home / "result.json").read_text())
        return {change["action"] for change in plan["changes"]}

    def _processes(self) -> list[tuple[str, str]]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                mark = _MARK.search((entry / "environ").read_bytes())
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it ended while we looked
                continue
            if mark and os.fsdecode(mark[1]) == str(self._fleet.home / "home" / "process"):
                found.append((os.fsdecode(mark[2]), line))
        return found


def _port(line: str) -> str:
    found = re.search(r"--port (\d+)", line)
    return found[1] if found else "?"
