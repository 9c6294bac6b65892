"""Containers that were started by other means and that the fleet adopts: found by name or id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared, nothing binds


def name_of(item: dict[str, Any], wanted: Iterable[str]) -> str | None:
    """Which of the wanted names or ids (12 digits at least) an inspected container has."""
    own = str(item.get("Name", "")).lstrip("/")
    identity = str(item.get("Id", ""))
    for name in wanted:
        if name == own or (len(name) >= 12 and identity.startswith(name)):
            return name
    return None


def described(item: dict[str, Any], name: str, state: str, gpus: list[str]) -> dict[str, Any]:
    """What the planner must know of an adopted container. ``bindings``: host address, host port, port inside."""
    network = (item.get("HostConfig") or {}).get("NetworkMode")
    return {
        "container": name,
        "container_id": item["Id"],
        "image": (item.get("Config") or {}).get("Image", ""),
        "image_id": item.get("Image"),
        "state": state,
        "status": (item.get("State") or {}).get("Status", ""),
        "started_at": (item.get("State") or {}).get("StartedAt"),
        "gpus": gpus,
        "host_network": network == "host",
        "bindings": _bindings(item),
        "remarks": _remarks(item),
    }


def _remarks(item: dict[str, Any]) -> list[str]:
    """How it departs from the house rules: worth knowing, and no reason to touch it."""
    host = item.get("HostConfig") or {}
    found = []
    if host.get("Privileged"):
        found.append("privileged")
    elif "ALL" not in [str(one).upper() for one in host.get("CapDrop") or []]:
        found.append("has capabilities")
    if not host.get("ReadonlyRootfs"):
        found.append("its root is writable")
    if str((item.get("Config") or {}).get("User") or "0").partition(":")[0] in ("0", "root"):
        found.append("runs as root")
    if host.get("NetworkMode") == "host":
        found.append("uses the host's network")
    elif any(one["address"] in EVERYWHERE for one in _bindings(item)):
        found.append("published on every address of the host")
    return found


def _bindings(item: dict[str, Any]) -> list[dict[str, Any]]:
    live = (item.get("NetworkSettings") or {}).get("Ports") or {}
    wished = (item.get("HostConfig") or {}).get("PortBindings") or {}
    found = []
    for inside, entries in sorted((live or wished).items()):
        for entry in entries or []:
            port = str(entry.get("HostPort", ""))
            if port.isdigit() and int(port) > 0 and inside.endswith("/tcp"):
                found.append(
                    {
                        "address": entry.get("HostIp", ""),
                        "port": int(port),
                        "container_port": int(inside.partition("/")[0]),
                    }
                )
    return found
