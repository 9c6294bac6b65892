"""Counting requests, cheaply enough to do it for every one: plain numbers in objects that are looked up once.

A labelled counter of the metrics library costs microseconds at each use, and a request touches a dozen. Here
it costs a dictionary look-up and an addition; ``metrics`` turns the numbers into metrics when they are asked
for. Labels come from the registry and the route table only, so their number is bounded.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Collection, Iterable

from .pursuit import Pursuit
from .replicas import Replica
from .visit import Visit

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
OVERHEAD_SECONDS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)


class Histogram:
    """How many values were at most each of ``bounds``; ``counts`` has one place more, for the rest."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RouteTally:
    """Requests of one route for one model; ``statuses`` by status of the answer."""

    __slots__ = ("seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.seconds = Histogram(SECONDS)


class ModelTally:
    """What the requests for one model cost. Tokens by whether the engine told them or events were counted."""

    __slots__ = (
        "completion_counted",
        "completion_told",
        "first_byte",
        "first_token",
        "overhead",
        "per_token",
        "prompt_tokens",
        "queued",
        "retries",
        "served_by_fallback",
    )

    def __init__(self) -> None:
        self.first_byte = Histogram(SECONDS)
        self.first_token = Histogram(SECONDS)
        self.per_token = Histogram(TOKEN_SECONDS)
        self.queued = Histogram(SECONDS)
        self.overhead = Histogram(OVERHEAD_SECONDS)
        self.prompt_tokens = 0
        self.completion_told = 0
        self.completion_counted = 0
        self.retries = 0
        self.served_by_fallback = 0


class ReplicaTally:
    """Attempts on one replica; ``results`` by ``ok`` or error code."""

    __slots__ = ("broken", "model_id", "results")

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self.results: dict[str, int] = {}
        self.broken = 0


class Tally:
    """All counts of one proxy since its start; ``Observer`` of the pursuits."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], RouteTally] = {}
        self.models: dict[str, ModelTally] = {}
        self.replicas: dict[str, ReplicaTally] = {}
        self._known: Collection[str] = frozenset()

    def attempt(self, replica: Replica, result: str) -> None:
        """See ``pursuits.Observer``."""
        results = self._replica(replica).results
        results[result] = results.get(result, 0) + 1

    def answered(self, pursuit: Pursuit) -> None:
        """See ``pursuits.Observer``."""
        replica = pursuit.replica
        if pursuit.first_byte_at is None or replica is None:
            return
        results = (self.replicas.get(replica.id) or self._replica(replica)).results
        results["ok"] = results.get("ok", 0) + 1
        tally = self.models.get(pursuit.model.id) or self._model(pursuit.model.id)
        seconds = pursuit.first_byte_at - pursuit.started
        tally.first_byte.observe(seconds)
        if pursuit.meter is not None and pursuit.meter.streamed:
            tally.first_token.observe(seconds)

    def broken(self, replica: Replica) -> None:
        """See ``pursuits.Observer``."""
        self._replica(replica).broken += 1

    def ended(self, visit: Visit, status: int, now: float | None = None) -> None:
        """One request has ended; ``now`` is a ``perf_counter`` reading."""
        if now is None:
            now = time.perf_counter()
        key = (visit.route, visit.model)
        tally = self.routes.get(key)
        if tally is None:
            tally = RouteTally()
            if not visit.model or visit.model in self._known:
                self.routes[key] = tally
        statuses = tally.statuses
        statuses[status] = statuses.get(status, 0) + 1
        took, seconds = tally.seconds, now - visit.started
        # what ``observe`` does, without the call: this is done for every request
        took.counts[bisect_left(took.bounds, seconds)] += 1
        took.total += seconds
        if visit.pursuit is not None:
            self._spent(visit.pursuit, now)

    def _spent(self, pursuit: Pursuit, now: float) -> None:
        tally = self.models.get(pursuit.model.id) or self._model(pursuit.model.id)
        if pursuit.leased_at is not None:
            # the time in queue is nobody's work
            overhead, seconds = tally.overhead, pursuit.leased_at - pursuit.started - pursuit.queued_s
            overhead.counts[bisect_left(overhead.bounds, seconds)] += 1
            overhead.total += seconds
        if pursuit.queued_s:
            tally.queued.observe(pursuit.queued_s)
        if pursuit.attempts > 1:
            tally.retries += pursuit.attempts - 1
        meter, answered_at, replica = pursuit.meter, pursuit.first_byte_at, pursuit.replica
        if meter is None or answered_at is None:
            return
        if not meter.streamed and replica is not None:
            results = (self.replicas.get(replica.id) or self._replica(replica)).results
            results["ok"] = results.get("ok", 0) + 1
            first, seconds = tally.first_byte, answered_at - pursuit.started
            first.counts[bisect_left(first.bounds, seconds)] += 1
            first.total += seconds
        usage = pursuit.usage = meter.result()
        if pursuit.serving is not pursuit.model:
            tally.served_by_fallback += 1
        completion = usage.completion_tokens
        if usage.prompt_tokens is not None:
            tally.prompt_tokens += usage.prompt_tokens
        if completion is None:
            return
        if usage.counted:
            tally.completion_counted += completion
        else:
            tally.completion_told += completion
        if meter.streamed and completion > 1:
            tally.per_token.observe((now - answered_at) / (completion - 1))

    def _model(self, model_id: str) -> ModelTally:
        tally = self.models.get(model_id)
        if tally is None:
            tally = ModelTally()
            if model_id in self._known:
                self.models[model_id] = tally
        return tally

    def _replica(self, replica: Replica) -> ReplicaTally:
        tally = self.replicas.get(replica.id)
        if tally is None:
            tally = ReplicaTally(replica.model_id)
            if not replica.removed:
                self.replicas[replica.id] = tally
        return tally

    def follow(self, models: Collection[str], gone: Iterable[Replica]) -> None:
        """From now on ``models`` are known; what was counted for others and for replicas that are gone is
        dropped, and what still runs on those is not counted.
        """
        self._known = models
        for replica in gone:
            self.replicas.pop(replica.id, None)
        for name in [name for name in self.models if name not in models]:
            del self.models[name]
        for key in [key for key in self.routes if key[1] and key[1] not in models]:
            del self.routes[key]
