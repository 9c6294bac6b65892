"""An engine made of a bare socket: it answers probes, and to everything else it does what its script says."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .answers import head

_LARGEST_HEAD = 256 * 1024


@dataclass(slots=True)
class Heard:
    """One generation request that an engine received. ``at`` and ``gone_at`` are monotonic seconds,
    ``connection`` counts the engine's connections.
    """

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float
    connection: int
    gone_at: float | None = None

    @property
    def prompt(self) -> str:
        """The last message's text, or the prompt of routes without messages."""
        messages = self.body.get("messages")
        if messages:
            return str(messages[-1]["content"])
        return str(self.body.get("prompt", self.body.get("inputs", "")))

    @property
    def streamed(self) -> bool:
        """Whether the client wants a stream."""
        return bool(self.body.get("stream"))


class Exchange:
    """One request and the connection it came on, in the hands of a script."""

    def __init__(
        self, engine: Engine, heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.engine = engine
        self.heard = heard
        self.closed = False
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes, waiting while the proxy takes none. Raises ``ConnectionError`` when it has left."""
        self._writer.write(data)
        await self._writer.drain()

    async def drip(self, data: bytes, size: int = 1) -> None:
        """Send bytes in pieces of ``size``, each in a packet of its own as far as the kernel agrees."""
        for start in range(0, len(data), size):
            await self.send(data[start : start + size])
            await asyncio.sleep(0)

    async def until_gone(self) -> None:
        """Wait until the proxy has closed the connection, and note when that was."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        self.heard.gone_at = time.monotonic()
        self.close()

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self._writer.write_eof()

    def close(self) -> None:
        """End the connection with FIN once all is sent."""
        self.closed = True
        self._writer.close()

    def reset(self) -> None:
        """End the connection with RST at once."""
        self.closed = True
        reset(self._writer)


Script = Callable[[Exchange], Awaitable[None]]


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what is unsent is lost, and the other side reads an error."""
    opened = writer.get_extra_info("socket")
    if opened is not None:
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass(slots=True)
class Engine:
    """One engine on loopback. Use ``start`` and ``stop``, or the stage, which stops it."""

    script: Script
    name: str = "engine"
    # the status of each look at /health
    health: Callable[[], int] = lambda: 200
    # called for each look at /metrics
    metrics: Callable[[], str] = lambda: ""
    # connections are reset as they are accepted
    deaf: bool = False
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _talks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Engine:
        """Listen: on a free port the first time, on the same one after a stop."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=_LARGEST_HEAD, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Die as a killed process does: the port refuses, every connection is reset."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    def die(self) -> None:
        """``stop`` from inside one of its own scripts: the port refuses at once, the rest follows."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for talk in self._talks:
            talk.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a task of our own: asyncio reports one of its server's as a fault when it is cancelled
        self.connections += 1
        task = asyncio.create_task(self._talk(reader, writer, self.connections))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            if not self.deaf:
                while await self._exchange(reader, writer, number):
                    pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            # what a script closed itself leaves in order
            if not writer.is_closing():
                reset(writer)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        """Serve one request; whether the connection may carry another."""
        method, path, headers, body = await _read_request(reader)
        if method == "GET":
            await self._probe(path, writer)
            return False
        heard = Heard(path, headers, json.loads(body), time.monotonic(), number)
        self.heard.append(heard)
        exchange = Exchange(self, heard, reader, writer)
        try:
            await self.script(exchange)
        except ConnectionError:
            heard.gone_at = time.monotonic()
            raise
        return not exchange.closed

    async def _probe(self, path: str, writer: asyncio.StreamWriter) -> None:
        status = self.health() if path == "/health" else 200
        body = self.metrics().encode() if path == "/metrics" else b""
        # never kept: a scenario says itself which connections are used again
        writer.write(head(status, f"Content-Length: {len(body)}", "Connection: close") + body)
        await writer.drain()
        writer.close()


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    """Method, path, headers in lower case, body. Our own proxy sends these, so little can be wrong."""
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return method, path, headers, await read_chunks(reader)
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body to its end."""
    parts = []
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return b"".join(parts)
