"""Replicas of the process runtime: what was installed, and what the supervisor says of it."""

from __future__ import annotations

import http.client
import json
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.programs import kept
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home, program_state
from ansible_collections.modelyard.fleet.plugins.module_utils.unix_http import xmlrpc_over_unix

_STATES = {
    "RUNNING": "up",
    "STARTING": "up",
    "STOPPING": "up",  # it still holds its port
    "BACKOFF": "down",
    "STOPPED": "down",
    "EXITED": "down",
    "FATAL": "down",
}
ORPHAN = "it has outlived its supervisor"


def replicas(
    home: Path, timeout: int, listening: set[int], problems: list[str]
) -> tuple[str, list[dict[str, Any]]]:
    """State of the runtime (`up`, `absent`, `unknown`) and every replica with a directory under `<home>/process/`.

    A replica that its supervisor does not know is up when its own process is still there (an orphan: `lost` says
    so), and down when that process surely ended. When nobody can tell and something listens on its port, it is
    unknown.
    """
    root = home / "process"
    try:
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return "absent", []
    except OSError as error:
        problems.append(f"{root}: {error.strerror}")
        return "unknown", []
    if not names:
        return "up", []
    where = Home(home)
    programs = _programs(where.socket, timeout, problems)
    return "up", [
        _replica(where, name, _read(root / name / "spec.json", problems), programs, listening, problems)
        for name in names
    ]


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    """What is recorded of a replica; empty for one whose start was cut off before its record was written."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problems.append(f"{path}: {error}")
        return {}
    return data if isinstance(data, dict) and isinstance(data.get("spec", {}), dict) else {}


def _replica(
    home: Home,
    name: str,
    record: dict[str, Any],
    programs: dict[str, dict[str, Any]] | None,
    listening: set[int],
    problems: list[str],
) -> dict[str, Any]:
    spec = record.get("spec") or {key: value for key, value in record.items() if key != "hash"}
    port = (spec.get("publish") or {}).get("port")
    program: dict[str, Any] = (programs or {}).get(name, {})
    lost = ""
    if programs is None:
        state, status = "unknown", "supervisor does not answer"
    elif program:
        status = program["statename"]
        state = _STATES.get(status, "unknown")
    else:
        status = "NOT KNOWN"
        state, pid = program_state(home, name)
        if state == "up":
            lost, program = ORPHAN, {"pid": pid}
        elif state == "unknown" and port not in listening:
            state = "down"
        elif state == "unknown":
            problems.append(
                f"{name}: not under the supervisor, but something listens on its port {port}; "
                "end that process or remove the replica's directory"
            )
    started = program.get("start") or 0
    return {
        "replica": name,
        "model": spec.get("model") or name.partition(".")[2].rpartition(".")[0],
        "engine": spec.get("engine", ""),
        "runtime": "process",
        "state": state,
        "status": status,
        "lost": lost,
        "hash": record.get("hash"),
        "spec": spec,
        "gpus": [str(gpu) for gpu in spec.get("gpus", [])],
        "port": port,
        "previous": _previous(home, name),
        "pid": program.get("pid") or None,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)) if started else None,
    }


def _previous(home: Home, name: str) -> dict[str, Any] | None:
    """What is kept of a replica that was replaced: its files only, so nothing of it ever runs."""
    folder = kept(home, name)
    if not folder.is_dir():
        return None
    record = _read(folder / "spec.json", [])
    spec = record.get("spec") or {}
    gpus = [str(gpu) for gpu in spec.get("gpus", [])]
    port = (spec.get("publish") or {}).get("port")
    return {
        "name": name,
        "state": "down",
        "hash": record.get("hash"),
        "spec": spec,
        "gpus": gpus,
        "port": port,
    }


def _programs(path: Path, timeout: int, problems: list[str]) -> dict[str, dict[str, Any]] | None:
    """All programs of the supervisor by name; empty when none runs, None when it does not answer."""
    try:
        with xmlrpc_over_unix(path, timeout) as server:
            listed: Any = server.supervisor.getAllProcessInfo()
    except (FileNotFoundError, ConnectionRefusedError):
        return {}
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        problems.append(f"supervisor at {path}: {error}")
        return None
    return {item["name"]: item for item in listed}
