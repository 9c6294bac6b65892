"""What every route may use, put together once by ``app``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.errors import ModelNotFoundError, ModelyardError, nearest
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.model import Model
from modelyard.settings import Settings

from .access_log import AccessLog
from .balancer import Balancer
from .forward import Forwarder
from .health.monitor import HealthMonitor
from .homes import ResponseHomes
from .metrics import Metrics
from .pursuits import Pursuits
from .replicas import ReplicaPool
from .tally import Tally
from .visit import Visit

if TYPE_CHECKING:
    # needs an extra, which is there only where traces are wanted
    from .tracing import Tracing


@dataclass(slots=True)
class Lifecycle:
    """Whether the proxy takes requests, and how many it is serving."""

    draining: bool = False
    active: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self) -> None:
        """A request begins."""
        if not self.active:
            self.idle.clear()
        self.active += 1

    def leave(self) -> None:
        """A request has ended, in whatever way."""
        self.active -= 1
        if not self.active:
            self.idle.set()


class Peers(Protocol):
    """The other workers on this port, where there are any; this one is always among those that answer."""

    async def metrics(self) -> bytes:
        """The metrics of all workers in the text exposition format."""

    async def requests(self) -> list[dict[str, Any]]:
        """The rows of all requests in flight."""

    def tell(self, topic: str, fact: Any) -> None:
        """Tell all other workers ``fact`` (plain JSON)."""

    def listen(self, topic: str, listener: Callable[[Any], None]) -> None:
        """``listener`` hears what other workers tell about ``topic``."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of one running proxy. ``clock`` gives seconds since the epoch."""

    settings: Settings
    keeper: RegistryKeeper
    pool: ReplicaPool
    monitor: HealthMonitor
    balancer: Balancer
    pursuits: Pursuits
    forwarder: Forwarder
    tally: Tally
    metrics: Metrics
    lifecycle: Lifecycle
    clock: Callable[[], float]
    responses: ResponseHomes
    access_log: AccessLog | None = None
    peers: Peers | None = None
    tracing: Tracing | None = None

    def ended(self, visit: Visit, status: int) -> None:
        """A client's request has ended, in whatever way, with ``status``: it is counted and written down."""
        now = time.perf_counter()
        self.tally.ended(visit, status, now)
        if self.access_log is not None:
            self.access_log.note(visit, status, now - visit.started)
        if self.tracing is not None:
            self.tracing.ended(visit, status, now)
        if visit.pursuit is not None:
            # they know each other: parted, counting references frees them, and no collection has to
            visit.pursuit.origin = None

    def model(self, name: str, *, param: str) -> Model:
        """The model that a client calls ``name`` and may use; ``param`` is where it said so.

        Raises ``ModelNotFoundError``, or a 403 where the model is reserved for certain clients.
        """
        model = self.find(name, param=param)
        if model.clients:
            # nobody can be told apart yet, so what is not for everyone is for no one
            raise ModelyardError(
                f"model {name!r} is reserved for certain clients; ask the operator for access",
                status=403,
                code="model_restricted",
                param=param,
            )
        return model

    def find(self, name: str, *, param: str) -> Model:
        """The model called ``name``, to be looked at. Raises ``ModelNotFoundError`` with the nearest
        names.
        """
        registry = self.keeper.current
        model = registry.resolve(name)
        if model is None:
            names = registry.names()
            near = nearest(name, names)
            if near:
                hint = f"did you mean {' or '.join(map(repr, near))}?"
            elif names:
                hint = f"known are {', '.join(names[:10])}{' and more' if len(names) > 10 else ''}"
            else:
                hint = "the registry has no models yet"
            raise ModelNotFoundError(f"no model is called {name[:100]!r}; {hint}", param=param)
        return model

    def default_model(self, *, param: str) -> Model:
        """The model meant when none is named. Raises ``ModelNotFoundError`` when the registry has none that
        generates.
        """
        model = self.keeper.current.default()
        if model is None:
            raise ModelNotFoundError("the registry has no model that generates text", param=param)
        return self.model(model.id, param=param)
