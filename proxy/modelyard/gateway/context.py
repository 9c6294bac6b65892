"""What every route may use, put together once by ``app``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from modelyard.errors import ModelNotFoundError, ModelyardError, nearest
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.model import Model
from modelyard.settings import Settings

from .balancer import Balancer
from .forward import Forwarder
from .metrics import Metrics
from .replicas import ReplicaPool


@dataclass(slots=True)
class Lifecycle:
    """Whether the proxy takes requests, and how many it is serving."""

    draining: bool = False
    active: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self) -> None:
        """A request begins."""
        self.active += 1
        self.idle.clear()

    def leave(self) -> None:
        """A request has ended, in whatever way."""
        self.active -= 1
        if not self.active:
            self.idle.set()


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of one running proxy. ``clock`` gives seconds since the epoch."""

    settings: Settings
    keeper: RegistryKeeper
    pool: ReplicaPool
    balancer: Balancer
    forwarder: Forwarder
    metrics: Metrics
    lifecycle: Lifecycle
    clock: Callable[[], float]

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
