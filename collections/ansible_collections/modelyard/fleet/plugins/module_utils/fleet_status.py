"""What is up, down or unknown: the wish, the hosts' own word and the probes' answers, side by side.

Pure functions over plain data; the action plugin ``status`` gathers the data and prints what comes out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

Row = dict[str, Any]

UP = "up"
DOWN = "down"
UNKNOWN = "unknown"


def host_state(facts: Row | None) -> str:
    """A host is up when it answered, unknown when it did not; nothing here can prove it down."""
    if not facts or facts.get("unreachable") or facts.get("failed") or facts.get("skipped"):
        return UNKNOWN
    return UP


def why_silent(seen: Mapping[str, Any]) -> str:
    """Why nothing is known of a host, in one line, from the result of the module that was to look."""
    told = str(seen.get("msg") or "it was not asked").strip().splitlines()
    return told[0] if told else "it did not answer"


def replica_row(wished: Row | None, observed: Row | None, probe: Row | None, host: str, host_is: str) -> Row:
    """One replica as an operator wants to read it.

    ``state`` is the three-valued truth about the process or container; ``health`` is what the engine itself
    answered (``ready``, a reason why not, or ``unknown``); ``reason`` explains anything but up and ready.
    """
    source = wished or observed or {}
    row: Row = {
        "replica": source.get("replica"),
        "model": source.get("model"),
        "host": host,
        "port": source.get("port"),
        "gpus": list(source.get("gpus") or []),
        "since": (observed or {}).get("started_at"),
        "wished": wished is not None and wished.get("wished", True),
        "health": UNKNOWN,
        "reason": "",
    }
    if host_is == UNKNOWN:
        return row | {"state": UNKNOWN, "reason": "the host does not answer"}
    if observed is None:
        return row | {
            "state": DOWN,
            "health": "not there",
            "reason": "wished, but not on the host: run deploy",
        }
    row["state"] = observed.get("state", UNKNOWN)
    if row["state"] == UP and probe is not None:
        row["health"] = "ready" if probe.get("ready") else str(probe.get("error") or "not ready")
    if row["state"] == DOWN:
        row["health"] = "not running"
        row["reason"] = "it stopped: run deploy to start it again"
    elif row["state"] == UNKNOWN:
        row["reason"] = f"its runtime says: {observed.get('status') or 'nothing'}"
    elif row["health"] not in ("ready", UNKNOWN):
        row["reason"] = "it runs, but does not answer as it should"
    elif observed.get("lost"):
        row["reason"] = f"{observed['lost']}: run deploy to replace it"
    if wished and wished.get("adopted") and not row["reason"]:
        row["reason"] = f"adopted: container {wished['adopted']['container']}"
    if wished and wished.get("replaces"):
        row["reason"] = "an adopted container that deploy would replace: see plan"
    if not row["wished"]:
        row["reason"] = "not in the inventory: deploy would stop it"
    elif wished and observed.get("hash") and wished.get("hash") and observed["hash"] != wished["hash"]:
        row["reason"] = row["reason"] or "runs with other settings than declared: see plan"
    return row


def replica_rows(plan: Row, facts: dict[str, Row], probes: dict[str, Row]) -> list[Row]:
    """Every replica that is wished or there, in the order of hosts and ids.

    ``facts`` and ``probes`` are keyed by host; a probe result holds ``replicas``, a list with ``replica`` and ``ready``.
    """
    rows: list[Row] = []
    wished_by_host: dict[str, dict[str, Row]] = {}
    for assignment in plan.get("assignments") or []:
        wished_by_host.setdefault(assignment["host"], {})[assignment["replica"]] = assignment
    for host in sorted(set(wished_by_host) | set(facts)):
        state = host_state(facts.get(host))
        wished = wished_by_host.get(host, {})
        observed = {row["replica"]: row for row in (facts.get(host) or {}).get("replicas") or []}
        containers = {row["container_id"]: row for row in (facts.get(host) or {}).get("adopted") or []}
        for name, assignment in wished.items():
            identity = (assignment.get("adopted") or {}).get("id") or assignment.get("replaces")
            if name not in observed and identity in containers:
                observed[name] = {"replica": name, "model": assignment["model"], **containers[identity]}
        answers = {row["replica"]: row for row in (probes.get(host) or {}).get("replicas") or []}
        rows += [
            replica_row(wished.get(name), observed.get(name), answers.get(name), host, state)
            for name in sorted(set(wished) | set(observed))
        ]
    return rows


def host_rows(facts: dict[str, Row], replicas: list[Row], planned: dict[str, Row]) -> list[Row]:
    """One row for each engine host; ``planned`` are the plan's hosts.

    GPUs are ``used`` by replicas that are there or wished, ``blocked`` by somebody else, ``unwell`` (no new replica gets
    them), or ``free``.
    """
    rows = []
    for host in sorted(facts):
        here = [row for row in replicas if row["host"] == host]
        known = facts[host] or {}
        plan = planned.get(host) or {}
        own, blocked = set(plan.get("gpus") or []), set(plan.get("blocked_gpus") or [])
        unwell = set(plan.get("unwell_gpus") or [])
        used = own & {str(gpu) for row in here for gpu in row["gpus"]}
        rows.append(
            {
                "name": host,
                "state": host_state(known),
                "docker": known.get("docker", UNKNOWN),
                "gpus": len(known.get("gpus") or []),
                "gpus_used": len(used),
                "gpus_free": len(own - used - blocked - unwell),
                "gpus_blocked": len(blocked - used),
                "gpus_unwell": len(unwell - used - blocked),
                "replicas_up": sum(row["state"] == UP for row in here),
                "replicas_wished": sum(row["wished"] for row in here),
                "foreign": len(known.get("foreign") or []),
                "problems": list(known.get("problems") or []),
            }
        )
    return rows


def proxy_row(host: str, asked: Row) -> Row:
    """One proxy, from a result of the module ``proxy_state``; unknown when its host did not answer."""
    row: Row = {
        "host": host,
        "url": asked.get("url", ""),
        "state": UNKNOWN,
        "ready": False,
        "generation": (asked.get("registry") or {}).get("generation"),
        "in_force": asked.get("generation"),
        "endpoints": _endpoint_counts(asked.get("registry") or {}),
        "models": [],
    }
    if host_state(asked) == UNKNOWN:
        return row
    return row | {
        "state": UP if asked.get("live") else DOWN,
        "ready": bool(asked.get("ready")),
        "models": list(asked.get("models") or []),
    }


def _endpoint_counts(registry: Row) -> dict[str, int]:
    """How many endpoints of a proxy's file are ``active``, ``draining`` ...; empty without a file."""
    counts: dict[str, int] = {}
    for entry in (registry.get("models") or {}).values():
        for endpoint in entry.get("endpoints") or []:
            state = str(endpoint.get("state", "active"))
            counts[state] = counts.get(state, 0) + 1
    return dict(sorted(counts.items()))


