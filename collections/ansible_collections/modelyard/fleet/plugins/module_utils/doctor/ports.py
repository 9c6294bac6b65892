"""Who listens on the ports of the fleet: the replica that should, or a stranger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    Facts,
    Finding,
    finding,
)

Row = dict[str, Any]


def findings(
    host: str, ports: Facts, replicas: Iterable[Row], facts: Facts, proxy_port: int | None
) -> Iterator[Finding]:
    """``replicas`` are rows of ``fleet_status``, ``facts`` the result of ``fleet_facts``; ``proxy_port`` is of a proxy
    on this host.
    """
    if ports["state"] != "up":
        text = f"Who listens on the fleet's ports is not known: {ports['reason']}. Look as root (ss -ltnp)."
        yield finding("ports_unknown", UNKNOWN, host, "ports", text)
        return
    rows = list(replicas)
    wished = {row["port"]: row for row in rows if row["wished"] and row["port"]}
    there = {row["replica"] for row in rows if row["state"] != "down"}
    containers = {
        port: item["name"] for item in facts.get("foreign") or () for port in item.get("ports") or ()
    }
    for one in ports["listeners"]:
        port, row = one["port"], wished.get(one["port"])
        if one["replica"] is not None and (row is None or one["replica"] == row["replica"]):
            continue
        if port == proxy_port and row is None:
            continue
        who = _holder(one, containers.get(port))
        if row is None and one["replica"] is None:
            text = f"Port {port} of fleet_ports is held by {who or 'somebody who cannot be seen'}. No replica is given it."
            yield finding("port_held", NOTE, host, "ports", text, str(port))
        elif row is not None and who is None:
            if row["replica"] in there:
                text = (
                    f"Whether it is {row['replica']} that listens on its port {port} cannot be seen: its process is "
                    "another user's. Look as root (ss -ltnp)."
                )
                yield finding("port_unknown", UNKNOWN, host, "ports", text, row["replica"])
            else:
                yield _taken(host, port, row, "a process of another user")
        elif row is not None and who is not None:
            yield _taken(host, port, row, who)


def _taken(host: str, port: int, row: Row, who: str) -> Finding:
    text = (
        f"Port {port} of {row['replica']} is taken by {who}, so what asks the replica asks a stranger, or it cannot start. "
        "End the stranger, or move fleet_ports and deploy."
    )
    return finding("port_taken", CRITICAL, host, "ports", text, row["replica"])


def _holder(one: Mapping[str, Any], container: str | None) -> str | None:
    if container is not None:
        return f"the container {container}"
    if one["replica"] is not None:
        return f"the replica {one['replica']}"
    process = one["process"]
    return None if process is None else f"{process['name']} (process {process['pid']})"
