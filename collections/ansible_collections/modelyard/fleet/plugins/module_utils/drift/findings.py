"""The plan and what was seen -> findings. Pure functions over plain data; the action plugin ``drift`` gathers it.

A finding is ``drift`` (reality is not what is declared), ``unknown`` (nobody could tell) or a ``note`` (worth knowing,
and nothing to be mended: a container of somebody else).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.drift.edge import edge_findings
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.registry import proxy_findings
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.words import (
    DEPLOY,
    DRIFT,
    LOOK,
    NOTE,
    NOTHING,
    UNKNOWN,
    Finding,
    finding,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import (
    answered as edge_answered,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.fleet_status import host_state

_RESTART = f"{LOOK}: its files are as declared, the process is not; a restart makes it so"


def compose(
    plan: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
    compared: Mapping[str, Mapping[str, Any]],
    proxies: Mapping[str, Mapping[str, Any]],
    asked: Collection[str],
    edge: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] | None = None,
) -> list[Finding]:
    """Every finding, in order of host, kind and subject.

    ``plan`` is redacted. ``facts``, ``compared`` and ``proxies`` hold by host the results of the modules
    ``fleet_facts``, ``replica_drift`` and ``proxy_state``, ``edge`` those of ``edge_facts`` and what is declared. Hosts
    that are not in ``asked`` are left out.
    """
    found: list[Finding] = []
    for host in sorted(set(facts) & set(asked)):
        found += _host_findings(host, plan, facts[host], compared.get(host) or {})
    silent = {item["host"] for item in found if item["kind"] == "host"}
    for host in sorted(set(proxies) & set(asked)):
        if host_state(dict(proxies[host])) == "unknown":
            found += [] if host in silent else [_silent(host, proxies[host], ())]
        else:
            found += proxy_findings(host, plan["registry"]["models"], proxies[host])
    silent |= {item["host"] for item in found if item["kind"] == "host"}
    for host, (seen, declared) in sorted((edge or {}).items()):
        if host in asked:
            if not edge_answered(seen):
                found += [] if host in silent else [_silent(host, seen, ())]
            found += edge_findings(host, seen, declared)
    found += [
        finding(DRIFT, "fleet", "plan", "wish", "placement", "every wish met", problem, LOOK)
        for problem in plan.get("problems") or []
    ]
    return sorted(found, key=lambda item: (item["host"], item["kind"], item["subject"], item["field"]))


def _host_findings(
    host: str, plan: Mapping[str, Any], facts: Mapping[str, Any], compared: Mapping[str, Any]
) -> list[Finding]:
    planned = plan["hosts"].get(host) or {}
    if host_state(dict(facts)) == "unknown" or planned.get("state") != "up":
        return [_silent(host, facts, [item["replica"] for item in planned.get("replicas") or []])]
    seen = {item["replica"]: item for item in facts.get("replicas") or []}
    # An adopted container was started by other means: the plan says whether it stays, nothing says how it should be.
    adopted = {item["replica"] for item in planned.get("replicas") or [] if item.get("adopted")}
    containers = {item["container_id"]: item for item in facts.get("adopted") or []}
    for item in planned.get("replicas") or []:
        if item.get("replaces") in containers:
            seen.setdefault(item["replica"], containers[item["replaces"]])
    differences = {item["replica"]: item["differences"] for item in compared.get("replicas") or []}
    found: list[Finding] = []
    for change in plan["changes"]:
        if change["host"] == host and not (change["action"] == "keep" and change["replica"] in adopted):
            replica = change["replica"]
            found += _replica(change, seen.get(replica), differences.get(replica))
    for problem in compared.get("problems") or []:
        found.append(finding(UNKNOWN, host, "replica", host, "comparison", "", problem, LOOK))
    if compared.get("msg") and "replicas" not in compared:
        found.append(finding(UNKNOWN, host, "replica", host, "comparison", "", str(compared["msg"]), LOOK))
    found += [_weights(host, item) for item in compared.get("weights") or []]
    found += [_leftover(host, item) for item in [*(compared.get("leftovers") or []), *_kept_files(seen)]]
    found += _adopted(host, planned, facts.get("adopted") or [])
    found += _others(host, planned, facts.get("foreign") or [])
    return found


def _silent(host: str, result: Mapping[str, Any], replicas: Iterable[str]) -> Finding:
    """A host that did not answer, or whose runtime did not: all that is on it is unknown."""
    why = str(result.get("msg") or "; ".join(result.get("problems") or []) or "it did not answer").strip()
    first = why.splitlines()[0]
    names = ", ".join(sorted(replicas))
    told = f"{first} (not seen: {names})" if names else first
    return finding(UNKNOWN, host, "host", host, "state", "up", told, f"{LOOK}: nothing is done to it")


def _replica(
    change: Mapping[str, Any], seen: Mapping[str, Any] | None, differences: list[dict[str, Any]] | None
) -> list[Finding]:
    host, replica, action = change["host"], change["replica"], change["action"]

    def state(severity: str, wanted: str, found: str, what: str) -> Finding:
        return finding(severity, host, "replica", replica, "state", wanted, found, what)

    if action == "unknown":
        status = (seen or {}).get("status") or change["reason"]
        return [state(UNKNOWN, "up", f"unknown: {status}", f"{LOOK}: nothing is done to it")]
    if action == "stop":
        return [state(DRIFT, "not there", _state(seen), f"{DEPLOY} (stops it): {change['reason']}")]
    if seen is None and action != "replace":
        return [state(DRIFT, "up", "missing", f"{DEPLOY} (starts it)")]
    seen = seen or {"state": "up"}  # replaced though not seen: a container of somebody else is in its place
    found = [_difference(host, replica, item) for item in differences or []]
    if seen["state"] == "down":
        found.insert(0, state(DRIFT, "up", _state(seen), f"{DEPLOY} (starts it)"))
    elif seen.get("lost"):
        found.insert(0, state(DRIFT, "up", str(seen["lost"]), f"{DEPLOY} (replaces it)"))
    if action == "replace" and not found:
        found.append(
            finding(DRIFT, host, "settings", replica, "launch spec", "as declared", change["reason"], DEPLOY)
        )
    return found


def _state(seen: Mapping[str, Any] | None) -> str:
    if seen is None:
        return "missing"
    status = str(seen.get("status") or "").lower()
    more = [status] if status and status != seen["state"] else []
    if seen["state"] == "down" and seen.get("exit_code") is not None:
        more.append(f"exit code {seen['exit_code']}")
    return f"{seen['state']} ({', '.join(more)})" if more else str(seen["state"])


def _difference(host: str, replica: str, item: Mapping[str, Any]) -> Finding:
    what = _RESTART if item["seen_in"] == "process" else DEPLOY
    found = (
        item["found"]
        if item["seen_in"] in ("container", "process")
        else f"{item['found']} ({item['seen_in']})"
    )
    return finding(DRIFT, host, item["kind"], replica, item["field"], item["wanted"], found, what)


def _weights(host: str, item: Mapping[str, Any]) -> Finding:
    what = LOOK if item["field"] == "path" else f"{DEPLOY} (fetches them)"
    subject = f"{item['model']} in {item['destination']}"
    return finding(DRIFT, host, "weights", subject, item["field"], item["wanted"], item["found"], what)


def _leftover(host: str, item: Mapping[str, Any]) -> Finding:
    told = f"{item['state']}: {item['why']}"
    what = DEPLOY if item.get("mended") else f"{LOOK}: {item['advice']}"
    return finding(DRIFT, host, "leftover", item["name"], "state", "not there", told, what)


def _kept_files(seen: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a change kept of processes that it replaced, in the shape of a leftover container."""
    return [
        {
            "name": f"{replica} (previous)",
            "state": "files only",
            "why": "left by a change that did not end",
            "advice": "the next change of this replica removes it",
        }
        for replica, item in sorted(seen.items())
        if item.get("previous") and item.get("runtime") == "process"
    ]


