"""What is true at run time about each replica, kept by replica id and kept across registry reloads."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType

from modelyard.catalog.loader import Engine
from modelyard.registry.model import Endpoint, Registry


class HealthState(enum.Enum):
    """What the probes have shown."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"


class ReplicaState(enum.Enum):
    """Health and the operator's will together: what a replica may be used for."""

    UNKNOWN = "unknown"
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"
    DRAINING = "draining"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class HealthView:
    """Health of one replica with its history in brief. Times are seconds since the epoch."""

    state: HealthState = HealthState.UNKNOWN
    successes: int = 0
    failures: int = 0
    reason: str = "not probed yet"
    since: float = 0.0
    probed_at: float | None = None


@dataclass(slots=True, eq=False)
class Replica:
    """Mutable state of one replica. Single writers: the pool (``endpoint``, ``removed``, ``in_flight``),
    health.
    """

    id: str
    model_id: str
    endpoint: Endpoint
    engine: Engine
    in_flight: int = 0
    removed: bool = False
    health: HealthView = field(default_factory=HealthView)

    def state(self, now: datetime) -> ReplicaState:
        """Its state at ``now`` (with a time zone)."""
        if self.removed:
            return ReplicaState.REMOVED
        if self.endpoint.state == "disabled":
            return ReplicaState.DISABLED
        if self.endpoint.expires_at is not None and now >= self.endpoint.expires_at:
            return ReplicaState.EXPIRED
        if self.endpoint.state == "draining":
            return ReplicaState.DRAINING
        return ReplicaState(self.health.state.value)

    def __repr__(self) -> str:
        return f"<Replica {self.id} {self.health.state.value} in_flight={self.in_flight}>"


class Lease:
    """One request's hold on a replica: counted when made, given back exactly once."""

    __slots__ = ("_give_back", "_held", "replica")

    def __init__(self, replica: Replica, give_back: Callable[[Replica], None]) -> None:
        self.replica = replica
        self._give_back = give_back
        self._held = True

    def release(self) -> None:
        """Give it back; doing so again changes nothing."""
        if self._held:
            self._held = False
            self._give_back(self.replica)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class ReplicaPool:
    """All replicas of the registry in force, and removed ones until their last request ends."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._replicas: dict[str, Replica] = {}
        self._by_model: dict[str, tuple[Replica, ...]] = {}
        self._leaving: list[Replica] = []

    def apply(self, registry: Registry) -> tuple[list[Replica], list[Replica]]:
        """Follow ``registry``; returns the replicas that are new and those that went.

        A replica that keeps id, model, address and engine keeps its health and its count. One whose address
        changed is another replica under the same id: what still runs on the old one finishes there.
        """
        present: dict[str, Replica] = {}
        by_model: dict[str, tuple[Replica, ...]] = {}
        added: list[Replica] = []
        for model in registry.models.values():
            mine = []
            for endpoint in model.endpoints:
                replica = self._replicas.get(endpoint.id)
                if replica is not None and _same(replica, model.id, endpoint):
                    replica.endpoint = endpoint
                else:
                    replica = Replica(endpoint.id, model.id, endpoint, self._engines[endpoint.engine])
                    added.append(replica)
                present[endpoint.id] = replica
                mine.append(replica)
            by_model[model.id] = tuple(mine)
        gone = [replica for name, replica in self._replicas.items() if present.get(name) is not replica]
        for replica in gone:
            replica.removed = True
            if replica.in_flight:
                self._leaving.append(replica)
        self._replicas, self._by_model = present, by_model
        return added, gone

    def lease(self, replica: Replica) -> Lease:
        """Count one request on ``replica``. Synchronous, so that choosing and counting cannot be torn
        apart.
        """
        replica.in_flight += 1
        return Lease(replica, self._give_back)

    def _give_back(self, replica: Replica) -> None:
        replica.in_flight -= 1
        if replica.removed and not replica.in_flight:
            self._leaving = [other for other in self._leaving if other is not replica]

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


def _same(replica: Replica, model_id: str, endpoint: Endpoint) -> bool:
    return (
        replica.model_id == model_id
        and replica.endpoint.url == endpoint.url
        and replica.endpoint.engine == endpoint.engine
    )


def with_state(view: HealthView, state: HealthState, now: float) -> HealthView:
    """``view`` in ``state``; ``since`` moves only when the state changes."""
    return view if view.state is state else replace(view, state=state, since=now)
