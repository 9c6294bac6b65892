"""The data path's deciding parts on a clock of their own, without I/O."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
from datetime import UTC, datetime
from typing import Any

from modelyard.catalog.loader import load_engines
from modelyard.gateway.balancer import Balancer, BalancerRules
from modelyard.gateway.breaker import BreakerRules
from modelyard.gateway.pursuit import Pursuit
from modelyard.gateway.pursuits import Observer, Pursuits
from modelyard.gateway.queue import WaitingRooms
from modelyard.gateway.replicas import HealthState, HealthView, Replica, ReplicaPool
from modelyard.gateway.retries import RetryBudget
from modelyard.gateway.suspects import Suspects
from modelyard.registry.load import load_text


class Nobody:
    """An observer that does not care."""

    def attempt(self, replica: Replica, result: str) -> None: ...

    def answered(self, pursuit: Pursuit) -> None: ...

    def broken(self, replica: Replica) -> None: ...


class Stage:
    """``now`` is every clock; ``dead`` holds the ids of replicas that a look finds down."""

    def __init__(
        self,
        registry: str,
        *,
        observer: Observer | None = None,
        breaker: BreakerRules | None = None,
        rules: BalancerRules | None = None,
        budget_percent: float = 1000,
        suspect_s: float = 600,
        max_attempts: int = 3,
        ready: bool = True,
    ) -> None:
        self.now = 1000.0
        self.dead: set[str] = set()
        self.busy: list[str] = []
        self.registry = load_text(registry, "test")
        self.pool = ReplicaPool(load_engines(), breaker)
        self.pool.apply(self.registry)
        if ready:
            for replica in self.pool.everyone():
                replica.health = HealthView(HealthState.READY)
        self.balancer = Balancer(
            self.pool,
            now=lambda: datetime.fromtimestamp(self.now, UTC),
            clock=lambda: self.now,
            steady=lambda: self.now,
            rng=random.Random(1),
            rules=rules,
        )
        self.rooms = WaitingRooms(lambda: self.now)
        self.suspects = Suspects(lambda: self.now, suspect_s)
        self.pursuits = Pursuits(
            self.balancer,
            registry=lambda: self.registry,
            max_attempts=max_attempts,
            observer=observer or Nobody(),
            watch=self,
            rooms=self.rooms,
            suspects=self.suspects,
            budget=RetryBudget(budget_percent, lambda: self.now),
            steady=lambda: self.now,
            clock=lambda: self.now,
        )
        self.rooms.when_used(lambda: self.pool.when_freed(self.pursuits.freed))

    def begin(self, model: str = "m", **document: object) -> Pursuit:
        return self.pursuits.begin(self.registry.models[model], request_id="id", document=document)

    def replica(self, name: str) -> Replica:
        found = self.pool.get(name)
        assert found is not None
        return found

    def set_health(self, name: str, state: HealthState) -> None:
        replica = self.replica(name)
        replica.health = HealthView(state)
        self.pursuits.changed(replica)

    def in_flight(self) -> int:
        return sum(replica.in_flight for replica in self.pool.everyone())

    # --- Watch

    def mark_unreachable(self, replica: Replica, reason: str) -> None: ...

    def mark_busy(self, replica: Replica, reason: str) -> None:
        self.busy.append(replica.id)

    def look_now(self, replica: Replica) -> asyncio.Future[HealthView]:
        view = HealthView(replica.health.state, failures=int(replica.id in self.dead))
        try:
            future: Any = asyncio.get_running_loop().create_future()
        except RuntimeError:
            future = concurrent.futures.Future()
        future.set_result(view)
        return future


def fleet(*names: str, **model: object) -> str:
    """A registry whose model ``m`` has these replicas; ``model`` are further keys of it, in YAML's flow form."""
    endpoints = ", ".join(
        f'{{id: {name}, url: "http://10.0.0.1:{n}", engine: vllm}}' for n, name in enumerate(names, 1)
    )
    more = "".join(f", {key}: {value}" for key, value in model.items())
    return f"version: 1\ngeneration: 1\nmodels:\n  m: {{endpoints: [{endpoints}]{more}}}\n"
