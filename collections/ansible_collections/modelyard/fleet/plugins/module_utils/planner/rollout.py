"""The plan's changes as steps, and what the fleet must know to take them: paces, places, what serves now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.changes import Change
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.drains import Rule, is_drained
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import endpoint_url
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    UP,
    Current,
    Host,
    Model,
    Placement,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.waves import (
    Move,
    Pace,
    Part,
    Resource,
    waves,
)

DRAIN_S = 60.0


def pace_of(model: Model) -> Pace:
    """The model's ``rollout`` with its defaults worked out for its number of replicas."""
    wish, replicas = model.rollout, model.replicas
    default = replicas - 1 if replicas > 1 else 0
    asked = wish.get("min_ready")
    least = min(default if asked is None else int(asked), max(replicas - 1, 0))
    return Pace(
        min_ready=least, canary=int(wish.get("canary", 1)), step=_count(wish.get("step", "25%"), replicas)
    )


def wants_surge(model: Model) -> bool:
    """Whether a changed replica is started at another place before it stops: where replacing it in place would leave the
    model without any. Elsewhere the others serve meanwhile, and places stay as they are.
    """
    return bool(model.rollout.get("surge", True)) and model.replicas == 1


def _count(step: Any, replicas: int) -> int:
    """``"25%"`` of the replicas, rounded down, or a number; at least one."""
    text = str(step)
    number = int(text[:-1]) * replicas // 100 if text.endswith("%") else int(text)
    return max(number, 1)


def rollout(
    models: Mapping[str, Model],
    placement: Placement,
    changes: Sequence[Change],
    hosts: Mapping[str, Host],
    drained: Sequence[Rule] = (),
    doubtful: Sequence[str] = (),
) -> dict[str, Any]:
    """``steps``, ``held``, ``before`` and ``notes`` of a plan.

    ``before`` holds, by replica id, what serves now and is going to be replaced or stopped: the endpoint that the
    registry keeps until then, and the launch spec (redacted) that it is put back to. What is ``drained`` serves nobody,
    so it may be moved at any time, and does not serve afterwards; what is ``doubtful`` serves nobody until its step.
    """
    quiet = [*drained, *({"kind": "replica", "name": one} for one in doubtful)]
    by_id = {slot.replica: slot for slot in placement.slots}
    gone = {item.replica: item for item in placement.dropped}
    heirs = set(placement.heirs.values())
    ready = Counter(
        item.model
        for item in [*gone.values(), *(slot.was for slot in by_id.values() if slot.was is not None)]
        if _serves(item, quiet)
    )
    moves: list[Move] = []
    before: dict[str, dict[str, Any]] = {}
    for change in changes:
        if change.action in ("keep", "unknown"):
            continue
        slot, old = by_id.get(change.replica), gone.get(change.replica)
        was = old or (slot.was if slot is not None else None)
        runs = was is not None and was.state == UP
        moves.append(
            Move(
                action=change.action,
                replica=change.replica,
                model=change.model,
                joins=not is_drained(drained, change.replica, change.model, change.host),
                heir=placement.heirs.get(change.replica, ""),
                paced=change.replica in heirs,
                serves=was is not None and _serves(was, quiet),
                needs=_places(slot.host, slot.gpus, slot.port) if slot is not None else frozenset(),
                frees=_places(was.host, was.gpus, was.port) if runs and was is not None else frozenset(),
            )
        )
        if was is not None and runs:
            before[change.replica] = _before(was, models.get(was.model), hosts[was.host], quiet)
    paces = {name: pace_of(model) for name, model in models.items()}
    made = waves(moves, paces, ready)
    where = {change.replica: change.host for change in changes}
    steps = [
        _step(number, len(made.steps), parts, models, where) for number, parts in enumerate(made.steps, 1)
    ]
    return {
        "steps": steps,
        "held": [
            {
                "replica": move.replica,
                "reason": f"{ready[move.model]} of {move.model} serve now and rollout.min_ready is "
                f"{paces[move.model].min_ready if move.model in paces else 0}",
            }
            for move in made.held
        ],
        "before": before,
        "notes": _notes(moves, models, paces),
    }


def _serves(item: Current, drained: Sequence[Rule]) -> bool:
    return (
        item.state == UP
        and not _orphaned(item)
        and not is_drained(drained, item.replica, item.model, item.host)
    )


def _orphaned(item: Current) -> bool:
    """Whether it has outlived its supervisor: a new one starts all that it has, so they can only go together."""
    return item.runtime == "process" and bool(item.lost)


def _step(
    number: int, of: int, parts: Sequence[Part], models: Mapping[str, Model], where: Mapping[str, str]
) -> dict[str, Any]:
    ids = {
        name: [one for part in parts for one in getattr(part, name)]
        for name in ("replicas", "drain", "stops")
    }
    kinds = sorted({part.kind for part in parts})
    return {
        "number": number,
        "of": of,
        "kind": kinds[0] if len(kinds) == 1 else " and ".join(kinds),
        "models": [part.model for part in parts],
        "hosts": sorted({where[one] for one in (*ids["replicas"], *ids["stops"])}),
        "drain_s": {
            one: float(models[part.model].rollout.get("drain_s", DRAIN_S))
            if part.model in models
            else DRAIN_S
            for part in parts
            for one in part.drain
        },
        **ids,
    }


def _places(host: str, gpus: Iterable[str], port: int | None) -> frozenset[Resource]:
    return frozenset({*((host, "gpu", gpu) for gpu in gpus), (host, "port", str(port))})


def _before(was: Current, model: Model | None, host: Host, drained: Sequence[Rule]) -> dict[str, Any]:
    spec = dict(was.spec)
    port = was.port or 0
    known_as = was.adopted.served_name if was.adopted is not None else None
    return {
        **({"adopted": was.adopted.id} if was.adopted is not None else {}),
        "model": was.model,
        "host": was.host,
        "runtime": was.runtime,
        "hash": was.hash,
        "spec": spec,
        "endpoint": {
            "id": was.replica,
            "url": spec.get("url") or endpoint_url(host.address, port),
            "engine": was.engine or (model.engine if model is not None else ""),
            "served_name": spec.get("served_name") or known_as or was.model,
            "state": "draining" if is_drained(drained, was.replica, was.model, was.host) else "active",
            "host": was.host,
            "expires_at": None,
        },
    }


def _notes(moves: Iterable[Move], models: Mapping[str, Model], paces: Mapping[str, Pace]) -> list[str]:
    """Models that will not be served for a while, and why that cannot be helped."""
    taken = Counter(move.model for move in moves if move.action == "replace" and move.serves)
    return [
        f"{name}: its {'only replica is' if models[name].replicas == 1 else 'replicas are'} replaced in place, so nothing "
        "serves it until the new one is ready (rollout.min_ready is 0)"
        for name in sorted(taken)
        if name in models and paces[name].min_ready == 0 and taken[name] == models[name].replicas
    ]
