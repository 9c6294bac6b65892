"""The operator's hand on replicas: what is shown of them, and taking them out and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from modelyard.errors import InvalidFieldError, NotFoundError, nearest

from .context import Gateway
from .replicas import LoadFigures, Replica

_ROWS_PER_TURN = 64


def shown(replica: Replica, now: datetime) -> dict[str, Any]:
    """Everything that is known of one replica."""
    health, load = replica.health, replica.load
    return {
        "id": replica.id,
        "model": replica.model_id,
        "host": replica.endpoint.host,
        "url": replica.endpoint.url,
        "engine": replica.engine.name,
        "state": replica.state(now).value,
        "health": health.state.value,
        "reason": replica.reason(now),
        "since": as_time(health.since or None),
        "probed_at": as_time(health.probed_at),
        "hung_since": as_time(health.hung_since),
        "drained": replica.drained,
        "came_back_at": as_time(replica.came_back_at),
        "in_flight": replica.in_flight,
        "load": _load(load),
        "weight": replica.endpoint.weight,
    }


async def list_page(replicas: Iterable[Replica], now: datetime) -> str:
    """The list of all ``replicas`` as JSON. Of ten thousand it takes a quarter second, in which streams go on."""
    rows = []
    for number, replica in enumerate(replicas, 1):
        rows.append(json.dumps(shown(replica, now)))
        if not number % _ROWS_PER_TURN:
            await asyncio.sleep(0)
    return f'{{"replicas": [{", ".join(rows)}]}}'


def drain_one(gateway: Gateway, replica_id: str, *, drained: bool) -> dict[str, Any]:
    """Take one replica out, or back. Raises ``NotFoundError``."""
    replica = gateway.pool.get(replica_id)
    if replica is None:
        near = nearest(replica_id, [item.id for item in gateway.pool.everyone()])
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "GET /admin/replicas lists them"
        raise NotFoundError(f"no replica is called {replica_id[:200]!r}; {hint}")
    gateway.monitor.set_drained([replica], drained)
    row: dict[str, Any] = _answer(gateway, [replica])["replicas"][0]
    return row


def drain_many(gateway: Gateway, body: dict[str, Any], *, drained: bool) -> dict[str, Any]:
    """Take all replicas of one ``host`` or one ``model`` out, or back.

    Raises ``InvalidFieldError`` unless the body names exactly one of the two, ``NotFoundError`` where there is
    nothing of that name.
    """
    given = [name for name in ("host", "model") if name in body]
    if len(given) != 1 or len(body) != 1:
        raise InvalidFieldError('send either {"host": "<name>"} or {"model": "<name>"}', param="host")
    name = body[given[0]]
    if not isinstance(name, str) or not name:
        raise InvalidFieldError(f"{given[0]} must be a name", param=given[0])
    if given[0] == "model":
        replicas = list(gateway.pool.of_model(gateway.find(name, param="model").id))
    else:
        present = [item for item in gateway.pool.everyone() if not item.removed]
        replicas = [item for item in present if item.endpoint.host == name]
        if not replicas:
            hosts = sorted({item.endpoint.host for item in present if item.endpoint.host})
            near = nearest(name, hosts) or hosts[:10]
            known = f"did you mean {' or '.join(map(repr, near))}?" if near else "the registry names no hosts"
            raise NotFoundError(f"no replica is on a host called {name[:200]!r}; {known}", param="host")
    gateway.monitor.set_drained(replicas, drained)
    return _answer(gateway, replicas)


def as_time(moment: float | None) -> str | None:
    """Seconds since the epoch in ISO 8601, UTC."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _answer(gateway: Gateway, replicas: Sequence[Replica]) -> dict[str, Any]:
    """What runs on ``replicas``; ``model_usable`` is how many of the model's replicas may get requests now."""
    now = datetime.fromtimestamp(gateway.clock(), UTC)
    running = dict.fromkeys((replica.id for replica in replicas), 0)
    for other in gateway.pool.everyone():
        # what an address that the registry has replaced still finishes runs under the same id
        if other.id in running:
            running[other.id] += other.in_flight
    usable = {model: len(gateway.balancer.usable(model)) for model in {item.model_id for item in replicas}}
    rows = [
        {
            "id": replica.id,
            "model": replica.model_id,
            "state": replica.state(now).value,
            "drained": replica.drained,
            "in_flight": running[replica.id],
            "model_usable": usable[replica.model_id],
        }
        for replica in replicas
    ]
    return {"replicas": rows, "in_flight": sum(running.values())}


def _load(load: LoadFigures | None) -> dict[str, Any] | None:
    if load is None:
        return None
    return {
        "running": load.running,
        "waiting": load.waiting,
        "kv_usage": load.kv_usage,
        "at": as_time(load.at),
    }
