"""What a host says of its container engine: packages, daemon, and the containers of fleets that run."""

from __future__ import annotations

import http.client
import json
from collections.abc import Collection
from pathlib import Path
from shutil import which
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import unix_http
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.adopted import name_of
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run

LABEL = "modelyard.fleet"
ABSENT, DOWN, UP, UNKNOWN = "absent", "down", "up", "unknown"
VERSIONLOCK = Path("/etc/dnf/plugins/versionlock.list")

# what stays beside each running container, whether or not its engine answers
_KEEPERS = {"docker": "containerd-shim", "podman": "conmon"}
_DAEMONS = {"docker": "dockerd", "podman": "podman"}


class LookError(Exception):
    """The host cannot be looked at."""


def installed(manager: str, names: list[str], timeout_s: int) -> dict[str, dict[str, Any]]:
    """Those of ``names`` that are installed: ``version``, whether ``held``, and the ``lock`` that holds it with dnf.

    Raises ``LookError`` when the package manager's database cannot be read.
    """
    if not names:
        return {}
    if manager == "apt":
        form = "${Package}\t${db:Status-Abbrev}\t${Version}\n"
        return _debs(*run(["dpkg-query", "--show", f"--showformat={form}", *names], timeout_s))
    form = "%{NAME}\t%{EPOCHNUM}\t%{VERSION}-%{RELEASE}\n"
    code, out, err = run(["rpm", "--query", f"--queryformat={form}", *names], timeout_s)
    locks = VERSIONLOCK.read_text(encoding="utf-8") if VERSIONLOCK.exists() else ""
    return _rpms(code, out, err, locks)


def _debs(code: int | None, out: str, err: str) -> dict[str, dict[str, Any]]:
    # status 1 says that some of the names are not known, which is an answer
    if code not in (0, 1):
        raise LookError(f"dpkg-query: {err or f'exit status {code}'}")
    found = {}
    for line in out.splitlines():
        name, status, version = line.split("\t")
        if status[1:2] == "i":
            found[name] = {"version": version, "held": status[0] == "h", "lock": ""}
    return found


def _rpms(code: int | None, out: str, err: str, locks: str) -> dict[str, dict[str, Any]]:
    if code is None:
        raise LookError(f"rpm: {err}")
    found = {}
    for line in out.splitlines():
        fields = line.split("\t")
        if len(fields) != 3:  # "package x is not installed"
            continue
        name, epoch, version = fields
        lock = f"{name}-{epoch}:{version}.*"
        found[name] = {
            "version": version if epoch == "0" else f"{epoch}:{version}",
            "held": lock in locks.splitlines(),
            "lock": lock,
        }
    return found


def engine(
    kind: str, socket: Path, timeout_s: float, adopted: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The engine's state and settings in force, and the names of running containers that are models.

    Those are the ones that carry a fleet's label, and those of ``adopted`` (names or ids), which carry none.

    ``absent`` means that it is not installed, ``down`` that it does not answer and no container runs, ``unknown`` that
    it does not answer and containers may run. ``client`` says whether the engine's command is there.
    """
    client = which(kind) is not None
    try:
        info = _get(socket, "/info", timeout_s)
        there = _get(socket, "/containers/json", timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        problem = str(error) or type(error).__name__
        if kept := _keepers(_KEEPERS[kind]):
            problem += f"; {kept} processes {_KEEPERS[kind]} keep containers"
            return _silent(UNKNOWN, problem, client), []
        return _silent(DOWN if which(_DAEMONS[kind]) else ABSENT, problem, client), []
    return {
        "state": UP,
        "problem": "",
        "client": client,
        "version": info.get("ServerVersion"),
        "live_restore": info.get("LiveRestoreEnabled"),
        "data_root": info.get("DockerRootDir"),
        "log_driver": info.get("LoggingDriver"),
        "mirrors": (info.get("RegistryConfig") or {}).get("Mirrors") or [],
        "swarm": (info.get("Swarm") or {}).get("LocalNodeState") not in (None, "", "inactive"),
    }, sorted(name for name in (_model(one, adopted) for one in there) if name)


def _model(item: dict[str, Any], adopted: Collection[str]) -> str:
    """The name of a listed container that is a model; empty for another one."""
    name = str((item.get("Names") or [item.get("Id", "")])[0]).lstrip("/")
    ours = LABEL in (item.get("Labels") or {}) or name_of({"Name": name, "Id": item.get("Id", "")}, adopted)
    return name if ours else ""


def wish_noted(note: Path) -> str | None:
    """The digest of the wish that the host was last made to: None where nobody noted one, empty where that did not end.

    A note that cannot be understood counts as one of a run that did not end.
    """
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["wish"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _silent(state: str, problem: str, client: bool) -> dict[str, Any]:
    """What is said of an engine that does not answer."""
    unknown = dict.fromkeys(("version", "live_restore", "data_root", "log_driver"))
    return {
        **unknown,
        "state": state,
        "problem": problem,
        "client": client,
        "mirrors": [],
        "swarm": False,
    }


def _get(socket: Path, target: str, timeout_s: float) -> Any:
    status, body = unix_http.get(socket, target, timeout_s)
    if status != 200:
        raise ValueError(f"{target.partition('?')[0]} was answered with status {status}")
    return json.loads(body)


def _keepers(name: str) -> int:
    """How many processes have this name, which the kernel cuts after 15 bytes."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            count += path.read_text(encoding="utf-8").startswith(name[:15])
        except OSError:  # it has just ended
            continue
    return count