def overall(status: Row, asked: Collection[str]) -> str:
    """``down`` when a wished replica, a proxy or an edge of the asked hosts is surely not up and ready, or an address of
    the edge is not where one host has it; else ``unknown`` when something could not be seen, else ``up``.
    """
    states = [row["state"] for row in status["hosts"] if row["name"] in asked]
    states += [row["state"] for row in status["proxies"] if row["host"] in asked]
    edges = [row for row in status.get("edge") or () if row["host"] in asked]
    for row in edges:
        states += [row["state"], *([] if row["address_service"] == "none" else [row["address_service"]])]
    # who looks at one edge host only is not told that the others were not seen
    if len(edges) == len(status.get("edge") or ()) or any(row["holds"] for row in edges):
        states += [row["state"] for row in status.get("edge_addresses") or ()]
    for row in status["replicas"]:
        if row["wished"] and row["host"] in asked:
            ready = row["state"] != UP or row["health"] in ("ready", UNKNOWN)
            states.append(row["state"] if ready else DOWN)
    return DOWN if DOWN in states else UNKNOWN if UNKNOWN in states else UP


def endpoint_rows(registry: Row, replicas: list[Row]) -> list[Row]:
    """What the registry promises, with what is known of the replica behind each promise."""
    known = {row["replica"]: row for row in replicas}
    rows = []
    for model, entry in sorted((registry.get("models") or {}).items()):
        for endpoint in entry.get("endpoints") or []:
            replica = known.get(endpoint["id"])
            state = replica["state"] if replica else UNKNOWN
            if replica and state == UP and replica["health"] not in ("ready", UNKNOWN):
                state = "not ready"
            rows.append({"model": model, "id": endpoint["id"], "url": endpoint["url"], "state": state})
    return rows
