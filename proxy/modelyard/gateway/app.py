"""The composition root: every part of the proxy is made and wired here, and nowhere else."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from modelyard.catalog.loader import load_engines
from modelyard.errors import ConfigError
from modelyard.registry.diff import RegistryDiff
from modelyard.registry.environment import from_environment
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.load import load_file
from modelyard.registry.model import Registry
from modelyard.registry.watch import RegistryWatcher, Signature, signature
from modelyard.settings import Settings

from .access_log import AccessLog
from .admin_key import AdminKey, read_admin_key
from .balancer import Balancer, BalancerRules
from .breaker import BreakerRules
from .context import Gateway, Lifecycle, Peers
from .forward import Forwarder
from .guard import make_guard, make_on_prepare
from .handlers import Handlers
from .health.monitor import HealthMonitor
from .health.rules import HealthRules
from .homes import ResponseHomes
from .metrics import FleetCollector, Metrics, ProxyCollector, TallyCollector
from .mirror import Mirror
from .pursuits import Pursuits
from .queue import WaitingRooms
from .replicas import ReplicaPool
from .retries import RetryBudget
from .routes import ROUTES
from .suspects import Suspects
from .tally import Tally
from .wire.pool import tls_context
from .wire.transport import WireTransport

if TYPE_CHECKING:
    from .tracing import Tracing

GATEWAY = web.AppKey("gateway", Gateway)
MONITOR = web.AppKey("monitor", HealthMonitor)
WIRE = web.AppKey("wire", WireTransport)


def first_registry(settings: Settings, environment: dict[str, str]) -> tuple[Registry, str, Signature | None]:
    """The registry to start with, its source's name, and the file version it came from.

    Raises ``ConfigError`` with every problem: a proxy that starts with nothing would hide the mistake.
    """
    if settings.registry is None:
        return from_environment(environment), "environment", None
    # taken before reading: a write in between is then seen as a newer version
    version = signature(settings.registry)
    return load_file(settings.registry), str(settings.registry), version


@dataclass(frozen=True, slots=True)
class Sharing:
    """What one of several workers shares with the others, in place of parts of its own."""

    pool: ReplicaPool
    monitor: type[HealthMonitor]
    peers: Peers


def breaker_rules(settings: Settings) -> BreakerRules:
    """The rules of circuit breakers that ``settings`` ask for."""
    return BreakerRules(settings.breaker_failures, settings.breaker_open_s, settings.breaker_longest_s)


def health_rules(settings: Settings) -> HealthRules:
    """The rules of health that ``settings`` ask for."""
    return HealthRules(
        interval_s=settings.probe_interval_s,
        timeout_s=settings.probe_timeout_s,
        failures=settings.probe_failures,
        successes=settings.probe_successes,
        hung_after_s=settings.hung_after_s,
        eject_hung=settings.hung_action == "eject",
        busy_waiting=settings.busy_waiting,
    )


def create_app(
    settings: Settings,
    registry: Registry,
    *,
    source: str,
    version: Signature | None = None,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
    sharing: Sharing | None = None,
) -> web.Application:
    """A proxy that serves ``registry`` and follows the file ``settings.registry`` where one is set.

    Raises ``ConfigError`` when the management key cannot be used. ``clock`` gives seconds since the epoch,
    ``steady`` those of a clock that never goes back. ``sharing`` is for one of several workers.
    """
    admin_key = read_admin_key(settings.admin_key_file) if settings.admin_key_file else None
    chance = rng or random.Random()  # noqa: S311 - spreads load and probes, guards nothing

    def now() -> datetime:
        return datetime.fromtimestamp(clock(), UTC)

    keeper = RegistryKeeper(registry, source, clock)
    pool = sharing.pool if sharing else ReplicaPool(load_engines(), breaker_rules(settings))
    tally = Tally()
    transport = WireTransport(tls_context(settings.upstream_ca_file))
    balancer = Balancer(
        pool,
        now=now,
        clock=clock,
        steady=steady,
        rng=chance,
        rules=BalancerRules(
            slow_start_s=settings.slow_start_s,
            expiry_margin_s=settings.expiry_margin_s,
            token_s=settings.expiry_token_s,
        ),
    )
    monitor = (sharing.monitor if sharing else HealthMonitor)(
        pool,
        transport,
        health_rules(settings),
        clock=clock,
        rng=chance,
    )
    rooms = WaitingRooms(steady)
    pursuits = Pursuits(
        balancer,
        registry=lambda: keeper.current,
        max_attempts=settings.max_attempts,
        observer=tally,
        watch=monitor,
        rooms=rooms,
        suspects=Suspects(steady, settings.suspect_s),
        budget=RetryBudget(settings.retry_budget_percent, steady),
        steady=steady,
        clock=clock,
    )
    # nobody has to be told before somebody waits
    rooms.when_used(lambda: pool.when_freed(pursuits.freed))
    monitor.listen(lambda replica, _, __: pursuits.changed(replica))
    forwarder = Forwarder(pursuits, transport)
    mirror = Mirror(forwarder, lambda: keeper.current, chance)
    forwarder.copy_to(mirror.offer)
    wanted = settings.access_log or settings.access_log_file is not None
    access_log = AccessLog(settings.access_log_file, clock) if wanted else None
    tracing = _tracing(settings.otel_endpoint, clock, chance) if settings.otel_endpoint else None
    metrics = Metrics(
        TallyCollector(tally),
        FleetCollector(pool, now, monitor.oldest_look_s),
        ProxyCollector(pursuits, keeper, access_log, mirror),
    )
    gateway = Gateway(
        settings,
        keeper,
        pool,
        monitor,
        balancer,
        pursuits,
        forwarder,
        tally,
        metrics,
        Lifecycle(),
        clock,
        ResponseHomes(clock),
        access_log,
        sharing.peers if sharing else None,
        tracing,
    )
    pool.apply(registry)
    tally.follow(registry.models, ())

    def follow(newer: Registry, _: RegistryDiff) -> None:
        tally.follow(newer.models, pool.apply(newer)[1])
        balancer.changed()
        rooms.follow(newer.models)
        monitor.follow()

    keeper.prepare_with(pool.prepare)
    keeper.listen(follow)

    async def run_transport(_: web.Application) -> AsyncIterator[None]:
        async with transport:
            yield

    async def run_access_log(_: web.Application) -> AsyncIterator[None]:
        if access_log is None:
            yield
            return
        async with access_log.running():
            yield

    async def run_tracing(_: web.Application) -> AsyncIterator[None]:
        if tracing is None:
            yield
            return
        async with tracing.running():
            yield

    async def run_mirror(_: web.Application) -> AsyncIterator[None]:
        yield
        await mirror.close()

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
    app.cleanup_ctx.extend([run_access_log, run_tracing, run_transport, run_mirror, run_monitor, run_watcher])
    app[GATEWAY] = gateway
    app[MONITOR] = monitor
    app[WIRE] = transport
    _add_routes(app, Handlers(gateway, admin_key), admin_key)
    return app


def _tracing(endpoint: str, clock: Callable[[], float], rng: random.Random) -> Tracing:
    """What sends traces to ``endpoint``. Raises ``ConfigError`` where the extra for it is missing."""
    try:
        from .tracing import Tracing, exporter_for
    except ImportError as exc:
        raise ConfigError(
            f"traces are wanted (otel_endpoint is set), but OpenTelemetry is not installed ({exc.name}); "
            "pip install 'modelyard[otel]', or take the setting away"
        ) from exc
    return Tracing(lambda: exporter_for(endpoint), clock, rng)


def _add_routes(app: web.Application, handlers: Handlers, admin_key: AdminKey | None) -> None:
    for route in ROUTES:
        if route.admin and admin_key is None:
            continue
        handler = getattr(handlers, route.operation)
        # a name may hold slashes: Qwen/Qwen2.5-7B-Instruct is a fair alias
        path = route.path.replace("{model_id}", "{model_id:.+}")
        path = path.replace("{response_id}", "{response_id:[A-Za-z0-9_.-]+}")
        for spelled in {path, path.rstrip("/") + "/"}:
            if route.method == "GET":
                app.router.add_get(spelled, handler)
            else:
                app.router.add_route(route.method, spelled, handler)
