"""Run the application: listen, and at the end leave in good order."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from modelyard.registry.diff import RegistryDiff
from modelyard.registry.model import Registry

from .app import GATEWAY, WIRE
from .lane.lane import Lane
from .memory import LARGE_CHANGE, settle

_log = logging.getLogger(__name__)
_LARGEST_HEADER = 32 * 1024
BACKLOG = 1024
_protocol_log = logging.getLogger("modelyard.gateway.protocol")


def _calm(record: logging.LogRecord) -> bool:
    """Keep bytes of a request that is no HTTP out of the log: they may hold a key, and anybody can send
    them.
    """
    fault = record.exc_info[1] if record.exc_info else None
    if isinstance(fault, HttpProcessingError | web.RequestPayloadError):
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, "INFO"
        record.msg += ": it is not valid HTTP (%s)"
        record.args = (*(record.args or ()), type(fault).__name__)
    return True


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """How many requests were running when the shutdown began, and how many of them had to be cut; of those, how
    many were on engines, by model.
    """

    running: int
    cut: int
    models: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        named = ", ".join(f"{count} of {model}" for model, count in self.models.items())
        return f"{self.running - self.cut} requests finished, {self.cut} cut" + (
            f" ({named})" if named else ""
        )


class ProxyServer:
    """One application on one address."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._gateway = app[GATEWAY]
        self._runner: web.AppRunner | None = None
        self._lane: Lane | None = None
        self._servers: list[asyncio.Server] = []

    async def start(self, sockets: list[socket.socket] | None = None) -> str:
        """Listen on the settings' address, or on ``sockets``; returns the base URL.

        Raises ``OSError`` when the address cannot be had.
        """
        settings = self._gateway.settings
        _protocol_log.addFilter(_calm)
        self._runner = web.AppRunner(
            self._app,
            # without it a client that leaves is noticed only at the next write, after the whole prefill
            handler_cancellation=True,
            access_log=None,
            logger=_protocol_log,
            # our own drain waits before this; what is left then is cut
            shutdown_timeout=0.25,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
        )
        # the port first: where it cannot be had, nothing else should have begun
        if sockets is None:
            sockets = await _listen(settings.host, settings.port)
        try:
            await self._runner.setup()
            fallback = self._runner.server
            if fallback is None:
                raise RuntimeError("the runner has no server after its setup")
            loop = asyncio.get_running_loop()
            rng = random.Random()  # noqa: S311 - tells requests apart, guards nothing
            lane = Lane(self._gateway, self._app[WIRE].pool, fallback, loop=loop, rng=rng)
            self._lane = lane
            make = cast(Callable[[], asyncio.Protocol], lane)
            for one in sockets:
                self._servers.append(await loop.create_server(make, sock=one, backlog=BACKLOG))
        except BaseException:
            for one in sockets:
                one.close()
            await self._runner.cleanup()
            raise
        settle()
        self._gateway.keeper.listen(_settle)
        return url_of(sockets[0])

    async def stop(self, hurry: asyncio.Event | None = None) -> ShutdownReport:
        """Ready false, wait for load balancers, close the port, let requests finish, cut the rest.

        Setting ``hurry`` skips what is left of the waiting. A second call does nothing.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return ShutdownReport(0, 0)
        lifecycle, settings = self._gateway.lifecycle, self._gateway.settings
        hurry = hurry or asyncio.Event()
        lifecycle.draining = True
        if settings.drain_delay_s:
            await _either(hurry, None, settings.drain_delay_s)
        for server in self._servers:
            server.close()
        running = lifecycle.active
        if running:
            _log.info("finishing %d requests, for at most %g s", running, settings.shutdown_grace_s)
            await _either(hurry, lifecycle.idle, settings.shutdown_grace_s)
        report = ShutdownReport(running, lifecycle.active, self._on_engines())
        if self._lane is not None:
            await self._lane.close()
        await runner.cleanup()
        _log.info("stopped: %s", report)
        return report

    def hang_up(self) -> None:
        """SIGHUP came: the access log's file was moved away."""
        if self._gateway.access_log is not None:
            self._gateway.access_log.reopen()

    def _on_engines(self) -> dict[str, int]:
        # the leases of this process: a replica's own count may be that of several workers
        held = (pursuit.lease for pursuit in self._gateway.pursuits.running)
        counts = Counter(lease.replica.model_id for lease in held if lease is not None)
        return {model: count for model, count in sorted(counts.items()) if count}


def _settle(_: Registry, change: RegistryDiff) -> None:
    if change.size >= LARGE_CHANGE:
        settle()


def url_of(listening: socket.socket) -> str:
    """The base URL of what listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of ``host``. Raises ``OSError``."""
    sockets = await _each(host, port, shared=False)
    for one in sockets:
        one.listen(BACKLOG)
    return sockets


async def reserve(host: str, port: int) -> list[socket.socket]:
    """A bound socket for each address of ``host`` that keeps it for several workers and takes no connection.

    Raises ``OSError``, also where another program has the address and would share it.
    """
    for one in await _each(host, port, shared=False):
        # sharing alone would let two proxies of one user take turns on a port
        if port:
            one.listen(1)
        one.close()
    return await _each(host, port, shared=True)


def bound(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    """A socket bound to ``address``; ``shared``: together with others that say so. Raises ``OSError``."""
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # a restart must not wait for the connections of the last run to be forgotten
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


async def _each(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            sockets.append(bound(family, address, shared=shared))
    except BaseException:
        for one in sockets:
            one.close()
        raise
    return sockets


async def _either(first: asyncio.Event, second: asyncio.Event | None, limit_s: float) -> None:
    """Wait until one of the events is set or ``limit_s`` has passed."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (first, second) if event is not None]
    try:
        await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
