"""Which replica gets the next request: choosing and counting in one synchronous step."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from modelyard.registry.model import Model

from .breaker import BreakerState
from .policies import in_percent, pick
from .replicas import Confinement, Lease, Replica, ReplicaPool, ReplicaState, Use
from .suspects import CONFINED_S

# What the engine says of its own queue corrects our count by at most this many requests, and is believed for
# this long: it counts what others send too, but it is seconds old.
_MOST_EXTRA = 8.0
_BELIEVED_S = 15.0
_STANDS_S = 0.5
_FULL_CACHE = 0.9
_CACHE_WORTH = 40.0
# how small a share a replica begins with that has just come back
_FIRST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class BalancerRules:
    """``slow_start_s``: how long a replica that came back takes to its full share. ``expiry_margin_s``: a
    replica that ends sooner than this gets no new requests while another can take them. ``token_s``: the time
    that one token of an answer is reckoned to take, where a request says how many it wants at most.
    """

    slow_start_s: float = 10.0
    expiry_margin_s: float = 60.0
    token_s: float = 0.05


@dataclass(slots=True)
class _Standing:
    """The replicas of one model that may be used at all, in the groups in which they are tried.

    Made anew whenever something changes, and at ``until`` (seconds since the epoch). ``weights`` and ``extra``
    (load that is not ours) are those of the first group. ``plain``: no replica needs a look of its own at each
    request; ``even``: nothing but their load tells those of the first group apart.
    """

    groups: tuple[tuple[Replica, ...], ...]
    weights: tuple[float, ...]
    extra: tuple[float, ...] | None
    plain: bool
    even: bool
    until: float


class Demand(Protocol):
    """What one request asks of a replica beyond being usable. ``key`` is what the hash policies stick to; a
    ``suspected`` one must not share a replica with another suspect.
    """

    key: str | None
    suspected: bool

    def stays_s(self, token_s: float) -> float | None:
        """How long its answer may take at ``token_s`` seconds a token, where it says how many it wants."""


@dataclass(slots=True)
class _Asked:
    """A request that is only thought of."""

    key: str | None = None
    suspected: bool = False

    def stays_s(self, token_s: float) -> float | None:
        """See ``Demand``."""
        return None


class Balancer:
    """Chooses among a model's replicas and counts the choice. ``clock`` gives seconds since the epoch,
    ``steady`` those of a clock that never goes back.
    """

    def __init__(
        self,
        pool: ReplicaPool,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        steady: Callable[[], float],
        rng: random.Random,
        rules: BalancerRules | None = None,
    ) -> None:
        self._pool = pool
        self._now = now
        self._clock = clock
        self._steady = steady
        self._rng = rng
        self._rules = rules or BalancerRules()
        self._turns: dict[str, int] = {}
        self._standing: dict[str, _Standing] = {}

    def changed(self, model_id: str | None = None) -> None:
        """What was known of a model's replicas, or of all, no longer holds."""
        if model_id is None:
            self._standing.clear()
        else:
            self._standing.pop(model_id, None)

    def acquire(self, model: Model, tried: Collection[Replica], demand: Demand | None = None) -> Lease | None:
        """A lease on one replica outside ``tried``, or ``None`` when none can take the request now."""
        standing = self._standing.get(model.id)
        now = self._clock()
        # a clock that was set back must not keep it for longer
        if standing is None or not 0 < standing.until - now <= _STANDS_S:
            standing = self._stand(model, now)
        turn = self._turns.get(model.id, 0)
        self._turns[model.id] = turn + 1
        demand = demand or _Asked()
        if standing.even and not tried and not demand.suspected:
            chosen = _fewest(standing.groups[0], standing.extra, turn)
        elif standing.plain and not tried and not demand.suspected:
            chosen = pick(
                model.policy,
                standing.groups[0],
                standing.weights,
                turn=turn,
                rng=self._rng,
                key=demand.key,
                extra=standing.extra,
            )
        else:
            found = self._select(model, standing, tried, demand, turn, now, self._rng)
            if found is None:
                return None
            chosen = found
        return self._pool.lease(chosen)

    def hold(self, replica: Replica) -> Lease:
        """A lease on this very replica, for what only it can do; whether it is usable shows when it is
        asked.
        """
        return self._pool.lease(replica)

    def confine(self, replica: Replica, by: object) -> Confinement:
        """Give ``replica`` to one suspect, as far as suspects go."""
        held = Confinement(by, self._steady() + CONFINED_S, alone=replica.confined is None)
        self._pool.confine(replica, held)
        return held

    def free(self, replica: Replica, by: object) -> None:
        """Other suspects may have ``replica``, where ``by`` had it."""
        if replica.confined is not None and replica.confined.by is by:
            self._pool.confine(replica, None)

    def is_alone(self, replica: Replica, held: Confinement | None) -> bool:
        """Whether the suspect of ``held`` has had ``replica`` to itself among the suspects of all workers.

        Its time may be over: what counts is that nobody came since.
        """
        return (
            held is not None
            and replica.confined is held
            and held.alone
            and self._pool.confined_elsewhere(replica) <= min(self._steady(), held.until)
        )

    def peek(self, model: Model, key: str | None = None) -> Replica | None:
        """What ``acquire`` would take now; nothing is counted, and chance is not used up."""
        now = self._clock()
        chance = random.Random()  # noqa: S311 - takes over the state of the other
        chance.setstate(self._rng.getstate())
        turn = self._turns.get(model.id, 0)
        return self._select(model, self._stand(model, now), (), _Asked(key), turn, now, chance)

    def now(self) -> datetime:
        """The time by which replicas are judged."""
        return self._now()

    def usable(self, model_id: str, tried: Collection[Replica] = ()) -> list[Replica]:
        """The replicas that may be used now, all for the same ``Use``, full ones included."""
        replicas = self._pool.of_model(model_id)
        if not tried and False not in [replica.is_plain for replica in replicas]:
            return list(replicas)
        now = self._now()
        best, found = Use.NO, list[Replica]()
        for replica in replicas:
            if replica in tried:
                continue
            use = replica.use(now)
            if use < best:
                best, found = use, [replica]
            elif use is best and use is not Use.NO:
                found.append(replica)
        return found

    def available(self, model_id: str) -> bool:
        """Whether the model has at least one usable replica that was seen alive."""
        now = self._now()
        return any(replica.use(now) <= Use.BUSY for replica in self._pool.of_model(model_id))

    def may_come(self, model_id: str, tried: Collection[Replica]) -> bool:
        """Whether a replica outside ``tried`` is full or starting, so that waiting a little may help."""
        now, steady = self._now(), self._steady()
        return any(
            replica.state(now) is ReplicaState.STARTING
            or (
                replica.use(now) is not Use.NO
                and (replica.breaker.state is not BreakerState.OPEN or replica.breaker.lets(steady))
            )
            for replica in self._pool.of_model(model_id)
            if replica not in tried
        )

    def share(self, replica: Replica) -> float:
        """What part of its weight counts now, from 0 to 1."""
        return self._share(replica, self._clock())

    def hindrance(self, replica: Replica) -> str | None:
        """Why ``replica`` gets no request now though it is in use; ``None`` where nothing hinders."""
        if not replica.breaker.lets(self._steady()):
            return f"its breaker is {replica.breaker.state.value} after {replica.breaker.failures} failures"
        if self._is_full(replica):
            return f"full: {replica.in_flight} of {replica.endpoint.max_in_flight} requests"
        return None

    def explain(self, model_id: str) -> str:
        """Why none of the model's replicas is used, in brief: ``gpu01.m.0 is failing (connection
        refused)``.
        """
        now = self._now()
        said = []
        for replica in self._pool.of_model(model_id):
            hindrance = None if replica.use(now) is Use.NO else self.hindrance(replica)
            said.append(f"{replica.id} is {replica.state(now).value} ({hindrance or replica.reason(now)})")
        if not said:
            return "the registry gives it no endpoints"
        return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")

    def _stand(self, model: Model, now: float) -> _Standing:
        moment, rules = self._now(), self._rules
        groups: dict[tuple[int, int], list[Replica]] = {}
        plain, until = not model.canary_percent, now + _STANDS_S
        for replica in self._pool.of_model(model.id):
            use = replica.use(moment)
            if use is Use.NO:
                continue
            endpoint = replica.endpoint
            groups.setdefault((use, endpoint.tier), []).append(replica)
            if endpoint.expires_at is not None:
                until = min(until, endpoint.expires_at.timestamp())
            plain = (
                plain
                and replica.breaker.state is BreakerState.CLOSED
                and endpoint.max_in_flight is None
                and endpoint.expires_at is None
                and (replica.came_back_at is None or now - replica.came_back_at >= rules.slow_start_s)
            )
        ordered = tuple(tuple(groups[key]) for key in sorted(groups))
        first = ordered[0] if ordered else ()
        weights = tuple(replica.endpoint.weight for replica in first)
        extra = _extras(first, now)
        plain = plain and bool(ordered)
        even = plain and model.policy == "least_loaded" and len(set(weights)) == 1
        standing = _Standing(ordered, weights, extra, plain, even, until)
        self._standing[model.id] = standing
        return standing

    def _select(
        self,
        model: Model,
        standing: _Standing,
        tried: Collection[Replica],
        demand: Demand,
        turn: int,
        now: float,
        rng: random.Random,
    ) -> Replica | None:
        """The choice itself. Nothing is counted."""
        canary = None
        if model.canary_percent:
            canary = in_percent(demand.key, model.canary_percent, rng)
        ending: list[Replica] = []
        for group in standing.groups:
            free = [each for each in group if each not in tried and self._takes(each, demand)]
            lasting = [each for each in free if not self._ends(each, demand, now)]
            if len(lasting) < len(free):
                ending += [each for each in free if each not in lasting]
            if canary is not None:
                side = [each for each in lasting if (each.endpoint.track == "canary") is canary]
                lasting = side or lasting
            if lasting:
                return self._pick(model, lasting, demand, turn, now, rng)
        spare = ending or self._last_resort(standing, tried, demand)
        return self._pick(model, spare, demand, turn, now, rng) if spare else None

    def _last_resort(self, standing: _Standing, tried: Collection[Replica], demand: Demand) -> list[Replica]:
        """Those that failed requests and have answered a probe since, where nothing better is left.

        An engine that stood still for a while fails all that it had at once, and is well again; refusing
        everybody because of it would be worse than trying it.
        """
        return [
            each
            for group in standing.groups
            for each in group
            if each not in tried
            and (each.health.probed_at or 0.0) > each.broke_at
            and not each.health.failures
            and not self._is_full(each)
            and not (demand.suspected and self._is_confined(each, demand))
        ]

    def _pick(
        self,
        model: Model,
        replicas: Sequence[Replica],
        demand: Demand,
        turn: int,
        now: float,
        rng: random.Random,
    ) -> Replica:
        shares = [self._share(each, now) for each in replicas]
        weights = [each.endpoint.weight for each in replicas]
        extra: Sequence[float] | None = _extras(replicas, now)
        if min(shares) < 1:
            if model.policy == "round_robin" or demand.key:
                weights = [weight * share for weight, share in zip(weights, shares, strict=True)]
            else:
                # what it has counts for more, so that it gets its first request like all others, and few beside
                slow = [
                    each.in_flight * (1 / share - 1) for each, share in zip(replicas, shares, strict=True)
                ]
                extra = slow if extra is None else [a + b for a, b in zip(extra, slow, strict=True)]
        return pick(model.policy, replicas, weights, turn=turn, rng=rng, key=demand.key, extra=extra)

    def _takes(self, replica: Replica, demand: Demand) -> bool:
        if self._is_full(replica):
            return False
        if demand.suspected and self._is_confined(replica, demand):
            return False
        breaker = replica.breaker
        return breaker.state is BreakerState.CLOSED or breaker.lets(self._steady())

    def _is_full(self, replica: Replica) -> bool:
        most = replica.endpoint.max_in_flight
        return most is not None and self._pool.count(replica) >= most

    def _is_confined(self, replica: Replica, demand: Demand) -> bool:
        """Whether another suspect has the replica to itself."""
        held, now = replica.confined, self._steady()
        if held is not None and held.by is not demand and held.until > now:
            return True
        return self._pool.confined_elsewhere(replica) > now

    def _ends(self, replica: Replica, demand: Demand, now: float) -> bool:
        """Whether the replica may end before the answer does."""
        expires = replica.endpoint.expires_at
        if expires is None:
            return False
        left_s, stays_s = expires.timestamp() - now, demand.stays_s(self._rules.token_s)
        return left_s < (self._rules.expiry_margin_s if stays_s is None else stays_s)

    def _share(self, replica: Replica, now: float) -> float:
        """What part of its weight counts: one that has just come back is not flooded at once."""
        back, slow_s = replica.came_back_at, self._rules.slow_start_s
        if back is None or not slow_s:
            return 1.0
        part = (now - back) / slow_s
        # before its return: the clock was set back, and nobody knows how long ago it was
        return max(_FIRST_SHARE, part) if 0 <= part < 1 else 1.0


