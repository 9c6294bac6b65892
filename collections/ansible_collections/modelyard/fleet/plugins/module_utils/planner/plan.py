"""Put the plan together: place, build launch specs, compare, and write down the result as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner import changes as diff
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import launch
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.placement import place
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.registry_model import registry_models
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    ABSENT,
    DOWN,
    Current,
    Host,
    Model,
    Slot,
)

Engines = Mapping[str, Mapping[str, Any]]
Plan = dict[str, Any]


def make_plan(
    models: Sequence[Model],
    seen: Sequence[Seen],
    engines: Engines,
    proxies: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
) -> Plan:
    """The whole plan; ``assignments`` carry secrets in ``spec.env``. See :func:`redacted_plan`."""
    hosts = {item.host.name: item.host for item in seen}
    wished = {model.id: model for model in models}
    refusals: dict[tuple[str, str], str | None] = {}

    def refusal(model: Model, host: Host) -> str | None:
        key = (model.id, host.name)
        if key not in refusals:
            refusals[key] = launch.refusal(model, engines[model.engine], host)
        return refusals[key]

    placement = place(models, hosts.values(), (item for one in seen for item in one.current), refusal)
    dropped = {item.replica: item for item in placement.dropped}
    assignments: list[dict[str, Any]] = []
    changes: list[diff.Change] = []
    per_host: dict[str, dict[str, Any]] = {
        name: {"state": hosts[name].state, "replicas": [], "stops": []} for name in sorted(hosts)
    }
    for slot in placement.slots:
        model = wished.get(slot.model)
        stopped = dropped.pop(slot.replica, None)
        assignment = _assignment(slot, model, engines, hosts[slot.host])
        assignments.append(assignment)
        per_host[slot.host]["replicas"].append(assignment)
        changes.append(
            diff.change_of_slot(slot, assignment["hash"], launch.redacted(assignment["spec"]), stopped)
        )
        if stopped is not None and stopped.runtime != slot.runtime:
            per_host[slot.host]["stops"].append(_stop(stopped))
    existing = Counter(item.model for one in seen for item in one.current if item.state != ABSENT)
    for item in dropped.values():
        changes.append(diff.change_of_dropped(item, wished.get(item.model), existing[item.model]))
        per_host[item.host]["stops"].append(_stop(item))
    changes.sort(key=lambda change: (change.host, change.replica))
    return {
        "assignments": assignments,
        "changes": [change.as_dict() for change in changes],
        "counts": diff.count(changes),
        "problems": list(placement.problems),
        "notes": [*notes, *(note for one in seen for note in one.notes)],
        "hosts": per_host,
        "registry": {"models": registry_models(models, assignments)},
        "proxies": dict(proxies or {}),
    }


def redacted_plan(plan: Plan) -> Plan:
    """The same plan without any secret: what may be printed, written to a file and remembered."""
    clean = {item["replica"]: _clean(item) for item in plan["assignments"]}
    return {
        **plan,
        "assignments": list(clean.values()),
        "hosts": {
            name: {**host, "replicas": [clean[item["replica"]] for item in host["replicas"]]}
            for name, host in plan["hosts"].items()
        },
    }


def _clean(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**item, "spec": launch.redacted(item["spec"])}


def _assignment(slot: Slot, model: Model | None, engines: Engines, host: Host) -> dict[str, Any]:
    was = slot.was
    keeps_its_spec = was is not None and was.fixed and bool(was.spec)
    spec: dict[str, Any]
    weights: str | None
    digest: str | None
    if keeps_its_spec and was is not None:
        spec, digest, weights = dict(was.spec), was.hash, was.weights
    elif model is not None:
        spec = launch.build(model, engines[model.engine], host, slot)
        digest, weights = launch.spec_hash(spec), launch.weights_path(model.source, host.weights_dir)
    else:
        spec, digest, weights = {}, was.hash if was else None, None
    return {
        "replica": slot.replica,
        "model": slot.model,
        "host": slot.host,
        "index": slot.index,
        "gpus": list(slot.gpus),
        "port": slot.port,
        "engine": spec.get("engine", ""),
        "runtime": slot.runtime,
        "image": spec.get("image"),
        "weights": weights,
        "source": _source(model),
        "spec": spec,
        "hash": digest,
        "observed": was.state if was is not None else DOWN,
        "wished": slot.wished,
    }


def _source(model: Model | None) -> dict[str, Any] | None:
    if model is None or model.source is None:
        return None
    return {"kind": model.source.kind, "value": model.source.value, "pin": model.source.pin}


def _stop(item: Current) -> dict[str, str]:
    return {"replica": item.replica, "runtime": item.runtime}
