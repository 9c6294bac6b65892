"""Moving bytes to and from an engine. Everything above sees only ``Transport``, so that another can replace
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol

import aiohttp
from multidict import CIMultiDict, MultiMapping
from yarl import URL

from modelyard.errors import (
    UpstreamBrokenError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from modelyard.registry.model import Timeouts

# Shorter than the 5 s after which uvicorn, and so vLLM, closes an idle connection: we let go first.
_KEEP_ALIVE_S = 4.0
_WHOLE_LIMIT = 64 * 2**20


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to one engine; ``deadline`` is a loop time or ``None``."""

    url: str
    headers: CIMultiDict[str]
    body: bytes
    timeouts: Timeouts
    deadline: float | None = None


class UpstreamResponse(Protocol):
    """An engine's answer whose head has arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> MultiMapping[str]:
        """The headers as the engine sent them."""

    async def chunk(self) -> bytes:
        """The next bytes as they came, ``b""`` at the end.

        Raises ``UpstreamTimeoutError`` when they do not come in time, ``UpstreamBrokenError`` when the
        answer is cut.
        """


class Transport(Protocol):
    """A way to reach engines."""

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send a POST. Entering raises ``UpstreamError``; leaving early closes the connection, so that the
        engine stops.
        """

    async def status_of(self, url: str, timeout_s: float) -> int:
        """The status of a GET, for probes. Raises ``UpstreamError`` when there is no answer in time."""


async def whole(response: UpstreamResponse) -> bytes:
    """The rest of an answer, at most 64 MiB of it (``UpstreamBrokenError`` beyond)."""
    parts: list[bytes] = []
    size = 0
    while part := await response.chunk():
        parts.append(part)
        size += len(part)
        if size > _WHOLE_LIMIT:
            raise UpstreamBrokenError(f"the answer is larger than {_WHOLE_LIMIT} bytes")
    return b"".join(parts)


class AiohttpTransport:
    """``Transport`` over one aiohttp session. Use as an async context manager."""

    def __init__(self) -> None:
        self._open_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AiohttpTransport:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._open_session = aiohttp.ClientSession(
            # admission is decided above, a limit here would be a queue that nobody sees
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[trace],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open_session is not None:
            session, self._open_session = self._open_session, None
            await session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:
            raise RuntimeError("the transport is used outside its `async with`")
        return self._open_session

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """See ``Transport.open``."""
        limits = request.timeouts
        loop = asyncio.get_running_loop()
        first_by = _earlier(loop.time() + limits.connect_s + limits.first_byte_s, request.deadline)
        response = await self._send(request, first_by)
        try:
            yield _AiohttpResponse(response, limits.idle_s, first_by, request.deadline)
        finally:
            # an answer read to its end has given its connection back already; any other connection must close
            response.close()

    async def _send(self, request: UpstreamRequest, first_by: float) -> aiohttp.ClientResponse:
        context = SimpleNamespace(reused=False)
        try:
            return await self._send_once(request, first_by, context)
        except UpstreamBrokenError:
            if not context.reused:
                raise
            # The engine closed an idle connection just as we took it: that says nothing about the engine.
            return await self._send_once(request, first_by, SimpleNamespace(reused=False))

    async def _send_once(
        self, request: UpstreamRequest, first_by: float, context: SimpleNamespace
    ) -> aiohttp.ClientResponse:
        limits = request.timeouts
        try:
            async with asyncio.timeout_at(first_by):
                return await self._session.post(
                    URL(request.url, encoded=True),
                    data=request.body,
                    headers=request.headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s),
                    trace_request_ctx=context,
                )
        except (TimeoutError, OSError, aiohttp.ClientError) as exc:
            raise _translated(exc, limits) from exc

    async def status_of(self, url: str, timeout_s: float) -> int:
        """See ``Transport.status_of``."""
        limits = Timeouts(connect_s=timeout_s, first_byte_s=timeout_s)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(URL(url, encoded=True), allow_redirects=False) as response,
            ):
                return response.status
        except (TimeoutError, OSError, aiohttp.ClientError) as exc:
            raise _translated(exc, limits) from exc


class _AiohttpResponse:
    """``UpstreamResponse`` over aiohttp's."""

    def __init__(
        self, response: aiohttp.ClientResponse, idle_s: float, first_by: float, deadline: float | None
    ) -> None:
        self._response = response
        self._idle_s = idle_s
        self._first_by: float | None = first_by
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> MultiMapping[str]:
        return self._response.headers

    async def chunk(self) -> bytes:
        due = self._first_by
        if due is None:
            due = _earlier(self._loop.time() + self._idle_s, self._deadline)
        try:
            async with asyncio.timeout_at(due):
                data = await self._response.content.readany()
        except TimeoutError as exc:
            raise self._late() from exc
        except (OSError, aiohttp.ClientError) as exc:
            raise UpstreamBrokenError("it closed the connection before its answer was whole") from exc
        self._first_by = None
        return data

    def _late(self) -> UpstreamError:
        if self._deadline is not None and self._loop.time() >= self._deadline:
            return UpstreamTimeoutError("the whole answer took longer than total_s", code="deadline_exceeded")
        if self._first_by is not None:
            return UpstreamTimeoutError("it did not begin to answer within first_byte_s")
        return UpstreamTimeoutError(f"it was silent for {self._idle_s:g} s in the middle of its answer")


def _translated(error: BaseException, limits: Timeouts) -> UpstreamError:
    """The error of ours for what aiohttp raised before the head of an answer arrived."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UpstreamConnectError(f"no connection within {limits.connect_s:g} s", status=504)
    if isinstance(error, TimeoutError):
        return UpstreamTimeoutError(f"no answer within {limits.first_byte_s:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        said = error.os_error.strerror or str(error.os_error)
        return UpstreamConnectError(said.lower().partition(" [")[0] or "no connection")
    if isinstance(error, aiohttp.InvalidURL):
        return UpstreamConnectError("its URL cannot be used")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamBrokenError("it answered with something that is not HTTP")
    return UpstreamBrokenError("it closed the connection without an answer")


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    request_context: SimpleNamespace | Mapping[str, object] | None = context.trace_request_ctx
    if isinstance(request_context, SimpleNamespace):
        request_context.reused = True


def _earlier(moment: float, other: float | None) -> float:
    return moment if other is None else min(moment, other)