def _fewest(replicas: Sequence[Replica], extra: Sequence[float] | None, turn: int) -> Replica:
    """The one with the least load; among equals the one whose turn it is."""
    count = len(replicas)
    place = turn % count
    chosen = replicas[place]
    least = chosen.in_flight + (extra[place] if extra else 0)
    if least:
        for _ in range(count - 1):
            place = place + 1 if place + 1 < count else 0
            replica = replicas[place]
            load = replica.in_flight + extra[place] if extra else replica.in_flight
            if load < least:
                chosen, least = replica, load
    return chosen


def _extras(replicas: Sequence[Replica], now: float) -> tuple[float, ...] | None:
    if any(replica.load is not None for replica in replicas):
        return tuple(_extra(replica, now) for replica in replicas)
    return None


def _extra(replica: Replica, now: float) -> float:
    """Load that is not ours, as the engine tells it: bounded, and none where nothing recent is known."""
    load = replica.load
    if load is None or now - load.at > _BELIEVED_S:
        return 0.0
    others = (load.running or 0.0) + (load.waiting or 0.0) - replica.in_flight
    crowded = ((load.kv_usage or 0.0) - _FULL_CACHE) * _CACHE_WORTH
    return min(max(0.0, others), _MOST_EXTRA) + max(0.0, crowded)
