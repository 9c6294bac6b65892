"""An engine made of bytes: it reads requests and answers each with whatever it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class RawEngine:
    """``script`` holds the coming answers: bytes, or a function that writes. ``CLOSE`` at the end of bytes
    closes the connection. Without a script it says hello. Probes (GET) are always well.
    ``connections`` counts those that carried a request.
    """

    CLOSE = b"\0CLOSE"

    def __init__(self) -> None:
        self.script: deque[Answer] = deque()
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.open = 0
        self.gone = asyncio.Event()
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._scheme = "http"

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    async def start(self, tls: ssl.SSLContext | None = None) -> RawEngine:
        self._scheme = "http" if tls is None else "https"
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.hang_up()
            await self._server.wait_closed()

    def hang_up(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        fresh = True
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith((b"GET /health", b"GET /v1/models", b"GET /metrics")):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                self.connections += fresh
                fresh = False
                self.requests.append((head, await self._body(head, reader)))
                answer: Answer = self.script.popleft() if self.script else HELLO
                if not isinstance(answer, bytes):
                    await answer(writer)
                elif answer.endswith(self.CLOSE):
                    writer.write(answer.removesuffix(self.CLOSE))
                    return
                else:
                    writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            self.gone.set()
            self._writers.discard(writer)
            writer.close()

    async def _body(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
            return body
        length = lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await reader.readexactly(int(length or 0))
