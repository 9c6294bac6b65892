"""Containers, through the docker command: one `ps` and one `inspect`, however many there are."""

from __future__ import annotations

import json
from collections.abc import Collection
from shutil import which
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import LABEL, NEXT, PREVIOUS
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.adopted import described, name_of
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run

UP, ABSENT, UNKNOWN = "up", "absent", "unknown"
# what a check says of an engine that the run itself would have installed by now
FORESEEN = "foreseen"

# Docker's states. A paused container was paused by somebody on purpose: nothing is known of what they want.
_STATES = {"running": "up", "restarting": "down", "created": "down", "exited": "down", "dead": "down"}
_GONE = ("no such object", "no such container")  # as newer and older engines say it


Items = list[dict[str, Any]]


def containers(
    fleet: str, timeout: int, problems: list[str], adopt: Collection[str] = ()
) -> tuple[str, Items, Items, Items]:
    """State of the daemon (`up`, `absent`, `unknown`), our replicas, foreign containers not stopped, adopted ones.

    ``adopt`` are names or ids of containers without our label that the fleet adopts, wherever they stand.

    A replica that was replaced may have its previous container kept; that is no replica but stands under `previous` of
    the one in its place. Where a change was cut off and the previous one is all there is, the replica is down.
    """
    if which("docker") is None:
        return ABSENT, [], [], []
    code, out, err = run(["docker", "ps", "--all", "--quiet", "--no-trunc"], timeout)
    if code != 0:
        problems.append("docker ps: %s" % (err or f"exit status {code}"))
        return UNKNOWN, [], [], []
    ids = out.split()
    if not ids:
        return UP, [], [], []
    code, out, err = run(["docker", "inspect", "--type", "container", *ids], timeout)
    # A container removed between the two calls is an error of inspect, which still prints the others.
    vanished = all(any(gone in line.lower() for gone in _GONE) for line in err.splitlines())
    if code is None or (code != 0 and not vanished):
        problems.append("docker inspect: %s" % (err or f"exit status {code}"))
        return UNKNOWN, [], [], []
    ours: list[dict[str, Any]] = []
    aside: list[dict[str, Any]] = []
    foreign, adopted = [], []
    for item in json.loads(out or "[]"):
        labels = (item.get("Config") or {}).get("Labels") or {}
        if labels.get(f"{LABEL}.fleet") == fleet and labels.get(f"{LABEL}.replica"):
            kind = aside if str(item.get("Name", "")).endswith((PREVIOUS, NEXT)) else ours
            kind.append(_replica(item, labels, problems))
        elif name := name_of(item, adopt):
            state = _STATES.get((item.get("State") or {}).get("Status", ""), "unknown")
            adopted.append(described(item, name, state, _gpus(item)))
        elif (item.get("State") or {}).get("Status") in ("running", "restarting", "paused"):
            foreign.append(_foreign(item))
    return UP, _with_previous(ours, aside), foreign, adopted


def images(timeout: int) -> dict[str, str]:
    """What each name of an image stands for on this host now: ``repository:tag`` -> the image's id.

    Empty where that cannot be told.
    """
    if which("docker") is None:
        return {}
    form = "{{.Repository}}:{{.Tag}} {{.ID}}"
    code, out, _ = run(["docker", "image", "ls", "--no-trunc", "--format", form], timeout)
    rows = (line.split() for line in out.splitlines()) if code == 0 else ()
    return {row[0]: row[1] for row in rows if len(row) == 2 and "<none>" not in row[0]}


def _with_previous(ours: list[dict[str, Any]], aside: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replicas, each with what was put aside for it.

    What is aside does not run, and holds nothing. If it does run, or is all that there is, a change was cut off: it
    stands for the replica then, so that a run sees its GPUs and port and brings the replica to what is wished.
    """
    replicas = {item["replica"]: item for item in sorted(ours, key=lambda one: bool(one["state"] == "up"))}
    for item in sorted(aside, key=lambda one: (one["state"] == "down", one["name"].endswith(NEXT))):
        there = replicas.setdefault(item["replica"], item)
        if there is not item and item["name"].endswith(PREVIOUS):
            there["previous"] = {
                key: item[key]
                for key in ("name", "state", "status", "hash", "spec", "gpus", "port", "container_id")
            }
    return list(replicas.values())


def _replica(item: dict[str, Any], labels: dict[str, str], problems: list[str]) -> dict[str, Any]:
    name = labels[f"{LABEL}.replica"]
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
        "name": str(item.get("Name", "")).lstrip("/"),
        "previous": None,
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
