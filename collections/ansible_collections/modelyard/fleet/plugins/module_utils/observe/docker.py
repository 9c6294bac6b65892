"""Containers, through the docker command: one `ps` and one `inspect`, however many there are."""

from __future__ import annotations

import json
from shutil import which
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run

UP, ABSENT, UNKNOWN = "up", "absent", "unknown"

# Docker's states. A paused container was paused by somebody on purpose: nothing is known of what they want.
_STATES = {"running": "up", "restarting": "down", "created": "down", "exited": "down", "dead": "down"}
_GONE = "No such object"


def containers(
    fleet: str, timeout: int, problems: list[str]
) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
    """State of the daemon (`up`, `absent`, `unknown`), our replicas, foreign containers not stopped."""
    if which("docker") is None:
        return ABSENT, [], []
    code, out, err = run(["docker", "ps", "--all", "--quiet", "--no-trunc"], timeout)
    if code != 0:
        problems.append("docker ps: %s" % (err or f"exit status {code}"))
        return UNKNOWN, [], []
    ids = out.split()
    if not ids:
        return UP, [], []
    code, out, err = run(["docker", "inspect", "--type", "container", *ids], timeout)
    # A container removed between the two calls is an error of inspect, which still prints the others.
    vanished = all(_GONE.lower() in line.lower() for line in err.splitlines())
    if code is None or (code != 0 and not vanished):
        problems.append("docker inspect: %s" % (err or f"exit status {code}"))
        return UNKNOWN, [], []
    ours, foreign = [], []
    for item in json.loads(out or "[]"):
        labels = (item.get("Config") or {}).get("Labels") or {}
        if labels.get("modelyard.fleet") == fleet and labels.get("modelyard.replica"):
            ours.append(_replica(item, labels, problems))
        elif (item.get("State") or {}).get("Status") in ("running", "restarting", "paused"):
            foreign.append(_foreign(item))
    return UP, ours, foreign


def _replica(item: dict[str, Any], labels: dict[str, str], problems: list[str]) -> dict[str, Any]:
    name = labels["modelyard.replica"]
    try:
        spec = json.loads(labels.get("modelyard.spec") or "{}")
    except ValueError:
        problems.append(f"{name}: its label modelyard.spec is not JSON")
        spec = {}
    state = item.get("State") or {}
    published = _ports(item)
    return {
        "replica": name,
        "model": labels.get("modelyard.model", ""),
        "engine": labels.get("modelyard.engine", ""),
        "runtime": "docker",
        "state": _STATES.get(state.get("Status", ""), "unknown"),
        "status": state.get("Status", ""),
        "health": (state.get("Health") or {}).get("Status"),
        "exit_code": state.get("ExitCode"),
        "hash": labels.get("modelyard.hash"),
        "spec": spec,
        "gpus": [str(gpu) for gpu in spec.get("gpus", _gpus(item))],
        "port": (spec.get("publish") or {}).get("port") or (published[0] if published else None),
        "container_id": item["Id"],
        "image_id": item.get("Image"),
        "started_at": state.get("StartedAt"),
    }


def _foreign(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": item.get("Name", "").lstrip("/") or item["Id"][:12],
        "image": (item.get("Config") or {}).get("Image", ""),
        "ports": _ports(item),
        "gpus": _gpus(item),
    }


def _ports(item: dict[str, Any]) -> list[int]:
    """Ports on the host; of a stopped container those that it would publish."""
    bindings = (item.get("HostConfig") or {}).get("PortBindings") or {}
    live = (item.get("NetworkSettings") or {}).get("Ports") or {}
    found = set()
    for table in (bindings, live):
        for entries in table.values():
            for entry in entries or []:
                if str(entry.get("HostPort", "")).isdigit() and int(entry["HostPort"]) > 0:
                    found.add(int(entry["HostPort"]))
    return sorted(found)


def _gpus(item: dict[str, Any]) -> list[str]:
    """Indexes or UUIDs that a container asked for; `all` when it asked for all of them."""
    host = item.get("HostConfig") or {}
    found: list[str] = []
    for request in host.get("DeviceRequests") or []:
        ids = [str(one).rpartition("=")[2] for one in request.get("DeviceIDs") or []]
        wanted = any("gpu" in group for group in request.get("Capabilities") or [])
        cdi = request.get("Driver") == "cdi"
        if ids and (wanted or cdi):
            found += ids
        elif wanted and request.get("Count"):
            found.append("all")  # a bare count does not say which
    if host.get("Runtime") == "nvidia" and not found:
        for entry in (item.get("Config") or {}).get("Env") or []:
            key, _, value = entry.partition("=")
            if key == "NVIDIA_VISIBLE_DEVICES" and value not in ("", "none", "void"):
                found += value.split(",")
    return sorted(set(found))
