"""The supervisor's eyes: registry, replicas and probes, without serving anything."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

from modelyard.catalog.loader import load_engines
from modelyard.registry.diff import RegistryDiff
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.model import Registry
from modelyard.registry.watch import RegistryWatcher, Signature
from modelyard.settings import Settings

from ..app import breaker_rules, health_rules
from ..health.monitor import HealthMonitor, Listener
from ..metrics import FleetCollector, Metrics
from ..replicas import Replica
from ..wire.pool import tls_context
from ..wire.transport import WireTransport
from .channel import Message
from .table import CountTable, SharedPool


class FleetWatch:
    """What is true about the replicas, for all workers. ``build`` comes first, then ``open`` and ``close``."""

    pool: SharedPool
    monitor: HealthMonitor
    metrics: Metrics

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        source: str,
        version: Signature | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._version = version
        self._clock = clock
        self._keeper = RegistryKeeper(registry, source, clock)
        self._transport = WireTransport(tls_context(settings.upstream_ca_file))
        self._stack = AsyncExitStack()

    def build(self, table: CountTable) -> None:
        """Lay everything out over ``table``."""
        self.pool = SharedPool(load_engines(), table, None, breaker_rules(self._settings))
        self.monitor = HealthMonitor(
            self.pool,
            self._transport,
            health_rules(self._settings),
            clock=self._clock,
            rng=random.Random(),  # noqa: S311 - spreads probes, guards nothing
        )
        self.metrics = Metrics(FleetCollector(self.pool, self._now, self.monitor.oldest_look_s))
        self.pool.apply(self._registry)
        self._keeper.prepare_with(self.pool.prepare)
        self._keeper.listen(self._follow)

    def present(self) -> Iterable[Replica]:
        """The replicas of the registry in force."""
        return [replica for replica in self.pool.everyone() if not replica.removed]

    async def open(self, listener: Listener) -> None:
        """Begin to look; ``listener`` hears of every change of state."""
        await self._stack.enter_async_context(self._transport)
        self.monitor.listen(listener)
        self.monitor.follow()
        self._stack.push_async_callback(self.monitor.close)
        if self._settings.registry is not None:
            watcher = RegistryWatcher(
                self._settings.registry,
                self._keeper,
                interval_s=self._settings.registry_poll_s,
                seen=self._version,
            )
            task = asyncio.create_task(watcher.run(), name="registry watcher")
            self._stack.push_async_callback(_ended, task)

    async def close(self) -> None:
        """Look no more."""
        await self._stack.aclose()

    def take(self, message: Message) -> None:
        """What a worker's requests or its operator have to say about replicas."""
        if message["kind"] == "drain":
            named = [self.pool.get(name) for name in message["replicas"]]
            self.monitor.set_drained([item for item in named if item is not None], message["drained"])
            return
        replica = self.pool.get(message["replica"])
        if replica is None:
            return
        if message["kind"] == "unreachable":
            self.monitor.mark_unreachable(replica, message["reason"])
        elif message["kind"] == "busy":
            self.monitor.mark_busy(replica, message["reason"])

    def _follow(self, newer: Registry, _: RegistryDiff) -> None:
        self.pool.apply(newer)
        self.monitor.follow()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
