"""What all connections of the lane share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from modelyard.registry.model import DEFAULT_MODEL_NAMES, Model, Registry

from ..context import Gateway
from ..dialects.limits import limits_apply
from ..fallbacks import fallback_chain
from ..headers import client_of, is_trusted
from ..wire.deadlines import Sweeper
from ..wire.pool import ConnectionPool
from .answers import Stamp
from .heads import Template, template_of
from .protocol import LaneProtocol

# how often silent clients are looked for
_TICK_S = 0.25
# turns of the loop in which connections close that have nothing left to send
_TURNS = 20
# request ids that are drawn at once
_IDS = 256
# bodies that are larger are left to aiohttp
_LARGEST_BODY = 2 * 2**20


class Lane:
    """Makes the protocols of a listener. ``fallback`` makes aiohttp's own, for what the lane leaves."""

    def __init__(
        self,
        gateway: Gateway,
        pool: ConnectionPool,
        fallback: Callable[[], asyncio.Protocol],
        *,
        loop: asyncio.AbstractEventLoop,
        rng: random.Random,
    ) -> None:
        self.gateway = gateway
        self.pool = pool
        self.fallback = fallback
        self.loop = loop
        self.stamp = Stamp()
        self.sweeper = Sweeper(loop, _TICK_S)
        self.body_timeout_s = gateway.settings.body_timeout_s
        self.largest_body = min(_LARGEST_BODY, gateway.settings.max_body_bytes)
        self.connections: set[LaneProtocol] = set()
        self._networks = gateway.settings.trusted_networks()
        self._origins = frozenset(gateway.settings.allowed_origins)
        self._rng = rng
        self._ids: list[str] = []
        self._registry: Registry | None = None
        # by every name that a client has used; the registry bounds them
        self._known: dict[str, Model] = {}

    def __call__(self) -> LaneProtocol:
        """A protocol for a new connection."""
        return LaneProtocol(self)

    def new_id(self) -> str:
        """An id for a request whose client gave none."""
        ids = self._ids
        if not ids:
            drawn = self._rng.randbytes(16 * _IDS).hex()
            ids += [drawn[at : at + 32] for at in range(0, len(drawn), 32)]
        return ids.pop()

    def template(self, head: bytes, peer: str | None) -> Template | None:
        """See ``template_of``."""
        return template_of(
            head,
            trusted=is_trusted(peer, self._networks),
            origins=self._origins,
            traced=self.gateway.tracing is not None,
        )

    def client_of(self, template: Template, peer: str | None) -> str:
        """The address that a request with this head came from."""
        return client_of(peer, template.forwarded, self._networks) if template.forwarded else peer or ""

    def model_of(self, name: str) -> Model | None:
        """The model that a client calls ``name``, when a request for it may be the lane's: it is for everyone,
        it generates text without limits, and all engines that may be asked speak the dialect of the lane's routes.
        """
        registry = self.gateway.keeper.current
        if registry is not self._registry:
            self._registry = registry
            self._known.clear()
        model = self._known.get(name)
        if model is None and name not in DEFAULT_MODEL_NAMES:
            # those mean TGI's clients, which must be read as TGI would
            model = registry.resolve(name)
            if model is None or not self._serves(registry, model):
                return None
            self._known[name] = model
        return model

    def _serves(self, registry: Registry, model: Model) -> bool:
        return (
            not model.clients
            and model.task == "generate"
            and model.mirror is None
            and not limits_apply(model)
            and all(
                replica.engine.speaks("openai")
                for each in fallback_chain(registry, model)
                for replica in self.gateway.pool.of_model(each.id)
            )
        )

    async def close(self) -> None:
        """Close every connection, and cut what still runs."""
        self.sweeper.close()
        for connection in list(self.connections):
            connection.cut()
        for _ in range(_TURNS):
            if not self.connections:
                return
            await asyncio.sleep(0)
        for connection in list(self.connections):
            # its last answer is not taken
            connection.transport.abort()
        await asyncio.sleep(0)
