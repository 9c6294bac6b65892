"""The container engine: whether it answers, of which version it is, where it keeps its data."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import ABSENT, HUNG, first_line
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host

Facts = dict[str, Any]
_REFUSED = ("is the docker daemon running", "connection refused", "no such file or directory")


def look(host: Host) -> Facts:
    """``state`` is up, absent, down (surely nobody listens), silent (it hangs) or unknown."""
    asked = host.run("docker", "info", "--format", "{{json .}}")
    if asked.state == ABSENT:
        return _none("absent", asked.reason)
    if asked.state == HUNG:
        return _none("silent", asked.reason)
    return parse(asked.out, asked.err, asked.reason)


def parse(out: str, err: str, reason: str) -> Facts:
    """What ``docker info`` printed; ``reason`` says why it failed. It may fail and end with status 0."""
    try:
        found = json.loads(out or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return _none("unknown", reason or "docker info printed no JSON")
    errors = found.get("ServerErrors") or []
    if not found.get("ServerVersion") or errors:
        said = " ".join([str(one) for one in errors] + [err])
        why = first_line(said) or reason or "docker info tells no version of the engine"
        refused = "permission denied" not in said.lower() and any(one in said.lower() for one in _REFUSED)
        return _none("down" if refused else "unknown", why)
    directories = found.get("CDISpecDirs")
    return {
        "state": "up",
        "reason": "",
        "version": str(found["ServerVersion"]),
        "root": str(found["DockerRootDir"]) if found.get("DockerRootDir") else None,
        "storage": str(found["Driver"]) if found.get("Driver") else None,
        # an engine that knows nothing of CDI does not name any
        "cdi_directories": [str(one) for one in directories] if isinstance(directories, list) else [],
    }


def _none(state: str, reason: str) -> Facts:
    empty: Facts = {"version": None, "root": None, "storage": None, "cdi_directories": []}
    return {"state": state, "reason": reason, **empty}
