"""Bring the replicas of this host that are supervised processes to what is wished, in the terms of containers."""

from __future__ import annotations

import time
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import programs as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.launch import process_program
from ansible_collections.modelyard.fleet.plugins.module_utils.sizes import size_bytes
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import (
    Program,
    Supervisor,
    SupervisorError,
    program_pid,
)

Result = dict[str, Any]

_ACTIONS = {"restart": "replace"}


@dataclass(frozen=True)
class Processes:
    """The processes of one home. ``executable`` is the supervisord to start, ``python`` what launches programs."""

    supervisor: Supervisor
    executable: str
    python: str
    check: bool
    stop_timeout_s: int
    restart: frozenset[str] = frozenset()
    clock: Callable[[], float] = time.monotonic

    def stop(self, names: Sequence[str]) -> list[Result]:
        """Stop replicas and remove all that is theirs."""
        home = self.supervisor.home
        there = [name for name in names if lib.exists(home, name)]
        idle = not there and lib.idle_supervisor(home)
        steps = []
        for name in names:
            if name in there or idle:
                why = "is no longer wanted here" if name in there else "is gone, and its supervisor with it"
                steps.append(lib.Step(name, "stop", why))
            else:
                steps.append(lib.Step(name, "keep", "is not there"))
        return self._do(steps, lambda: lib.apply_absent(self.supervisor, there, self.stop_timeout_s))

    def apply(
        self, assignments: Sequence[Mapping[str, Any]], keep_previous: bool
    ) -> tuple[list[Result], list[str]]:
        """Start and replace what is not as wished. Gives the results and what had to be cleaned up."""
        if not assignments:
            return [], []
        supervisor = self.supervisor
        supervisor.home.check()
        wished = [program(one) for one in assignments]
        before = lib.states(supervisor, supervisor.running())
        steps = [lib.decide(supervisor.home, one, self.python, before.get(one.name)) for one in wished]
        steps = [
            replace(step, action="restart", reason="a restart is asked for")
            if step.action == "keep" and step.name in self.restart
            else step
            for step in steps
        ]
        found = {one.name: lib.differences(supervisor.home, one, self.python) for one in wished}
        notes: list[str] = []

        def act() -> dict[str, str]:
            said, errors = lib.apply_present(
                supervisor, self.executable, self.python, wished, steps, keep_previous
            )
            notes.extend(said)
            return errors

        return self._do(steps, act, found), notes

    def put_back(self, names: Sequence[str]) -> list[Result]:
        """Launch again what was kept."""
        steps = [
            lib.Step(name, "put_back", "what it was launched with before takes its place again")
            if lib.kept(self.supervisor.home, name).exists()
            else lib.Step(name, "keep", "nothing was kept that could be put back")
            for name in names
        ]
        back = [step.name for step in steps if step.action != "keep"]
        return self._do(
            steps, lambda: lib.put_back(self.supervisor, self.executable, back, self.stop_timeout_s)
        )

    def confirm(self, names: Sequence[str]) -> list[Result]:
        """Make replacements final."""
        home = self.supervisor.home
        running = lib.states(self.supervisor, bool(names) and self.supervisor.running())
        steps = []
        for name in names:
            if not lib.kept(home, name).exists():
                steps.append(lib.Step(name, "keep", "nothing was kept"))
            elif running.get(name) not in lib.RUNNING:
                steps.append(lib.Step(name, "keep", "does not run, so what was kept stays"))
            else:
                steps.append(lib.Step(name, "discard", "what was kept is no longer needed"))

        def act() -> dict[str, str]:
            for step in steps:
                if step.action == "discard":
                    lib.confirm(home, step.name)
            return {}

        return self._do(steps, act)

    def _do(
        self,
        steps: Sequence[lib.Step],
        act: Callable[[], dict[str, str]],
        found: Mapping[str, list[dict[str, Any]]] | None = None,
    ) -> list[Result]:
        errors: dict[str, str] = {}
        begun = self.clock()
        changing = [step.name for step in steps if step.action != "keep"]
        if changing and not self.check:
            try:
                errors = act()
            except (SupervisorError, OSError, xmlrpc.client.Error) as error:
                errors = dict.fromkeys(changing, str(error))
        took_s = self.clock() - begun
        return [
            {
                "replica": step.name,
                "runtime": "process",
                "action": _ACTIONS.get(step.action, step.action),
                "reason": step.reason,
                "changed": step.action != "keep",
                "differences": (found or {}).get(step.name, []),
                "image_id": None,
                "pid": program_pid(self.supervisor.home, step.name),
                "notes": [],
                "error": errors.get(step.name, ""),
                "took_s": round(took_s if step.action != "keep" else 0.0, 3),
            }
            for step in steps
        ]


def program(assignment: Mapping[str, Any]) -> Program:
    """The program of one assignment. Raises ``KeyError``, ``ValueError`` or ``SupervisorError``."""
    item = process_program(dict(assignment))
    if not item["command"]:
        raise SupervisorError(f"{item['name']} has no command")
    return Program(
        name=item["name"],
        command=tuple(item["command"]),
        environment=item["environment"],
        directory=None,
        hash=item["hash"],
        spec=item["spec"],
        stop_timeout_s=item["stop_timeout_s"],
        log_bytes=size_bytes(item["log_max_size"]),
        log_files=item["log_max_files"],
    )
