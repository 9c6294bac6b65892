"""Bring the programs of one supervisord to what is wished, and nothing else."""

from __future__ import annotations

import json
import shutil
import time
import xmlrpc.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.launch import changed_fields
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.changes import flatten
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
# what supervisord answers: BAD_NAME and NOT_RUNNING; and that it cannot give up a program that has not ended
_NOTHING_THERE = (10, 70)
_STILL_RUNNING = 91
STOP_SLACK_S = 30
"""Seconds beyond its grace that supervisord has to stop a program."""


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
        text for path, wanted, text in _files(home, program, python, recorded) if read_text(path) != wanted
    ]
    if differs:
        return Step(program.name, "restart" if state in RUNNING else "start", differs[0])
    if state not in RUNNING:
        return Step(program.name, "start", f"was {(state or 'not running').lower()}")
    return Step(program.name, "keep", "runs as wished")


def _files(home: Home, program: Program, python: str, recorded: str) -> list[tuple[Path, str, str]]:
    """The files of one program: where, what is wished in it, and what it means when that is not there."""
    folder = home.program_folder(program.name)
    return [
        (folder / "spec.json", spec_document(program), changed_fields(recorded, program.spec)),
        (folder / "launch.json", launch_document(program), "its command or environment changed"),
        (home.program_file(program.name), program_configuration(home, program, python), "its limits changed"),
    ]


