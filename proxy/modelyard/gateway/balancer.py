"""Which replica gets the next request. The choice is pure; only ``Balancer`` counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Protocol, TypeVar

from modelyard.registry.model import Model

from .replicas import Lease, Replica, ReplicaPool, ReplicaState

# A hashed choice is skipped when it carries more than this many times the average load (bounded loads).
_LOAD_BOUND = 1.25


class Loaded(Protocol):
    """What a policy may look at."""

    @property
    def id(self) -> str:
        """The replica's id."""

    @property
    def in_flight(self) -> int:
        """Requests on it now."""


LoadedT = TypeVar("LoadedT", bound=Loaded)


def pick(
    policy: str,
    candidates: Sequence[LoadedT],
    weights: Sequence[float],
    *,
    turn: int,
    rng: random.Random,
    key: str | None = None,
) -> LoadedT:
    """One of ``candidates`` (at least one), of which ``weights`` says how much each can bear.

    ``turn`` grows by one with each choice for a model and decides between equals. ``key`` is what the hash
    policies stick to; without one they take the least loaded.
    """
    if policy == "round_robin":
        return candidates[turn % len(candidates)]
    if policy == "power_of_two" and len(candidates) > 2:
        some = rng.sample(range(len(candidates)), 2)
        return _least_loaded([candidates[n] for n in some], [weights[n] for n in some], 0)
    if policy in ("session_hash", "prefix_hash") and key:
        return _hashed(candidates, weights, key)
    return _least_loaded(candidates, weights, turn)


def _least_loaded(candidates: Sequence[LoadedT], weights: Sequence[float], turn: int) -> LoadedT:
    count = len(candidates)
    best = min(
        range(count),
        # among equals the one whose turn it is, so that an idle fleet is used evenly
        key=lambda n: (candidates[n].in_flight / weights[n], (n - turn) % count),
    )
    return candidates[best]


def _hashed(candidates: Sequence[LoadedT], weights: Sequence[float], key: str) -> LoadedT:
    """Rendezvous hashing with bounded loads: the same key goes to the same replica unless that one is
    overloaded.

    Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018), over
    highest-random-weight hashing, so that a replica that goes moves only its own keys.
    """
    total = sum(item.in_flight for item in candidates) + 1
    share = total / sum(weights)

    def score(n: int) -> int:
        return int.from_bytes(blake2b(f"{candidates[n].id}\0{key}".encode(), digest_size=8).digest(), "big")

    ranked = sorted(range(len(candidates)), key=score, reverse=True)
    for n in ranked:
        if candidates[n].in_flight + 1 <= max(1.0, _LOAD_BOUND * share * weights[n]):
            return candidates[n]
    return candidates[ranked[0]]


class Balancer:
    """Chooses among a model's usable replicas and counts the choice in the same synchronous step."""

    def __init__(self, pool: ReplicaPool, *, now: Callable[[], datetime], rng: random.Random) -> None:
        self._pool = pool
        self._now = now
        self._rng = rng
        self._turns: Counter[str] = Counter()

    def acquire(self, model: Model, tried: Collection[Replica], key: str | None = None) -> Lease | None:
        """A lease on one replica outside ``tried``, or ``None`` when none is usable.

        Ready replicas come first. Those nobody has probed yet are used only when no ready one is left: right
        after a start they are probably fine, and the retry covers the rest.
        """
        candidates = self.usable(model.id, tried)
        if not candidates:
            return None
        turn = self._turns[model.id]
        self._turns[model.id] = turn + 1
        weights = [replica.endpoint.weight for replica in candidates]
        return self._pool.lease(pick(model.policy, candidates, weights, turn=turn, rng=self._rng, key=key))

    def usable(self, model_id: str, tried: Collection[Replica] = ()) -> list[Replica]:
        """The replicas that may get a request now, all ready or all unknown."""
        now = self._now()
        unknown: list[Replica] = []
        ready: list[Replica] = []
        for replica in self._pool.of_model(model_id):
            if replica in tried:
                continue
            state = replica.state(now)
            if state is ReplicaState.READY:
                ready.append(replica)
            elif state is ReplicaState.UNKNOWN:
                unknown.append(replica)
        return ready or unknown

    def available(self, model_id: str) -> bool:
        """Whether the model has at least one replica that was seen ready."""
        now = self._now()
        return any(replica.state(now) is ReplicaState.READY for replica in self._pool.of_model(model_id))

    def explain(self, model_id: str) -> str:
        """Why none of the model's replicas is used, in brief: ``gpu01.m.0 is failing (connection
        refused)``.
        """
        now = self._now()
        said = [
            f"{replica.id} is {replica.state(now).value} ({replica.health.reason})"
            for replica in self._pool.of_model(model_id)
        ]
        if not said:
            return "the registry gives it no endpoints"
        return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")
