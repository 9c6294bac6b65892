"""What is true at run time about each replica, kept by replica id and kept across registry reloads."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType

from modelyard.catalog.loader import Engine
from modelyard.registry.model import Endpoint, Registry

from .breaker import CLOSED, Breaker, BreakerRules


class HealthState(enum.Enum):
    """What the probes have shown."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    FAILING = "failing"
    UNAUTHORISED = "unauthorised"


class ReplicaState(enum.Enum):
    """Health, progress and the operator's will together, as an operator reads them."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    HUNG = "hung"
    FAILING = "failing"
    UNAUTHORISED = "unauthorised"
    DRAINING = "draining"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REMOVED = "removed"


class Use(enum.IntEnum):
    """What a replica may be used for now; the lowest kind that a model has is used, ``NO`` never."""

    READY = 0
    BUSY = 1
    """Alive but late or full: only when no ready one is left."""
    UNPROVEN = 2
    """Nobody has looked yet: probably fine right after a start, and a retry covers the rest."""
    NO = 3


@dataclass(frozen=True, slots=True)
class HealthView:
    """Health of one replica with its history in brief. Times are seconds since the epoch.

    ``hung_since`` is set while requests run on it and nothing moves; with ``ejected`` that takes it out.
    """

    state: HealthState = HealthState.UNKNOWN
    successes: int = 0
    failures: int = 0
    reason: str = "not probed yet"
    since: float = 0.0
    probed_at: float | None = None
    hung_since: float | None = None
    ejected: bool = False


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What an engine last said of its own load; ``None`` where it does not say. ``at`` is in seconds since the
    epoch, ``kv_usage`` from 0 to 1.
    """

    running: float | None
    waiting: float | None
    kv_usage: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Confinement:
    """One suspect (``by``) has a replica to itself among suspects, until ``until`` on the steady clock.

    Not ``alone``: one whose time was over was still there when it came.
    """

    by: object
    until: float
    alone: bool = True


@dataclass(slots=True, eq=False)
class Replica:
    """Mutable state of one replica. Single writers: the pool (``endpoint``, ``removed``, ``in_flight``,
    ``owed``), health (``health``, ``load``, ``came_back_at``), the operator's hand (``drained``), whoever
    reads answers (``heard``), the pursuits (``breaker``, ``broke_at``, ``confined``).

    ``owed`` counts the requests of ``in_flight`` whose answer has not begun. ``heard`` grows by one with each
    piece of an answer that came from it. ``came_back_at`` is when it last became usable after it had not been
    (seconds since the epoch), ``None`` when it always was. ``broke_at`` is when its breaker opened last.
    ``confined`` is the one suspect that it has, see ``suspects``;
    ``explained`` is the value of ``heard`` at which it fell silent because of one.
    """

    id: str
    model_id: str
    endpoint: Endpoint
    engine: Engine
    in_flight: int = 0
    owed: int = 0
    heard: int = 0
    removed: bool = False
    drained: bool = False
    health: HealthView = field(default_factory=HealthView)
    load: LoadFigures | None = None
    came_back_at: float | None = None
    breaker: Breaker = field(default_factory=Breaker)
    broke_at: float = 0.0
    confined: Confinement | None = None
    explained: int = -1

    def state(self, now: datetime) -> ReplicaState:
        """Its state at ``now`` (with a time zone)."""
        if self.removed:
            return ReplicaState.REMOVED
        if self.endpoint.state == "disabled":
            return ReplicaState.DISABLED
        if self.endpoint.expires_at is not None and now >= self.endpoint.expires_at:
            return ReplicaState.EXPIRED
        if self.drained or self.endpoint.state == "draining":
            return ReplicaState.DRAINING
        if self.health.hung_since is not None and self.health.state in _ALIVE:
            return ReplicaState.HUNG
        return ReplicaState(self.health.state.value)

    @property
    def is_plain(self) -> bool:
        """Whether it is ready, and nothing else is to be thought of: the usual case, which is asked of every
        replica for every request.
        """
        health, endpoint = self.health, self.endpoint
        return (
            health.state is _READY
            and health.hung_since is None
            and endpoint.expires_at is None
            and endpoint.state == "active"
            and not self.drained
            and not self.removed
        )

    def use(self, now: datetime) -> Use:
        """What it may be used for at ``now``. A hung one that is not to be ejected is used as before."""
        if self.is_plain:
            return Use.READY
        state = self.state(now)
        if state is ReplicaState.HUNG:
            return Use.NO if self.health.ejected else _USES[ReplicaState(self.health.state.value)]
        return _USES.get(state, Use.NO)

    def reason(self, now: datetime) -> str:
        """Why it is in the state that it is in at ``now``."""
        state = self.state(now)
        if state is ReplicaState.HUNG:
            return "it has work and makes no progress"
        if state is ReplicaState.EXPIRED:
            return "its expires_at has passed"
        if state is ReplicaState.DRAINING:
            return "drained by the operator" if self.drained else "the registry says so"
        if state in (ReplicaState.DISABLED, ReplicaState.REMOVED):
            return "the registry says so"
        return self.health.reason

    def __repr__(self) -> str:
        return f"<Replica {self.id} {self.health.state.value} in_flight={self.in_flight}>"


