"""Replicas of the process runtime: what was installed, and what the supervisor says of it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

_STATES = {
    "RUNNING": "up",
    "STARTING": "up",
    "STOPPING": "up",  # it still holds its port
    "BACKOFF": "down",
    "STOPPED": "down",
    "EXITED": "down",
    "FATAL": "down",
}


def replicas(
    home: Path, timeout: int, listening: set[int], problems: list[str]
) -> tuple[str, list[dict[str, Any]]]:
    """State of the runtime (`up`, `absent`, `unknown`) and every replica with a `spec.json` under
    `<home>/process/`.

    Without a supervisor a replica is down, unless something still listens on its port: then it may be the
    replica itself, left behind, and its state is unknown.
    """
    root = home / "process"
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except FileNotFoundError:
        return "absent", []
    except OSError as error:
        problems.append(f"{root}: {error.strerror}")
        return "unknown", []
    installed = []
    for name in names:
        record = _read(root / name / "spec.json", problems)
        if record is not None:
            installed.append((name, record))
    if not installed:
        return "up", []
    programs = _programs(home / "supervisor" / "supervisor.sock", timeout, problems)
    return "up", [_replica(name, record, programs, listening, problems) for name, record in installed]


def _read(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{path}: {error}")
        return {}
    return data if isinstance(data, dict) else {}


def _replica(
    name: str,
    record: dict[str, Any],
    programs: dict[str, dict[str, Any]] | None,
    listening: set[int],
    problems: list[str],
) -> dict[str, Any]:
    spec = record.get("spec") or {key: value for key, value in record.items() if key != "hash"}
    port = (spec.get("publish") or {}).get("port")
    program: dict[str, Any] = {}
    if programs is None:
        state, status = "unknown", "supervisor does not answer"
    else:
        program = programs.get(name, {})
        status = program.get("statename", "NOT KNOWN")
        state = _STATES.get(status, "unknown" if program else "down")
        if not program and port in listening:
            state = "unknown"
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
        "hash": record.get("hash"),
        "spec": spec,
        "gpus": [str(gpu) for gpu in spec.get("gpus", [])],
        "port": port,
        "pid": program.get("pid") or None,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)) if started else None,
    }


def _programs(path: Path, timeout: int, problems: list[str]) -> dict[str, dict[str, Any]] | None:
    """All programs of the supervisor by name; empty when none runs, None when it does not answer."""
    server = xmlrpc.client.ServerProxy("http://supervisor", transport=_UnixTransport(path, timeout))
    try:
        listed: Any = server.supervisor.getAllProcessInfo()
    except (FileNotFoundError, ConnectionRefusedError):
        return {}
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        problems.append(f"supervisor at {path}: {error}")
        return None
    finally:
        server("close")()
    return {item["name"]: item for item in listed}


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket."""

    def __init__(self, path: Path, timeout: int) -> None:
        super().__init__()
        self._path = path
        self._timeout = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path, self._timeout)
        self._connection = (host, connection)  # what close() closes
        return connection


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: int) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        # A socket's path may have 107 bytes at most; through its directory's descriptor any depth works.
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(directory)
        self.sock = sock
