"""Run the echo engine: bind, wait as if weights were loading, serve, and finish what runs before leaving."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from modelyard.engines.echo.app import Gate, build_app
from modelyard.engines.echo.runtime import EchoSettings

_CUT_S = 0.5  # how long a handler that was told to stop may still run


class BindError(Exception):
    """The address cannot be listened on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen and how to begin and end.

    ``port`` 0 picks a free one. ``start_delay_s``: seconds before the port opens, as a real engine
    spends them on its weights. ``grace_s``: seconds that running requests may take after SIGTERM.
    """

    host: str
    port: int
    start_delay_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """How it ended: ``cut`` requests did not finish within the grace time."""

    cut: int


def bind(host: str, port: int) -> socket.socket:
    """Take the address without listening yet; BindError when it cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as exc:
        raise BindError(
            f"the host {host!r} has no address ({exc.strerror}): choose another with --host"
        ) from exc
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRINUSE:
            raise BindError(f"port {port} on {host} is in use: choose another with --port") from exc
        if exc.errno == errno.EACCES:
            raise BindError(f"port {port} needs privileges: choose one above 1023 with --port") from exc
        raise BindError(f"{host}:{port} cannot be listened on: {exc.strerror}") from exc
    sock.setblocking(False)
    return sock


def base_url(host: str, sock: socket.socket) -> str:
    """The URL that clients use, with the port that was really taken."""
    return (
        f"http://[{host}]:{sock.getsockname()[1]}"
        if ":" in host
        else f"http://{host}:{sock.getsockname()[1]}"
    )


async def serve(
    settings: EchoSettings,
    listening: Listening,
    *,
    version: str,
    ready: Callable[[str], None],
    stop: asyncio.Event | None = None,
) -> Stopped:
    """Serve until SIGTERM or SIGINT (or ``stop``); a second signal does not wait for what runs.

    ``ready`` is called with the base URL once requests are taken. BindError when the address cannot be had.
    """
    stop = stop or asyncio.Event()
    hurry = asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    try:
        # Taken before the delay: a port in use is told at once.
        sock = bind(listening.host, listening.port)
        try:
            if await _within(stop.wait(), listening.start_delay_s):
                return Stopped(cut=0)
            return await _serve_on(sock, settings, listening, version, ready, stop, hurry)
        finally:
            sock.close()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _serve_on(
    sock: socket.socket,
    settings: EchoSettings,
    listening: Listening,
    version: str,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    hurry: asyncio.Event,
) -> Stopped:
    gate = Gate()
    app = build_app(settings, registry=CollectorRegistry(), gate=gate, version=version)
    # Without handler_cancellation a client that leaves is only noticed at the next write.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=_CUT_S)
    await runner.setup()
    try:
        site = web.SockSite(runner, sock, backlog=1024)
        await site.start()
        ready(base_url(listening.host, sock))
        await stop.wait()
        gate.close()
        await site.stop()
        await _within(_first(gate.idle(), hurry.wait()), listening.grace_s)
        return Stopped(cut=gate.running)
    finally:
        await runner.cleanup()


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when the first of several waits is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _within(wait: Coroutine[Any, Any, object], seconds: float) -> bool:
    """Whether a wait was over in time."""
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return False
    return True
