"""The composition root: every part of the proxy is made and wired here, and nowhere else."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from modelyard.catalog.loader import load_engines
from modelyard.registry.diff import RegistryDiff
from modelyard.registry.environment import from_environment
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.load import load_file
from modelyard.registry.model import Registry
from modelyard.registry.watch import RegistryWatcher, Signature, signature
from modelyard.settings import Settings

from .admin_key import AdminKey, read_admin_key
from .balancer import Balancer
from .context import Gateway, Lifecycle
from .forward import Forwarder
from .guard import make_guard, make_on_prepare
from .handlers import Handlers
from .health import HealthMonitor, HealthRules
from .metrics import Metrics, StateCollector
from .replicas import ReplicaPool
from .routes import ROUTES
from .upstream import AiohttpTransport

GATEWAY = web.AppKey("gateway", Gateway)
MONITOR = web.AppKey("monitor", HealthMonitor)


def first_registry(settings: Settings, environment: dict[str, str]) -> tuple[Registry, str, Signature | None]:
    """The registry to start with, its source's name, and the file version it came from.

    Raises ``ConfigError`` with every problem: a proxy that starts with nothing would hide the mistake.
    """
    if settings.registry is None:
        return from_environment(environment), "environment", None
    # taken before reading: a write in between is then seen as a newer version
    version = signature(settings.registry)
    return load_file(settings.registry), str(settings.registry), version


def create_app(
    settings: Settings,
    registry: Registry,
    *,
    source: str,
    version: Signature | None = None,
    clock: Callable[[], float] = time.time,
    rng: random.Random | None = None,
) -> web.Application:
    """A proxy that serves ``registry`` and follows the file ``settings.registry`` where one is set.

    Raises ``ConfigError`` when the management key cannot be used. ``clock`` gives seconds since the epoch.
    """
    admin_key = read_admin_key(settings.admin_key_file) if settings.admin_key_file else None
    chance = rng or random.Random()  # noqa: S311 - spreads load and probes, guards nothing

    def now() -> datetime:
        return datetime.fromtimestamp(clock(), UTC)

    keeper = RegistryKeeper(registry, source, clock)
    pool = ReplicaPool(load_engines())
    metrics = Metrics(CollectorRegistry())
    metrics.registry.register(StateCollector(pool, keeper, now))
    transport = AiohttpTransport()
    balancer = Balancer(pool, now=now, rng=chance)
    monitor = HealthMonitor(
        pool,
        transport.status_of,
        HealthRules(
            interval_s=settings.probe_interval_s,
            timeout_s=settings.probe_timeout_s,
            failures=settings.probe_failures,
            successes=settings.probe_successes,
        ),
        clock=clock,
        rng=chance,
    )
    forwarder = Forwarder(
        balancer,
        transport,
        registry=lambda: keeper.current,
        max_attempts=settings.max_attempts,
        observer=metrics,
        unreachable=monitor.mark_unreachable,
    )
    gateway = Gateway(settings, keeper, pool, balancer, forwarder, metrics, Lifecycle(), clock)
    pool.apply(registry)

    def follow(newer: Registry, _: RegistryDiff) -> None:
        for replica in pool.apply(newer)[1]:
            metrics.forget(replica)
        monitor.follow()

    keeper.listen(follow)

    async def run_transport(_: web.Application) -> AsyncIterator[None]:
        async with transport:
            yield

    async def run_monitor(_: web.Application) -> AsyncIterator[None]:
        monitor.follow()
        yield
        await monitor.close()

    async def run_watcher(_: web.Application) -> AsyncIterator[None]:
        if settings.registry is None:
            yield
            return
        watcher = RegistryWatcher(
            Path(settings.registry), keeper, interval_s=settings.registry_poll_s, seen=version
        )
        task = asyncio.create_task(watcher.run(), name="registry watcher")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = web.Application(middlewares=[make_guard(gateway)], client_max_size=settings.max_body_bytes)
    app.on_response_prepare.append(make_on_prepare(gateway))
    app.cleanup_ctx.extend([run_transport, run_monitor, run_watcher])
    app[GATEWAY] = gateway
    app[MONITOR] = monitor
    _add_routes(app, Handlers(gateway, admin_key), admin_key)
    return app


def _add_routes(app: web.Application, handlers: Handlers, admin_key: AdminKey | None) -> None:
    for route in ROUTES:
        if route.admin and admin_key is None:
            continue
        handler = getattr(handlers, route.operation)
        # a name may hold slashes: Qwen/Qwen2.5-7B-Instruct is a fair alias
        path = route.path.replace("{model_id}", "{model_id:.+}")
        for spelled in {path, path.rstrip("/") + "/"}:
            if route.method == "GET":
                app.router.add_get(spelled, handler)
            else:
                app.router.add_route(route.method, spelled, handler)
