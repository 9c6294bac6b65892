"""Put the plan together: place, build launch specs, compare, and write down the result as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner import changes as diff
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import footprints as memory
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import launch
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.drains import Rule, is_drained
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.placement import place
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.registry_model import registry_models
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.rollout import rollout, wants_surge
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
RESTART = "a restart is asked for"
UNPROVED = "runs, but the run that started it has not proved it: proved before it is used"


def make_plan(
    models: Sequence[Model],
    seen: Sequence[Seen],
    engines: Engines,
    proxies: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    drained: Sequence[Rule] = (),
    restart: Sequence[Rule] = (),
    unproved: Mapping[str, str] | None = None,
    differs: Mapping[str, str] | None = None,
    footprints: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """The whole plan; ``assignments`` carry secrets in ``spec.env``. See :func:`redacted_plan`.

    What ``drained`` names gets no requests; of what ``restart`` names each replica that would stay is replaced all the
    same. ``unproved`` are hashes, by replica, that a run has started and not proved: one that runs with this hash gets
    no requests until it has given its answers. ``differs`` says of replicas that look unchanged by their record how
    they differ in fact. ``footprints`` are what replicas were seen to use of GPUs before; the plan has
    them with those of now.
    """
    hosts = {item.host.name: item.host for item in seen}
    running = [item for one in seen for item in one.current]
    known = memory.measured(hosts, running, engines, unproved or {}, footprints or {})
    models = [memory.with_need(model, engines[model.engine], known) for model in models]
    wished = {model.id: model for model in models}
    refusals: dict[tuple[str, str], str | None] = {}

    def refusal(model: Model, host: Host) -> str | None:
        key = (model.id, host.name)
        if key not in refusals:
            refusals[key] = launch.refusal(model, engines[model.engine], host)
        return refusals[key]

    def surges(model: Model, slot: Slot) -> bool:
        return (
            wants_surge(model)
            and slot.was is not None
            and not slot.was.lost
            and slot.was.adopted is None
            and _hash(model, slot) != slot.was.hash
        )

    def _hash(model: Model, slot: Slot) -> str:
        return launch.spec_hash(launch.build(model, engines[model.engine], hosts[slot.host], slot))

    by_restart: set[str] = set()

    def renews(model: Model, slot: Slot) -> bool:
        was = slot.was
        if was is None:
            return False
        if was.adopted is not None or _hash(model, slot) != was.hash or slot.replica in (differs or {}):
            return True
        asked = is_drained(restart, slot.replica, slot.model, slot.host)
        if asked:
            by_restart.add(slot.replica)
        return asked

    current = [_restarted(item, restart) for item in running]
    placement = place(models, hosts.values(), current, refusal, surges, renews)
    dropped = {item.replica: item for item in placement.dropped}
    assignments: list[dict[str, Any]] = []
    changes: list[diff.Change] = []
    per_host: dict[str, dict[str, Any]] = {
        name: {
            "state": hosts[name].state,
            "gpus": list(hosts[name].gpus),
            "blocked_gpus": dict(hosts[name].blocked_gpus),
            "unwell_gpus": dict(hosts[name].unwell_gpus),
            "devices": {
                gpu: {"memory": one.memory, "unwell": hosts[name].unwell_gpus.get(gpu, "")}
                for gpu, one in hosts[name].devices.items()
            },
            "replicas": [],
            "stops": [],
        }
        for name in sorted(hosts)
    }
    for slot in placement.slots:
        model = wished.get(slot.model)
        stopped = dropped.pop(slot.replica, None)
        assignment = _assignment(slot, model, engines, hosts[slot.host])
        if stopped is not None and stopped.adopted is not None:
            assignment["replaces"] = stopped.adopted.id
        assignments.append(assignment)
        per_host[slot.host]["replicas"].append(assignment)
        change = diff.change_of_slot(slot, assignment["hash"], launch.redacted(assignment["spec"]), stopped)
        if change.action == "keep" and is_drained(restart, slot.replica, slot.model, slot.host):
            change = replace(change, action="replace", reason=RESTART)
        if change.action == "keep" and (differs or {}).get(slot.replica):
            change = replace(change, action="replace", reason=(differs or {})[slot.replica])
        if change.action == "keep" and (unproved or {}).get(slot.replica) == assignment["hash"]:
            change = replace(change, action="replace", reason=UNPROVED)
        changes.append(change)
        if stopped is not None and stopped.runtime != slot.runtime:
            per_host[slot.host]["stops"].append(_stop(stopped))
    of = {item["replica"]: item for item in assignments}
    existing = Counter(item.model for one in seen for item in one.current if item.state != ABSENT)
    for item in dropped.values():
        gone = diff.change_of_dropped(item, wished.get(item.model), existing[item.model])
        heir = placement.heirs.get(item.replica)
        if heir:
            why = diff.difference(item.spec, launch.redacted(of[heir]["spec"]))
            gone = replace(gone, reason=f"{heir} takes its place once it is ready: {why}")
        changes.append(gone)
        per_host[item.host]["stops"].append(_stop(item))
    changes = diff.moved_by(RESTART, by_restart, changes)
    changes.sort(key=lambda change: (change.host, change.replica))
    doubtful = [one.replica for one in changes if one.reason == UNPROVED]
    moving = rollout(wished, placement, changes, hosts, drained, doubtful)
    return {
        "assignments": assignments,
        "changes": [change.as_dict() for change in changes],
        "counts": diff.count(changes),
        "problems": [*(problem for one in seen for problem in one.problems), *placement.problems],
        "restart": [change.replica for change in changes if change.reason == RESTART],
        "unproved": dict(unproved or {}),
        "footprints": known,
        "drained": [dict(rule) for rule in drained],
        "notes": [
            *notes,
            *(note for one in seen for note in one.notes),
            *placement.notes,
            *moving.pop("notes"),
            *(f"{rule['kind']} {rule['name']} is drained: no requests until undrain" for rule in drained),
        ],
        "hosts": per_host,
        "rollout": moving,
        "registry": {"models": registry_models(models, assignments, drained)},
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
        if was is not None and was.adopted is not None and (was.kept_as_it_is or was.fixed):
            spec = launch.adopted_spec(spec, host.address, slot.port, was.adopted.served_name)
        digest, weights = launch.spec_hash(spec), launch.weights_of(model, host)
    else:
        spec, digest, weights = {}, was.hash if was else None, None
    return {
        **_adoption(was),
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
        "golden": dict(model.golden) if model is not None else {},
        "observed": was.state if was is not None else DOWN,
        "wished": slot.wished,
    }


def _restarted(item: Current, restart: Sequence[Rule]) -> Current:
    """An adopted container is not ours to start again: where a restart is asked for, a replica takes its place."""
    if item.adopted is not None and is_drained(restart, item.replica, item.model, item.host):
        return replace(item, lost=RESTART)
    return item


def _adoption(was: Current | None) -> dict[str, Any]:
    """``adopted``: the container that is the replica; ``replaces``: the adopted one that it takes the place of."""
    if was is None or was.adopted is None:
        return {}
    if was.kept_as_it_is or was.fixed:
        return {"adopted": asdict(was.adopted)}
    return {"replaces": was.adopted.id}


def _source(model: Model | None) -> dict[str, Any] | None:
    if model is None or model.source is None:
        return None
    found: dict[str, Any] = {
        "kind": model.source.kind,
        "value": model.source.value,
        "pin": model.source.pin,
    }
    return found | ({"checksums": dict(model.source.checksums)} if model.source.checksums else {})


def _stop(item: Current) -> dict[str, str]:
    stop = {"replica": item.replica, "runtime": item.runtime}
    if item.adopted is not None:
        stop["container"] = item.adopted.id
    return stop
