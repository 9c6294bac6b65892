"""``Transport`` over raw pooled connections."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multidict import CIMultiDict

from modelyard.errors import UpstreamError, UpstreamTimeoutError
from modelyard.registry.model import Timeouts

from ..upstream import UpstreamRequest, whole
from .exchange import Exchange, Upload
from .framing import Head
from .pool import ConnectionPool
from .target import encoded, request_head, target_of

# how much of an answer may wait for its reader before the engine is made to wait
_HIGH_WATER = 128 * 1024


class WireTransport:
    """``upstream.Transport``. Use as an async context manager; ``pool`` exists while it is open."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._pool: ConnectionPool | None = None

    async def __aenter__(self) -> WireTransport:
        self._pool = ConnectionPool(asyncio.get_running_loop(), self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    @property
    def pool(self) -> ConnectionPool:
        """The connections. Raises ``RuntimeError`` outside the transport's ``async with``."""
        if self._pool is None:
            raise RuntimeError("the transport is used outside its `async with`")
        return self._pool

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[WireResponse]:
        """See ``Transport.open``."""
        response = self._start(request)
        try:
            await response.begun()
            yield response
        finally:
            response.exchange.abort()

    def _start(self, request: UpstreamRequest) -> WireResponse:
        target, path = target_of(request.url)
        headers = encoded(request.headers.items())
        response = WireResponse()
        if isinstance(request.body, bytes):
            upload, length = None, len(request.body)
            sent = request_head(request.method, target, path, headers, length) + request.body
        else:
            upload = Upload(request.body, request.length)
            sent = request_head(request.method, target, path, headers, request.length)
        response.exchange = self.pool.start(
            target,
            sent,
            response,
            request.timeouts,
            request.deadline,
            bodiless=request.method == "HEAD",
            upload=upload,
        )
        return response

    async def status_of(self, url: str, timeout_s: float) -> int:
        """See ``Transport.status_of``."""
        async with self._got(url, timeout_s) as response:
            return response.status

    async def fetch(self, url: str, timeout_s: float, limit: int) -> tuple[int, bytes]:
        """See ``Transport.fetch``."""
        async with self._got(url, timeout_s) as response:
            return response.status, await whole(response, limit)

    @asynccontextmanager
    async def _got(self, url: str, timeout_s: float) -> AsyncIterator[WireResponse]:
        limits = Timeouts(connect_s=timeout_s / 2, first_byte_s=timeout_s, idle_s=timeout_s)
        headers: CIMultiDict[str] = CIMultiDict({"Accept-Encoding": "identity"})
        request = UpstreamRequest(url=url, headers=headers, body=b"", timeouts=limits, method="GET")
        try:
            async with asyncio.timeout(timeout_s), self.open(request) as response:
                yield response
        except TimeoutError as exc:
            raise UpstreamTimeoutError(f"no answer within {timeout_s:g} s") from exc


class WireResponse:
    """``upstream.UpstreamResponse``: keeps what has come until it is asked for."""

    def __init__(self) -> None:
        self.exchange: Exchange
        self._head: Head | None = None
        self._headers: CIMultiDict[str] | None = None
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._known.status

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers as the engine sent them."""
        if self._headers is None:
            self._headers = self._known.multidict()
        return self._headers

    @property
    def _known(self) -> Head:
        if self._head is None:
            raise RuntimeError("asked before the head had come")
        return self._head

    async def begun(self) -> None:
        """Wait for the head. Raises ``UpstreamError``, or what the request's body raised."""
        while self._head is None:
            self._check()
            await self._wait()

    async def chunk(self) -> bytes:
        """See ``UpstreamResponse.chunk``."""
        while not self._parts:
            if self._ended:
                return b""
            self._check()
            await self._wait()
        data = self._parts.popleft()
        self._size -= len(data)
        if self._paused and self._size < _HIGH_WATER // 2:
            self._paused = False
            self.exchange.resume()
        return data

    def on_head(self, head: Head) -> None:
        """See ``Receiver``."""
        self._head = head
        self._wake()

    def on_data(self, data: bytes, framed: bytes | None) -> None:
        """See ``Receiver``."""
        if data:
            self._parts.append(data)
            self._size += len(data)
            if self._size > _HIGH_WATER and not self._paused:
                self._paused = True
                self.exchange.pause()
            self._wake()

    def on_end(self) -> None:
        """See ``Receiver``."""
        self._ended = True
        self._wake()

    def on_failed(self, error: UpstreamError) -> None:
        """See ``Receiver``."""
        self._error = error
        self._wake()

    def _check(self) -> None:
        if self._error is not None:
            raise self.exchange.upload_error or self._error

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
