"""A replica of the process runtime: its record, its launch file and the process itself against the wish."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.drift.shown import (
    Difference,
    compared,
    difference,
    digest,
    first_of_each,
    recorded_differences,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.launch import process_program
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import from_flags
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home, program_state, read_text

# Before its arguments a command may have gained an interpreter (a script's first line) with a few options.
_MOST_BEFORE = 4


def differences(home: Home, assignment: Mapping[str, Any], proc: Path = Path("/proc")) -> list[Difference]:
    """Everything by which a replica differs from its assignment (with secrets); one entry for each field.

    What cannot be read (a process of another user, a program that renamed itself) is no difference.
    """
    program = process_program(dict(assignment))
    folder = home.program_folder(assignment["replica"])
    executable = list(assignment["spec"].get("executable") or [])
    found: list[Difference] = []
    state, pid = program_state(home, assignment["replica"])
    if state == "up" and pid is not None:
        found += process_differences(program, len(executable), *_process(proc / str(pid)))
    launch = _document(folder / "launch.json")
    found += launch_differences(program, len(executable), launch)
    if found:
        return first_of_each(found)
    record = _document(folder / "spec.json") or {}
    return recorded_differences(record.get("spec"), record.get("hash"), assignment)


def process_differences(
    program: Mapping[str, Any],
    executable_words: int,
    words: Sequence[str] | None,
    environment: Mapping[str, str] | None,
) -> list[Difference]:
    """A process's own command line and environment against the program; None: they could not be read.

    Of the environment only wished names are compared: the rest a process has from its supervisor and its shell.
    """
    found: list[Difference] = []
    if words is not None:
        arguments = _arguments(program["command"][:executable_words], words)
        if arguments is not None:
            found += compared(_flat(program["command"][executable_words:]), _flat(arguments), "process")
    if environment is not None:
        wanted = _digests(program["environment"])
        seen = _digests({name: environment[name] for name in program["environment"] if name in environment})
        found += compared(wanted, seen, "process")
    return found


def launch_differences(
    program: Mapping[str, Any], executable_words: int, launch: Mapping[str, Any] | None
) -> list[Difference]:
    """The file that the next start of the program reads against the program."""
    command = (launch or {}).get("command")
    environment = (launch or {}).get("environment")
    if not isinstance(command, list) or not isinstance(environment, dict):
        found = "lost or not readable"
        return [difference("launch file", "command and environment", found, "launch file", "settings")]
    words = [str(word) for word in command]
    wanted = program["command"]
    if words[:executable_words] == wanted[:executable_words]:
        flat = _flat(wanted[executable_words:]), _flat(words[executable_words:])
    else:
        flat = {"executable": " ".join(wanted[:executable_words])}, {"executable": " ".join(words)}
    differs = compared(*flat, "launch file")
    if not differs and words != wanted:  # the order counts: a later flag may win over an earlier one
        differs = compared({"command": " ".join(wanted)}, {"command": " ".join(words)}, "launch file")
    named = {str(name): str(value) for name, value in environment.items()}
    return differs + compared(_digests(program["environment"]), _digests(named), "launch file")


def _arguments(executable: Sequence[str], words: Sequence[str]) -> Sequence[str] | None:
    """What follows the executable on a command line; None when it is not to be found there."""
    if not executable:
        return None
    last = executable[-1].rpartition("/")[2]
    for place, word in enumerate(words[: len(executable) + _MOST_BEFORE]):
        if word.rpartition("/")[2] == last:
            return words[place + 1 :]
    return None


def _flat(words: Sequence[str]) -> dict[str, str]:
    return from_flags(list(words))


def _digests(environment: Mapping[str, str]) -> dict[str, str]:
    return {f"env.{name}": digest(str(value)) for name, value in environment.items()}


def _document(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(read_text(path) or "")
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _process(folder: Path) -> tuple[list[str] | None, dict[str, str] | None]:
    """Words and environment of a process; None for what may not be read, or is gone."""
    try:
        raw = (folder / "cmdline").read_bytes()
        pairs = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return None, None
    words = (
        [word.decode("utf-8", "surrogateescape") for word in raw.rstrip(b"\0").split(b"\0")] if raw else None
    )
    environment = {}
    for pair in pairs:
        name, is_pair, value = pair.decode("utf-8", "surrogateescape").partition("=")
        if is_pair:
            environment[name] = value
    return words, environment
