"""Connections to engines: idle ones to use again, new ones where there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import aiohappyeyeballs

from modelyard.errors import ConfigError, UpstreamConnectError
from modelyard.registry.model import Timeouts

from .connection import Connection
from .deadlines import Sweeper
from .exchange import Exchange, Receiver, Upload
from .target import Target

# Shorter than the 5 s after which uvicorn, and so vLLM, closes an idle connection: we let go first.
_KEEP_ALIVE_S = 4.0
# what a server's own keep-alive time is shortened by: its clock started before ours
_MARGIN_S = 0.5


class ConnectionPool:
    """All connections of one proxy. ``reach`` opens one, or raises ``OSError``; the default does over the network."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None = None,
        reach: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._loop = loop
        self._tls = tls
        self._reach = reach or self._over_network
        self._idle: dict[str, list[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.sweeper = Sweeper(loop)

    def start(
        self,
        target: Target,
        request: bytes,
        receiver: Receiver,
        limits: Timeouts,
        deadline: float | None = None,
        *,
        bodiless: bool = False,
        upload: Upload | None = None,
    ) -> Exchange:
        """Send ``request`` (head and body) to ``target`` and tell ``receiver`` of the answer.

        ``deadline`` is a loop time. On an idle connection the bytes leave at once.
        """
        exchange = Exchange(
            self,
            self._loop,
            target,
            request,
            receiver,
            limits,
            deadline,
            bodiless,
            upload,
        )
        self.sweeper.watch(exchange)
        connection = self._take(target.key)
        if connection is not None:
            exchange.carry(connection)
        else:
            exchange.connect()
        return exchange

    def idle_count(self) -> int:
        """How many connections wait for their next use."""
        return sum(map(len, self._idle.values()))

    async def close(self) -> None:
        """Close what is idle and give up what is being made."""
        self.sweeper.close()
        idle, self._idle = self._idle, {}
        for connection in (one for some in idle.values() for one in some):
            connection.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- for exchanges

    def connect(self, exchange: Exchange) -> asyncio.Task[None]:
        """See ``Home``."""
        task = self._loop.create_task(self._connect(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def give_back(self, connection: Connection, idle_s: float | None) -> None:
        """See ``Home``."""
        keep_s = _KEEP_ALIVE_S if idle_s is None else min(_KEEP_ALIVE_S, idle_s - _MARGIN_S)
        if keep_s <= 0:
            connection.abort()
            return
        connection.idle_until = self._loop.time() + keep_s
        key = connection.target.key
        idle = self._idle.get(key)
        if idle is None:
            self._idle[key] = [connection]
            self.sweeper.watch(self)
        else:
            idle.append(connection)

    # --- for the sweeper

    def check(self, now: float) -> None:
        """See ``Watched``: let go of what has been idle for too long."""
        for key, connections in list(self._idle.items()):
            # the connections of longest ago come first; a server's own time may put one out of order
            if connections and connections[0].idle_until > now:
                continue
            old = [one for one in connections if one.idle_until <= now]
            self._keep(key, [one for one in connections if one.idle_until > now])
            for connection in old:
                connection.abort()
        if not self._idle:
            self.sweeper.discard(self)

    def _take(self, key: str) -> Connection | None:
        """The connection used last: the others may then age out."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            if connection.idle_until > self._loop.time():
                return connection
            connection.abort()
        return None

    def _forget(self, connection: Connection) -> None:
        """The engine closed an idle connection."""
        idle = self._idle.get(connection.target.key)
        if idle and connection in idle:
            self._keep(connection.target.key, [one for one in idle if one is not connection])

    def _keep(self, key: str, connections: list[Connection]) -> None:
        if connections:
            self._idle[key] = connections
        else:
            self._idle.pop(key, None)

    async def _connect(self, exchange: Exchange) -> None:
        connection = Connection(exchange.target, self._forget)
        try:
            await self._reach(connection)
        except asyncio.CancelledError:
            # given up while it was being made, perhaps in the last moment
            if hasattr(connection, "transport"):
                connection.abort()
            raise
        except (OSError, UnicodeError) as exc:
            exchange.unconnected(_unconnected(exc))
            return
        if exchange.done:
            # given up, and the loop's own connecting took no notice
            connection.abort()
        else:
            exchange.carry(connection)

    async def _over_network(self, connection: Connection) -> None:
        target = connection.target
        protocol = cast(asyncio.Protocol, connection)
        make = partial(self._loop.create_connection, lambda: protocol)
        secure = {"ssl": self._context(), "server_hostname": target.host} if target.tls else {}
        if _is_literal(target.host):
            await make(target.host, target.port, **secure)
            return
        found = await self._loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=0.25, interleave=1, loop=self._loop
        )
        try:
            await make(sock=sock, **secure)
        except BaseException:
            sock.close()
            raise

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def tls_context(ca_file: Path | None) -> ssl.SSLContext | None:
    """The system's authorities and those in ``ca_file``; ``None`` stands for the system's alone.

    Raises ``ConfigError`` when the file cannot be used.
    """
    if ca_file is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(
            f"the certificate authorities in {ca_file} cannot be used: {exc.strerror or exc}; "
            "name a file with certificates in PEM form"
        ) from exc
    return context


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _unconnected(error: Exception) -> UpstreamConnectError:
    """The system's words alone: the library's hold the address, which is not the client's business."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamConnectError("its certificate is not to be trusted")
    if isinstance(error, ssl.SSLError):
        return UpstreamConnectError("it does not speak TLS as it should")
    number = error.errno if isinstance(error, OSError) else None
    # a failed look-up of a name has a number of its own kind, below 0
    return UpstreamConnectError(os.strerror(number).lower() if number and number > 0 else "no connection")