def _adopted(host: str, planned: Mapping[str, Any], containers: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Containers that are kept as replicas, with how they depart from the house rules: no drift."""
    names = {
        item["adopted"].get("id"): item["replica"]
        for item in planned.get("replicas") or []
        if item.get("adopted")
    }
    return [
        finding(
            NOTE,
            host,
            "adopted",
            names[item["container_id"]],
            "container",
            "",
            "; ".join([str(item["container"]), *item.get("remarks", ())]),
            f"{NOTHING}: kept as it is until its wish changes",
        )
        for item in containers
        if item["container_id"] in names
    ]


def _others(host: str, planned: Mapping[str, Any], foreign: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Containers of others, which are nobody's fault, and GPUs that somebody else has taken."""
    found = []
    for item in foreign:
        told = [f"image {item['image']}"]
        told += [f"ports {', '.join(map(str, item['ports']))}"] if item.get("ports") else []
        told += [f"GPUs {', '.join(item['gpus'])}"] if item.get("gpus") else []
        found.append(
            finding(
                NOTE, host, "foreign", item["name"], "container", "", "; ".join(told), f"{NOTHING}: not ours"
            )
        )
    for gpu, holder in sorted((planned.get("blocked_gpus") or {}).items()):
        what = f"{LOOK}: declared for the fleet, so no replica is placed on it"
        found.append(finding(DRIFT, host, "gpus", f"GPU {gpu}", "used by", "the fleet alone", holder, what))
    return found
