"""How a replica that does not answer stands: its last log lines and how it ended."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import xmlrpc.client
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import LABEL
from ansible_collections.modelyard.fleet.plugins.module_utils.programs import tail
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import (
    Home,
    Supervisor,
    SupervisorError,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.unix_http import get

RESTART_LIMIT = 3
"""Restarts seen after which waiting on is pointless."""


def _engine_get(socket: Path, path: str) -> bytes | None:
    """Body of a 200 of the container engine; None for anything else."""
    try:
        status, body = get(socket, path, 10.0)
    except (OSError, http.client.HTTPException):
        return None
    return body if status == 200 else None


def plain_log(raw: bytes) -> str:
    """The engine's multiplexed log stream (8-byte headers) as text; text without headers stays as it is."""
    parts = []
    position = 0
    while (
        position + 8 <= len(raw)
        and raw[position] in (0, 1, 2)
        and raw[position + 1 : position + 4] == b"\0\0\0"
    ):
        size = int.from_bytes(raw[position + 4 : position + 8], "big")
        parts.append(raw[position + 8 : position + 8 + size])
        position += 8 + size
    return (b"".join(parts) if parts else raw).decode("utf-8", "replace")


class ContainerWatch:
    """Looks at one replica's container through the engine's socket. ``since`` counts the restarts that waiting began
    with; give it on where several runs of a module wait for one replica.
    """

    def __init__(self, replica: str, fleet: str, socket: Path, since: int | None = None) -> None:
        self._filters = {"label": [f"{LABEL}.fleet={fleet}", f"{LABEL}.replica={replica}"]}
        self._socket = socket
        self.since = since

    def _inspect(self) -> dict[str, Any] | None:
        query = urlencode({"all": "true", "filters": json.dumps(self._filters)})
        listing = _engine_get(self._socket, f"/containers/json?{query}")
        found = json.loads(listing) if listing else []
        if not found:
            return None
        body = _engine_get(self._socket, f"/containers/{quote(found[0]['Id'])}/json")
        return dict(json.loads(body)) if body else None

    def gone(self) -> str | None:
        """Why the replica will not come up any more; None while it may."""
        container = self._inspect()
        if container is None:
            return None  # the engine may be slow: unknown is not gone
        restarts = int(container.get("RestartCount", 0))
        if self.since is None:
            self.since = restarts
        state = container["State"]
        if restarts - self.since >= RESTART_LIMIT:
            return f"its container ended {restarts} times, last with exit code {state.get('ExitCode')}"
        if state.get("Status") in ("exited", "dead"):
            killed = ", out of memory" if state.get("OOMKilled") else ""
            return f"its container ended with exit code {state.get('ExitCode')}{killed}"
        return None

    def log(self, lines: int) -> list[str]:
        """The last lines of the container's log."""
        container = self._inspect()
        if container is None:
            return []
        raw = _engine_get(self._socket, f"/containers/{container['Id']}/logs?stdout=1&stderr=1&tail={lines}")
        return plain_log(raw or b"").splitlines()[-lines:]


class ProcessWatch:
    """Looks at one replica's process through its supervisord. ``since`` as above, for its ends."""

    def __init__(self, replica: str, home: Path, since: int | None = None) -> None:
        self._replica = replica
        self._supervisor = Supervisor(Home(home), timeout_s=5.0)
        self.since = since

    def gone(self) -> str | None:
        """Why the replica will not come up any more; None while it may."""
        try:
            info = self._supervisor.call("getProcessInfo", self._replica)
        except (OSError, SupervisorError):
            return None
        except xmlrpc.client.Error as error:
            return f"supervisord does not know it: {error}"
        ends = self._ends()
        if self.since is None:
            self.since = len(ends)
        last = ends[-1] if ends else "an exit status that was not recorded"
        if info["statename"] == "FATAL" or len(ends) - self.since >= RESTART_LIMIT:
            return f"its process ended again and again, last with {last}"
        return f"its process was stopped, last end: {last}" if info["statename"] == "STOPPED" else None

    def _ends(self) -> list[str]:
        """How the process ended, each time; only supervisord's log keeps that for one that ended at once."""
        pattern = re.compile(rf"exited: {re.escape(self._replica)} \(([^;)]*)")
        lines = tail(self._supervisor.home.folder / "supervisord.log", 1000)
        return [match[1] for line in lines if (match := pattern.search(line))]

    def log(self, lines: int) -> list[str]:
        """The last lines of the program's log."""
        return tail(Home(self._supervisor.home.root).program_folder(self._replica) / "output.log", lines)


class UnitWatch:
    """Looks at a systemd unit."""

    since: int | None = None

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def _ask(self, *command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""

    def gone(self) -> str | None:
        """Why the unit will not come up any more; None while it may."""
        shown = self._ask("systemctl", "show", self._unit, "--property=ActiveState,NRestarts,ExecMainStatus")
        state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if state.get("ActiveState") in ("failed", "inactive"):
            return f"the unit {self._unit} is {state['ActiveState']}, last exit code {state.get('ExecMainStatus')}"
        restarts = state.get("NRestarts", "0")
        if restarts.isdigit() and int(restarts) >= RESTART_LIMIT:
            return f"the unit {self._unit} ended {restarts} times, last with exit code {state.get('ExecMainStatus')}"
        return None

    def log(self, lines: int) -> list[str]:
        """The last lines of the unit's journal."""
        return self._ask(
            "journalctl", "--unit", self._unit, "--lines", str(lines), "--output=cat"
        ).splitlines()