_READY = HealthState.READY
_ALIVE = frozenset({HealthState.READY, HealthState.BUSY})
_USES = {
    ReplicaState.READY: Use.READY,
    ReplicaState.BUSY: Use.BUSY,
    ReplicaState.UNKNOWN: Use.UNPROVEN,
}


class Lease:
    """One request's hold on a replica: counted when made, given back exactly once. ``trial``: it is the one
    request that a half-open breaker lets in.
    """

    __slots__ = ("_give_back", "_held", "_owed", "replica", "trial")

    def __init__(self, replica: Replica, give_back: Callable[[Replica], None], trial: bool) -> None:
        self.replica = replica
        self.trial = trial
        self._give_back = give_back
        self._held = True
        self._owed = True

    def answered(self) -> None:
        """The answer has begun; saying so again changes nothing."""
        if self._owed:
            self._owed = False
            self.replica.owed -= 1

    def release(self) -> None:
        """Give it back; doing so again changes nothing."""
        if self._held:
            self._held = False
            if self._owed:
                self.answered()
            self._give_back(self.replica)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(slots=True)
class _Plan:
    """What following ``registry`` changes about the replicas that were there before it."""

    registry: Registry
    before: dict[str, Replica]
    after: dict[str, Replica] = field(default_factory=dict)
    by_model: dict[str, tuple[Replica, ...]] = field(default_factory=dict)
    added: list[Replica] = field(default_factory=list)
    gone: list[Replica] = field(default_factory=list)
    kept: list[tuple[Replica, Endpoint]] = field(default_factory=list)
    moved: list[tuple[Replica, Replica]] = field(default_factory=list)


