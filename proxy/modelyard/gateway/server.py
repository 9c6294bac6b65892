"""Run the application: listen, and at the end leave in good order."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from aiohttp import web

from .app import GATEWAY

_log = logging.getLogger(__name__)
_LARGEST_HEADER = 32 * 1024


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
        self._site: web.TCPSite | None = None

    async def start(self) -> str:
        """Listen; returns the base URL. Raises ``OSError`` when the address cannot be had."""
        settings = self._gateway.settings
        self._runner = web.AppRunner(
            self._app,
            # without it a client that leaves is noticed only at the next write, after the whole prefill
            handler_cancellation=True,
            access_log=logging.getLogger("modelyard.access") if settings.access_log else None,
            # our own drain waits before this; what is left then is cut
            shutdown_timeout=1.0,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
        )
        await self._runner.setup()
        try:
            self._site = web.TCPSite(self._runner, settings.host, settings.port)
            await self._site.start()
        except BaseException:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self, hurry: asyncio.Event | None = None) -> ShutdownReport:
        """Ready false, wait for load balancers, close the port, let requests finish, cut the rest.

        Setting ``hurry`` skips what is left of the waiting.
        """
        if self._runner is None:
            return ShutdownReport(0, 0)
        lifecycle, settings = self._gateway.lifecycle, self._gateway.settings
        hurry = hurry or asyncio.Event()
        lifecycle.draining = True
        if settings.drain_delay_s:
            await _either(hurry, None, settings.drain_delay_s)
        if self._site is not None:
            await self._site.stop()
        running = lifecycle.active
        if running:
            _log.info("finishing %d requests, for at most %g s", running, settings.shutdown_grace_s)
            await _either(hurry, lifecycle.idle, settings.shutdown_grace_s)
        report = ShutdownReport(running=running, cut=lifecycle.active)
        await self._runner.cleanup()
        _log.info("stopped: %d requests finished, %d cut", report.running - report.cut, report.cut)
        return report


async def _either(first: asyncio.Event, second: asyncio.Event | None, limit_s: float) -> None:
    """Wait until one of the events is set or ``limit_s`` has passed."""
    waiting = [asyncio.ensure_future(event.wait()) for event in (first, second) if event is not None]
    try:
        await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
