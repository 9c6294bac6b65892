"""Moving bytes to and from an engine. Everything above sees only ``Transport``, so that another can replace
it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
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
        trace.on_request_headers_sent.append(_note_sent)
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
        sending = _Sending(request)
        try:
            response = await self._send(sending)
        except UpstreamBrokenError:
            if not sending.reused:
                raise
            # The engine closed an idle connection just as we took it: that says nothing about the engine.
            sending = _Sending(request)
            response = await self._send(sending)
        try:
            yield _AiohttpResponse(response, sending)
        finally:
            # an answer read to its end has given its connection back already; any other connection must close
            response.close()

    async def _send(self, sending: _Sending) -> aiohttp.ClientResponse:
        request = sending.request
        try:
            async with asyncio.timeout_at(sending.first_by) as sending.timer:
                return await self._session.post(
                    URL(request.url, encoded=True),
                    data=request.body,
                    headers=request.headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=request.timeouts.connect_s),
                    trace_request_ctx=sending,
                )
        except (TimeoutError, OSError, aiohttp.ClientError) as exc:
            if request.deadline is not None and asyncio.get_running_loop().time() >= request.deadline:
                raise _too_long() from exc
            raise _translated(exc, request.timeouts) from exc

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


class _Sending:
    """One request on its way, as the session's trace tells it. ``first_by`` is a loop time."""

    __slots__ = ("first_by", "request", "reused", "timer")

    def __init__(self, request: UpstreamRequest) -> None:
        limits = request.timeouts
        self.request = request
        self.reused = False
        self.timer: asyncio.Timeout | None = None
        # a bound for everything; made exact when the request has gone out
        self.first_by = _in(limits.connect_s + limits.first_byte_s, request.deadline)

    def sent(self) -> None:
        """The head has gone out: from here on the engine has ``first_byte_s`` to begin its answer."""
        self.first_by = _in(self.request.timeouts.first_byte_s, self.request.deadline)
        if self.timer is not None:
            self.timer.reschedule(self.first_by)


class _AiohttpResponse:
    """``UpstreamResponse`` over aiohttp's."""

    def __init__(self, response: aiohttp.ClientResponse, sending: _Sending) -> None:
        self._response = response
        self._idle_s = sending.request.timeouts.idle_s
        self._first_by: float | None = sending.first_by
        self._deadline = sending.request.deadline
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
            due = _in(self._idle_s, self._deadline)
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
            return _too_long()
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
        # the system's words alone: the library's hold the address, which is not the client's business
        number = error.os_error.errno
        return UpstreamConnectError(os.strerror(number).lower() if number and number > 0 else "no connection")
    if isinstance(error, aiohttp.InvalidURL):
        return UpstreamConnectError("its URL cannot be used")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamBrokenError("it answered with something that is not HTTP")
    return UpstreamBrokenError("it closed the connection without an answer")


def _too_long() -> UpstreamError:
    return UpstreamTimeoutError("the whole answer took longer than total_s", code="deadline_exceeded")


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    if isinstance(context.trace_request_ctx, _Sending):
        context.trace_request_ctx.reused = True


async def _note_sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    if isinstance(context.trace_request_ctx, _Sending):
        context.trace_request_ctx.sent()


def _in(seconds: float, deadline: float | None) -> float:
    """The loop time ``seconds`` from now, or ``deadline`` where that is earlier."""
    moment = asyncio.get_running_loop().time() + seconds
    return moment if deadline is None else min(moment, deadline)
