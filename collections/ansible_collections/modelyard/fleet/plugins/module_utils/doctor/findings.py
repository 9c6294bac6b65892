"""Everything that was seen of a fleet -> findings and a verdict for each host. Pure; the action ``doctor`` gathers it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import fleet_status
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor import (
    containers,
    drifted,
    edge,
    gpus,
    machine,
    ports,
    replicas,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    KINDS,
    NOTE,
    UNKNOWN,
    WARNING,
    Facts,
    Finding,
    finding,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.findings import compose as drift
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import (
    answered as edge_answered,
)

WELL, LOOK, ILL, NOBODY_KNOWS = "well", "look", "ill", "unknown"
WORST_FIRST = (CRITICAL, UNKNOWN, WARNING, NOTE)
_VERDICTS = ((CRITICAL, ILL), (UNKNOWN, NOBODY_KNOWS), (WARNING, LOOK))
_ORDER = (ILL, NOBODY_KNOWS, LOOK, WELL)
Seen = Mapping[str, Facts]


def compose(
    plan: Facts,
    settings: Seen,
    facts: Seen,
    compared: Seen,
    proxies: Seen,
    health: Seen,
    gpu_facts: Seen,
    probes: Seen,
    asked: Collection[str],
    generate: bool,
    edges: Mapping[str, tuple[Facts, Facts, Sequence[Facts]]] | None = None,
) -> dict[str, Any]:
    """``findings``, the worst host and its worst finding first, ``hosts`` with their verdicts, and ``generations``.

    ``plan`` is redacted; ``settings`` are the hosts' ``fleet_*`` values. The others hold by host the results of
    ``fleet_facts``, ``replica_drift``, ``proxy_state``, ``host_health``, ``gpu_facts`` and ``replica_ready``;
    ``edges`` that of ``edge_facts``, what is declared for the edge host, and its certificates. Hosts that are not in
    ``asked`` are left out.
    """
    edges = edges or {}
    rows = [row for row in _rows(plan, facts, probes) if row["host"] in asked]
    differs = drift(
        plan=plan,
        facts=facts,
        compared=compared,
        proxies=proxies,
        asked=asked,
        edge={host: one[:2] for host, one in edges.items()},
    )
    silent = {item["host"] for item in differs if item["kind"] == "host"}
    found = list(drifted.findings(differs, [str(row["replica"]) for row in rows]))
    for host in sorted(asked):
        own = [row for row in rows if row["host"] == host]
        seen = facts.get(host) or {}
        # A host that answers, with a runtime that does not, is looked at all the same.
        if not (host in silent and "began" not in (health.get(host) or {})):
            found += _host(host, plan, settings[host], seen, health.get(host) or {}, own, host in proxies)
            if settings[host]["fleet_accelerator"] != "cpu" and host in facts:
                found += gpus.findings(host, settings[host], gpu_facts.get(host) or {})
        if host not in silent:
            found += _replicas(plan, seen, health.get(host) or {}, own, probes.get(host) or {}, generate)
    for host, (seen, declared, certificates) in sorted(edges.items()):
        if host in asked and edge_answered(seen):
            limits = settings[host]["fleet_doctor_limits"]
            found += edge.findings(host, seen, declared, certificates, limits)
    if edges and set(edges) <= set(asked):
        moving = [address for one in edges.values() for address in one[1].get("addresses") or ()]
        found += edge.address_findings({host: one[0] for host, one in edges.items()}, moving)
    answers = {row["replica"]: row for one in probes.values() for row in one.get("replicas") or ()}
    hosts = sorted(
        (
            _verdict(host, found, [row for row in rows if row["host"] == host], answers, generate)
            for host in asked
        ),
        key=lambda one: (_ORDER.index(one["verdict"]), one["name"]),
    )
    place = {one["name"]: number for number, one in enumerate(hosts)}
    outside = len(place)  # what concerns no single host
    return {
        "findings": sorted(
            found,
            key=lambda one: (
                place.get(one["host"], outside),
                WORST_FIRST.index(one["severity"]),
                KINDS.index(one["kind"]),
                one["subject"],
            ),
        ),
        "hosts": hosts,
        "generations": replicas.generations([row for row in rows if row["wished"]], answers, generate),
        "counts": {name: sum(one["severity"] == name for one in found) for name in WORST_FIRST},
    }


def _rows(plan: Facts, facts: Seen, probes: Seen) -> list[dict[str, Any]]:
    return fleet_status.replica_rows(
        dict(plan),
        {host: dict(one) for host, one in facts.items()},
        {host: dict(one) for host, one in probes.items()},
    )


def _host(
    host: str,
    plan: Facts,
    settings: Facts,
    facts: Facts,
    health: Facts,
    rows: list[dict[str, Any]],
    has_proxy: bool,
) -> Iterator[Finding]:
    if "began" not in health:
        why = fleet_status.why_silent(health)
        text = f"Nothing is known of disks, memory, clock and ports: {why}. See to it, then look again."
        yield finding("health_unknown", UNKNOWN, host, "host", text)
        return
    yield from machine.findings(host, health, settings["fleet_doctor_limits"])
    runs = (plan["hosts"].get(host) or {}).get("replicas") or []
    is_engine_host = host in plan["hosts"]
    needed = is_engine_host and (
        settings["fleet_runtime"] == "docker" or any(item["runtime"] == "docker" for item in runs)
    )
    declared = gpus.declared(settings) if settings["fleet_accelerator"] != "cpu" else []
    yield from containers.findings(host, health, settings, declared, needed)
    if is_engine_host:
        proxy_port = int(settings["fleet_proxy_port"]) if has_proxy else None
        yield from ports.findings(host, health["ports"], rows, facts, proxy_port)


def _replicas(
    plan: Facts, facts: Facts, health: Facts, rows: list[dict[str, Any]], probes: Facts, generate: bool
) -> Iterator[Finding]:
    observed = {item["replica"]: item for item in facts.get("replicas") or ()}
    answers = {item["replica"]: item for item in probes.get("replicas") or ()}
    periods = {item["replica"]: float(item["spec"]["start_period_s"]) for item in plan["assignments"]}
    for row in rows:
        if row["wished"]:
            name = row["replica"]
            seen = observed.get(name) or {}
            yield from replicas.findings(
                row, answers.get(name), generate, seen, periods.get(name, 0.0), health.get("ended")
            )


def _verdict(
    host: str,
    findings: list[Finding],
    rows: list[dict[str, Any]],
    answers: Mapping[str, Facts],
    generate: bool,
) -> dict[str, Any]:
    """``well``, ``look`` (warnings), ``ill`` (something critical) or ``unknown``, the counts, and a few words."""
    counts = dict.fromkeys(WORST_FIRST, 0)
    for one in findings:
        if one["host"] == host:
            counts[one["severity"]] += 1
    verdict = next((word for severity, word in _VERDICTS if counts[severity]), WELL)
    wished = [row for row in rows if row["wished"]]
    told = [f"{number} {_plural(name, number)}" for name, number in counts.items() if number]
    if wished and generate:
        good = sum(bool((answers.get(row["replica"]) or {}).get("ok")) for row in wished)
        told.append(f"{good} of {len(wished)} {_plural('replica', len(wished))} generated")
    elif wished:
        ready = sum(row["health"] == "ready" for row in wished)
        told.append(f"{ready} of {len(wished)} {_plural('replica', len(wished))} ready")
    return {"name": host, "verdict": verdict, "counts": counts, "told": ", ".join(told)}


def _plural(name: str, number: int) -> str:
    return f"{name}s" if name in ("warning", "note", "replica") and number != 1 else name