def differences(home: Home, program: Program, python: str) -> list[dict[str, Any]]:
    """How what lies there of a program differs from the wish: ``{"field", "wanted", "found"}`` each.

    Besides the fields of the launch spec there are ``launch`` (command and environment, never shown) and ``limits``,
    for files that somebody changed although the record says that they are as wished.
    """
    recorded = read_text(home.program_folder(program.name) / "spec.json")
    if recorded is None:
        return []
    before, after = flatten(recorded_spec(home, program.name)), flatten(program.spec)
    found = [
        {"field": name, "wanted": after.get(name), "found": before.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    (_, *files) = _files(home, program, python, recorded)
    if not found:
        found = [
            {"field": field, "wanted": "as launched", "found": text}
            for field, (path, wanted, text) in zip(("launch", "limits"), files)  # noqa: B905
            if read_text(path) != wanted
        ]
    return found


def states(supervisor: Supervisor, running: bool) -> dict[str, str]:
    """The supervisord's state of each of its programs; empty when it does not run."""
    return {name: info["statename"] for name, info in supervisor.processes().items()} if running else {}


def _forget(supervisor: Supervisor, name: str, timeout_s: float) -> None:
    """Stop a program and take it out of supervisord's memory; fine when it is not there.

    One that a run asked to stop before it was killed is stopping still: supervisord says that it does not run, and yet
    gives it up only once it has ended.
    """
    end = time.monotonic() + timeout_s
    _told(supervisor, name, timeout_s, "stopProcess", name, True)
    while _told(supervisor, name, timeout_s, "removeProcessGroup", name, fine=(_STILL_RUNNING,)):
        if time.monotonic() >= end:
            raise SupervisorError(f"{name}: it was told to stop, and runs on after {timeout_s:g} s")
        time.sleep(0.1)


def _told(
    supervisor: Supervisor,
    name: str,
    timeout_s: float,
    method: str,
    *arguments: Any,
    fine: tuple[int, ...] = (),
) -> bool:
    """Call a method of supervisord; whether it answered with one of the faults ``fine``. Other faults are raised, but for
    those that say that nothing runs there, which is just what we want.
    """
    try:
        supervisor.call(method, *arguments, timeout_s=timeout_s)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode in fine:
            return True
        if fault.faultCode not in _NOTHING_THERE:
            raise SupervisorError(f"{name}: {fault.faultString}") from fault
    return False


def _stop_all(stops: dict[str, int], stop: Callable[[str, int], object]) -> dict[str, str]:
    """Call ``stop`` with each name and grace (seconds), all at once. Gives what went wrong, by name."""

    def one(item: tuple[str, int]) -> tuple[str, str]:
        try:
            stop(*item)
        except (SupervisorError, OSError, xmlrpc.client.Error) as error:
            return item[0], str(error)
        return item[0], ""

    if not stops:
        return {}
    with ThreadPoolExecutor(max_workers=len(stops)) as pool:
        return {name: error for name, error in pool.map(one, stops.items()) if error}


def apply_present(
    supervisor: Supervisor,
    executable: str,
    python: str,
    programs: list[Program],
    steps: list[Step],
    keep_previous: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """Carry out the steps. Returns sentences about what had to be cleaned up, and what went wrong by program.

    With ``keep_previous`` what a program was launched with stays beside it, see :func:`keep`. Raises
    ``SupervisorError`` when nothing can be started at all.
    """
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
    changing = [program for program in programs if program.name in todo]
    for program in changing:
        if keep_previous and differences(home, program, python):
            keep(home, program.name)
    errors: dict[str, str] = {}
    if running:
        graces = {
            program.name: recorded_spec(home, program.name).get("stop_timeout_s") or program.stop_timeout_s
            for program in changing
        }
        errors = _stop_all(graces, lambda name, grace: _forget(supervisor, name, int(grace) + STOP_SLACK_S))
    for program in changing:
        if program.name in errors:
            continue
        folder = home.program_folder(program.name)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        write_text(folder / "launch.json", launch_document(program), 0o600)
        write_text(home.program_file(program.name), program_configuration(home, program, python), 0o600)
        # last: what is recorded here counts as done
        write_text(folder / "spec.json", spec_document(program), 0o600)
    if not running:
        supervisor.start(executable)
        return notes, errors
    errors.update(_add(supervisor, [program.name for program in changing if program.name not in errors]))
    return notes, errors


def _add(supervisor: Supervisor, names: list[str]) -> dict[str, str]:
    """Let a running supervisord start programs whose files are written. Gives what went wrong, by name."""
    errors = {}
    supervisor.call("reloadConfig")
    for name in names:
        try:
            supervisor.call("addProcessGroup", name)
        except xmlrpc.client.Fault as fault:
            errors[name] = f"{name} was not accepted: {fault.faultString}"
    return errors


def exists(home: Home, name: str) -> bool:
    """Whether anything of a program is left."""
    return home.program_file(name).exists() or home.program_folder(name).exists()


def apply_absent(supervisor: Supervisor, names: list[str], stop_timeout_s: int) -> dict[str, str]:
    """Stop the programs and remove all that is theirs; the last one takes supervisord along.

    ``stop_timeout_s`` is for those whose own grace is not recorded. Gives what went wrong, by program.
    """
    home = supervisor.home
    running = supervisor.running()
    graces = {name: recorded_spec(home, name).get("stop_timeout_s") or stop_timeout_s for name in names}

    def end(name: str, grace: int) -> None:
        if running:
            _forget(supervisor, name, int(grace) + STOP_SLACK_S)
        supervisor.end_orphan(name, int(grace))
        home.program_file(name).unlink(missing_ok=True)
        if home.program_folder(name).exists():
            shutil.rmtree(home.program_folder(name))

    errors = _stop_all(graces, end)
    if running:
        supervisor.call("reloadConfig")
    left = list((home.folder / "conf.d").glob("*.conf")) if home.folder.exists() else []
    if left:
        return errors
    if running:
        supervisor.shut_down(stop_timeout_s + STOP_SLACK_S)
    if home.folder.exists():
        shutil.rmtree(home.folder)
    processes = home.root / "process"
    if processes.exists() and not any(processes.iterdir()):
        processes.rmdir()
    return errors


# --- what a program was launched with before --------------------------------------------------------


def kept(home: Home, name: str) -> Path:
    """Where the files lie that a program was launched with before; the directory is there or it is not, whole."""
    return home.program_folder(name) / "previous"


def keep(home: Home, name: str) -> None:
    """Keep the files that a program was launched with, unless older ones are kept: those are the confirmed ones."""
    folder = home.program_folder(name)
    files = _kept_files(home, name)
    if kept(home, name).exists() or not all(path.exists() for path in files.values()):
        return
    scratch = folder / "previous.new"
    if scratch.exists():
        shutil.rmtree(scratch)
    scratch.mkdir(mode=0o700)
    for kept_as, path in files.items():
        write_text(scratch / kept_as, read_text(path) or "", 0o600)
    scratch.rename(kept(home, name))


def put_back(
    supervisor: Supervisor, executable: str, names: list[str], stop_timeout_s: int
) -> dict[str, str]:
    """Launch programs with the files that were kept. Gives what went wrong, by program."""
    home = supervisor.home
    running = supervisor.running()
    supervisor.write_main_files()
    graces = {name: recorded_spec(home, name).get("stop_timeout_s") or stop_timeout_s for name in names}

    def end(name: str, grace: int) -> None:
        if running:
            _forget(supervisor, name, int(grace) + STOP_SLACK_S)
        else:
            supervisor.end_orphan(name, int(grace))

    errors = _stop_all(graces, end)
    back = [name for name in names if name not in errors]
    for name in back:
        for kept_as, path in _kept_files(home, name).items():
            write_text(path, read_text(kept(home, name) / kept_as) or "", 0o600)
    if running:
        errors.update(_add(supervisor, back))
    else:
        supervisor.start(executable)
    for name in back:
        if name not in errors:
            confirm(home, name)
    return errors


def confirm(home: Home, name: str) -> None:
    """Forget what a program was launched with before."""
    # renamed first: half of it must never look like something that can be put back
    if kept(home, name).exists():
        scratch = kept(home, name).with_name("previous.gone")
        if scratch.exists():
            shutil.rmtree(scratch)
        kept(home, name).rename(scratch)
        shutil.rmtree(scratch)


def _kept_files(home: Home, name: str) -> dict[str, Path]:
    """The files of a program by the name that they are kept under; the record comes last."""
    folder = home.program_folder(name)
    return {
        "launch.json": folder / "launch.json",
        "program.conf": home.program_file(name),
        "spec.json": folder / "spec.json",
    }


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