class ReplicaPool:
    """All replicas of the registry in force, and removed ones until their last request ends."""

    def __init__(self, engines: Mapping[str, Engine], breaker: BreakerRules | None = None) -> None:
        self._engines = engines
        self._breaker = breaker
        self._freed: Callable[[Replica], None] | None = None
        self._replicas: dict[str, Replica] = {}
        self._by_model: dict[str, tuple[Replica, ...]] = {}
        self._leaving: list[Replica] = []
        self._plan: _Plan | None = None

    def prepare(self, registry: Registry, pause: Callable[[], None]) -> None:
        """Work out, in a thread of its own, what ``apply`` of this registry will do; nothing changes yet."""
        self._plan = self._planned(registry, pause)

    def apply(self, registry: Registry) -> tuple[list[Replica], list[Replica]]:
        """Follow ``registry``; returns the replicas that are new and those that went.

        A replica that keeps id, model, address and engine keeps its health and its count. One whose address
        changed is another replica under the same id: what still runs on the old one finishes there.
        """
        plan, self._plan = self._plan, None
        if plan is None or plan.registry is not registry or plan.before is not self._replicas:
            plan = self._planned(registry, _no_pause)
        for replica, endpoint in plan.kept:
            replica.endpoint = endpoint
        for replica, heir in plan.moved:
            # what the operator drained stays drained at its new address as well
            heir.drained = replica.drained
        for replica in plan.gone:
            replica.removed = True
            if replica.in_flight:
                self._leaving.append(replica)
        self._replicas, self._by_model = plan.after, plan.by_model
        return plan.added, plan.gone

    def _planned(self, registry: Registry, pause: Callable[[], None]) -> _Plan:
        plan = _Plan(registry, self._replicas)
        for model in registry.models.values():
            pause()
            mine = []
            for endpoint in model.endpoints:
                replica = plan.before.get(endpoint.id)
                if replica is not None and _same(replica, model.id, endpoint):
                    if replica.endpoint != endpoint:
                        plan.kept.append((replica, endpoint))
                else:
                    engine = self._engines[endpoint.engine]
                    heir = Replica(endpoint.id, model.id, endpoint, engine, breaker=Breaker(self._breaker))
                    plan.added.append(heir)
                    if replica is not None:
                        plan.moved.append((replica, heir))
                    replica = heir
                plan.after[endpoint.id] = replica
                mine.append(replica)
            plan.by_model[model.id] = tuple(mine)
        for number, (name, replica) in enumerate(plan.before.items()):
            if not number % _OFTEN:
                pause()
            if plan.after.get(name) is not replica:
                plan.gone.append(replica)
        return plan

    def lease(self, replica: Replica) -> Lease:
        """Count one request on ``replica``. Synchronous, so that choosing and counting cannot be torn
        apart.
        """
        replica.in_flight += 1
        replica.owed += 1
        breaker = replica.breaker
        trial = breaker.state is not CLOSED and breaker.enter()
        return Lease(replica, self._give_back, trial)

    def count(self, replica: Replica) -> int:
        """How many requests ``replica`` has at this moment."""
        return replica.in_flight

    def confine(self, replica: Replica, held: Confinement | None) -> None:
        """Give ``replica`` to one suspect, or to nobody."""
        replica.confined = held

    def confined_elsewhere(self, replica: Replica) -> float:
        """Until when (on the steady clock) another process has a suspect on ``replica``; 0 where none has."""
        return 0.0

    def when_freed(self, listener: Callable[[Replica], None]) -> None:
        """Tell ``listener`` of each replica that a request has left."""
        self._freed = listener

    def _give_back(self, replica: Replica) -> None:
        replica.in_flight -= 1
        if replica.removed and not replica.in_flight:
            self._leaving = [other for other in self._leaving if other is not replica]
        if self._freed is not None:
            self._freed(replica)

    def of_model(self, model_id: str) -> tuple[Replica, ...]:
        """The replicas of one model, in the registry's order; empty for an unknown model."""
        return self._by_model.get(model_id, ())

    def get(self, replica_id: str) -> Replica | None:
        """One replica of the registry in force."""
        return self._replicas.get(replica_id)

    def everyone(self) -> Iterable[Replica]:
        """All replicas, those that are leaving last."""
        return [*self._replicas.values(), *self._leaving]

    def __len__(self) -> int:
        return len(self._replicas)


_OFTEN = 32


def _no_pause() -> None:
    """Nobody is disturbed."""


def _same(replica: Replica, model_id: str, endpoint: Endpoint) -> bool:
    return (
        replica.model_id == model_id
        and replica.endpoint.url == endpoint.url
        and replica.endpoint.engine == endpoint.engine
    )


def with_state(view: HealthView, state: HealthState, now: float) -> HealthView:
    """``view`` in ``state``; ``since`` moves only when the state changes."""
    return view if view.state is state else replace(view, state=state, since=now)
