"""Bring the programs of one supervisord to what is wished, and nothing else."""

from __future__ import annotations

import json
import shutil
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.launch import changed_fields
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import (
    Home,
    Program,
    Supervisor,
    SupervisorError,
    launch_document,
    program_configuration,
    program_pid,
    read_text,
    spec_document,
    write_text,
)

RUNNING = ("RUNNING", "STARTING")


@dataclass(frozen=True)
class Step:
    """What happens to one program: ``keep``, ``start``, ``restart`` or ``stop``, and why."""

    name: str
    action: str
    reason: str


def decide(home: Home, program: Program, python: str, state: str | None) -> Step:
    """Compare one wished program with what lies and runs there; reads only.

    ``state`` is supervisord's word for it, None when it has no such program or does not run.
    """
    folder = home.program_folder(program.name)
    recorded = read_text(folder / "spec.json")
    if recorded is None:
        return Step(program.name, "start", "is not there yet")
    differs = [
        text
        for path, wanted, text in (
            (
                folder / "spec.json",
                spec_document(program),
                changed_fields(recorded, program.spec),
            ),
            (folder / "launch.json", launch_document(program), "its command or environment changed"),
            (
                home.program_file(program.name),
                program_configuration(home, program, python),
                "its limits changed",
            ),
        )
        if read_text(path) != wanted
    ]
    if differs:
        return Step(program.name, "restart" if state in RUNNING else "start", differs[0])
    if state not in RUNNING:
        return Step(program.name, "start", f"was {(state or 'not running').lower()}")
    return Step(program.name, "keep", "runs as wished")


def states(supervisor: Supervisor, running: bool) -> dict[str, str]:
    """The supervisord's state of each of its programs; empty when it does not run."""
    return {name: info["statename"] for name, info in supervisor.processes().items()} if running else {}


def _forget(supervisor: Supervisor, name: str, timeout_s: float) -> None:
    """Stop a program and take it out of supervisord's memory; fine when it is not there."""
    for method, arguments in (("stopProcess", (name, True)), ("removeProcessGroup", (name,))):
        try:
            supervisor.call(method, *arguments, timeout_s=timeout_s)
        except xmlrpc.client.Fault as fault:
            # 10 BAD_NAME, 70 NOT_RUNNING: just what we want
            if fault.faultCode not in (10, 70):
                raise SupervisorError(f"{name}: {fault.faultString}") from fault


def apply_present(
    supervisor: Supervisor, executable: str, python: str, programs: list[Program], steps: list[Step]
) -> list[str]:
    """Carry out the steps. Returns sentences about what had to be cleaned up first."""
    home = supervisor.home
    notes: list[str] = []
    todo = {step.name for step in steps if step.action != "keep"}
    running = supervisor.running()
    supervisor.write_main_files()
    if not running:
        for program in programs:
            pid = supervisor.end_orphan(program.name, program.stop_timeout_s)
            if pid is not None:
                notes.append(f"{program.name}: ended process {pid}, which had outlived its supervisord")
    for program in programs:
        if program.name not in todo:
            continue
        folder = home.program_folder(program.name)
        if running:
            _forget(supervisor, program.name, program.stop_timeout_s + 30)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        write_text(folder / "launch.json", launch_document(program), 0o600)
        write_text(home.program_file(program.name), program_configuration(home, program, python), 0o600)
        # last: what is recorded here counts as done
        write_text(folder / "spec.json", spec_document(program), 0o600)
    if not running:
        supervisor.start(executable)
        return notes
    supervisor.call("reloadConfig")
    for program in programs:
        if program.name in todo:
            try:
                supervisor.call("addProcessGroup", program.name)
            except xmlrpc.client.Fault as fault:
                raise SupervisorError(f"{program.name} was not accepted: {fault.faultString}") from fault
    return notes


def exists(home: Home, name: str) -> bool:
    """Whether anything of a program is left."""
    return home.program_file(name).exists() or home.program_folder(name).exists()


def apply_absent(supervisor: Supervisor, names: list[str], stop_timeout_s: int) -> None:
    """Stop the programs and remove all that is theirs; the last one takes supervisord along."""
    home = supervisor.home
    running = supervisor.running()
    for name in names:
        if running:
            _forget(supervisor, name, stop_timeout_s + 30)
        supervisor.end_orphan(name, stop_timeout_s)
        home.program_file(name).unlink(missing_ok=True)
        if home.program_folder(name).exists():
            shutil.rmtree(home.program_folder(name))
    if running:
        supervisor.call("reloadConfig")
    left = list((home.folder / "conf.d").glob("*.conf")) if home.folder.exists() else []
    if left:
        return
    if running:
        supervisor.shut_down(stop_timeout_s + 30)
    if home.folder.exists():
        shutil.rmtree(home.folder)
    processes = home.root / "process"
    if processes.exists() and not any(processes.iterdir()):
        processes.rmdir()


def idle_supervisor(home: Home) -> bool:
    """Whether a supervisord directory is left without any program."""
    return home.folder.exists() and not list((home.folder / "conf.d").glob("*.conf"))


def diff_of(home: Home, program: Program) -> dict[str, str]:
    """What ``--diff`` shows: the redacted spec before and after."""
    path = home.program_folder(program.name) / "spec.json"
    return {
        "before": read_text(path) or "",
        "after": spec_document(program),
        "before_header": str(path),
        "after_header": str(path),
    }


def recorded_spec(home: Home, name: str) -> dict[str, Any]:
    """The spec that a program was last given; empty when none can be read."""
    try:
        spec = json.loads(read_text(home.program_folder(name) / "spec.json") or "{}")["spec"]
    except (ValueError, KeyError, TypeError):
        return {}
    return spec if isinstance(spec, dict) else {}


def report(home: Home, steps: list[Step], after: dict[str, str]) -> list[dict[str, Any]]:
    """The module's result, one entry per program."""
    return [
        {
            "name": step.name,
            "action": step.action,
            "reason": step.reason,
            "state": after.get(step.name),
            "pid": program_pid(home, step.name),
            "recorded": recorded_spec(home, step.name),
        }
        for step in steps
    ]


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, at most the last 64 KiB of it."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(handle.tell() - 65536, 0))
            return handle.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []
