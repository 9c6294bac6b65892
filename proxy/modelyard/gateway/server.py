"""Run the application: listen, and at the end leave in good order."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from .app import GATEWAY

_log = logging.getLogger(__name__)
_LARGEST_HEADER = 32 * 1024
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
    """How many requests were running when the shutdown began, and how many of them had to be cut."""

    running: int
    cut: int


class ProxyServer:
    """One application on one address."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._gateway = app[GATEWAY]
        self._runner: web.AppRunner | None = None
        self._sites: list[web.BaseSite] = []

    async def start(self) -> str:
        """Listen; returns the base URL. Raises ``OSError`` when the address cannot be had."""
        settings = self._gateway.settings
        _protocol_log.addFilter(_calm)
        self._runner = web.AppRunner(
            self._app,
            # without it a client that leaves is noticed only at the next write, after the whole prefill
            handler_cancellation=True,
            access_log=logging.getLogger("modelyard.access") if settings.access_log else None,
            logger=_protocol_log,
            # our own drain waits before this; what is left then is cut
            shutdown_timeout=0.25,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
        )
        # the port first: where it cannot be had, nothing else should have begun
        sockets = await _listen(settings.host, settings.port)
        try:
            await self._runner.setup()
            for one in sockets:
                site = web.SockSite(self._runner, one)
                await site.start()
                self._sites.append(site)
        except BaseException:
            for one in sockets:
                one.close()
            await self._runner.cleanup()
            raise
        host, port = sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

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
        for site in self._sites:
            await site.stop()
        running = lifecycle.active
        if running:
            _log.info("finishing %d requests, for at most %g s", running, settings.shutdown_grace_s)
            await _either(hurry, lifecycle.idle, settings.shutdown_grace_s)
        report = ShutdownReport(running=running, cut=lifecycle.active)
        await runner.cleanup()
        _log.info("stopped: %d requests finished, %d cut", report.running - report.cut, report.cut)
        return report


async def _listen(host: str, port: int) -> list[socket.socket]:
    """A bound socket for each address of ``host``. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            one = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(one)
            # a restart must not wait for the connections of the last run to be forgotten
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(1024)
            one.setblocking(False)
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
