"""Seeing in: what runs now, and why a request would go where it would go."""

from __future__ import annotations

import time
from typing import Any

from modelyard.errors import InvalidFieldError
from modelyard.registry.model import Model

from .context import Gateway
from .fallbacks import fallback_chain
from .pursuit import Pursuit
from .replicas import Use

_SHOWN = 200
_MOST = 5000
_WHY = {
    Use.READY: "ready",
    Use.BUSY: "alive but busy: used only when no ready one is left",
    Use.UNPROVEN: "not probed yet: used only when none was seen alive",
}


async def running(gateway: Gateway, limit: str | None) -> dict[str, Any]:
    """The requests in flight, oldest first, at most ``limit`` of them (200), with their number.

    Raises ``InvalidFieldError`` where ``limit`` is no number from 1 to 5000.
    """
    most = _SHOWN
    if limit is not None:
        if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= _MOST):
            raise InvalidFieldError(f"limit must be a whole number from 1 to {_MOST}", param="limit")
        most = int(limit)
    rows = running_rows(gateway) if gateway.peers is None else await gateway.peers.requests()
    rows.sort(key=lambda row: row["age_s"], reverse=True)
    return {"total": len(rows), "requests": rows[:most]}


def running_rows(gateway: Gateway) -> list[dict[str, Any]]:
    """A row for each request of this process."""
    now = time.perf_counter()
    return [_shown(pursuit, now) for pursuit in gateway.pursuits.running]


def _shown(pursuit: Pursuit, now: float) -> dict[str, Any]:
    origin, meter, replica = pursuit.origin, pursuit.meter, pursuit.replica
    return {
        "id": pursuit.request_id,
        "route": origin.route if origin else None,
        "client": origin.client if origin else None,
        "model": pursuit.model.id,
        "serving": pursuit.serving.id,
        "replica": replica.id if replica else None,
        "attempt": pursuit.attempts,
        "state": pursuit.state,
        "age_s": round(now - pursuit.started, 3),
        "events": meter.events if meter else 0,
        "bytes": meter.size if meter else 0,
    }


def suspects(gateway: Gateway) -> dict[str, Any]:
    """The requests under which replicas died, newest first; those that are refused first of all."""
    pursuits = gateway.pursuits
    now = pursuits.steady()
    cases = sorted(pursuits.suspects.all().items(), key=lambda item: (not item[1].condemned, -item[1].until))
    return {
        "suspects": [
            {
                "fingerprint": mark,
                "model": case.model,
                "condemned": case.condemned,
                "deaths": case.deaths,
                "replicas": case.replicas,
                "refused": case.refused,
                "age_s": round(now - case.since, 1),
                "ends_in_s": round(case.until - now, 1),
            }
            for mark, case in cases
        ]
    }


def explain(gateway: Gateway, name: str | None, session: str | None) -> dict[str, Any]:
    """Where a request for the model called ``name`` would go now, and why not elsewhere; nothing is counted.

    Raises ``InvalidFieldError`` without a name, ``ModelNotFoundError`` for an unknown one.
    """
    if not name:
        raise InvalidFieldError("say which model: /admin/explain?model=<name>", param="model")
    model = gateway.find(name, param="model")
    chain = list(fallback_chain(gateway.keeper.current, model))
    models = [_explained(gateway, each, session) for each in chain]
    chosen = next((entry for entry in models if entry["chosen"]), None)
    return {
        "asked": name,
        "model": model.id,
        "session": session,
        "chosen": chosen["chosen"] if chosen else None,
        "serving": chosen["model"] if chosen else None,
        "models": models,
    }


def _explained(gateway: Gateway, model: Model, session: str | None) -> dict[str, Any]:
    balancer = gateway.balancer
    candidates = balancer.usable(model.id)
    chosen = balancer.peek(model, session)
    rows = []
    now = balancer.now()
    for replica in gateway.pool.of_model(model.id):
        state, use = replica.state(now), replica.use(now)
        hindrance = None if use is Use.NO else balancer.hindrance(replica)
        why = f"{state.value}: {replica.reason(now)}" if use is Use.NO else hindrance or _WHY[use]
        rows.append(
            {
                "replica": replica.id,
                "state": state.value,
                "candidate": replica in candidates and hindrance is None,
                "chosen": replica is chosen,
                "why": why,
                "in_flight": replica.in_flight,
                "max_in_flight": replica.endpoint.max_in_flight,
                "weight": replica.endpoint.weight,
                "share": round(balancer.share(replica), 3),
                "tier": replica.endpoint.tier,
                "track": replica.endpoint.track,
                "breaker": replica.breaker.state.value,
            }
        )
    return {
        "model": model.id,
        "policy": model.policy,
        "waiting": gateway.pursuits.rooms.lengths().get(model.id, 0),
        "chosen": chosen.id if chosen else None,
        "replicas": rows,
    }
