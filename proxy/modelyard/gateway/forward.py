"""Carrying out a pursuit with coroutines: open one replica after the other until one answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDict, MultiMapping

from modelyard.errors import UpstreamError, UpstreamLostError
from modelyard.registry.model import Model

from .in_band import in_band_error, may_become_error
from .outcomes import FAILED, refused_head
from .pursuit import Pursuit
from .pursuits import Pursuits
from .replicas import Lease, Replica
from .upstream import Transport, UpstreamRequest, UpstreamResponse, whole
from .usage import AnswerMeter
from .visit import Visit


@dataclass(frozen=True, slots=True)
class Call:
    """What to send to one replica. A body in pieces is sent once: see ``Wish.once``."""

    path: str
    body: bytes | AsyncIterable[bytes]
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a dialect wants done, independent of the replica that will do it.

    ``plan`` makes the call for a replica's engine and raises ``ModelyardError`` where that engine cannot do
    it. ``buffered`` reads the whole answer before anything is returned, so that a cut answer is still
    retried. ``visit`` is the client's request that it is for, ``document`` its body. ``only`` is the one
    replica that can do it. ``once`` says that the body cannot be sent again: it is called after a failure and
    tells whether any of it has been taken already.
    """

    model: Model
    plan: Callable[[Replica], Call]
    headers: CIMultiDict[str]
    request_id: str
    key: str | None = None
    buffered: bool = False
    visit: Visit | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    only: Replica | None = None
    once: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that has begun. ``first`` holds its first bytes, or all of them when the wish was
    buffered. Whoever reads on tells ``pursuit`` when the answer is cut.
    """

    pursuit: Pursuit
    replica: Replica
    response: UpstreamResponse
    first: bytes

    @property
    def attempts(self) -> int:
        """How many replicas were asked, this one included."""
        return self.pursuit.attempts


class Forwarder:
    """Turns wishes into open answers."""

    def __init__(self, pursuits: Pursuits, transport: Transport) -> None:
        self._pursuits = pursuits
        self._transport = transport
        self._copied: Callable[[Wish], None] | None = None

    def copy_to(self, taker: Callable[[Wish], None]) -> None:
        """Show ``taker`` every wish for a model that is mirrored."""
        self._copied = taker

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[Opened]:
        """An answer to ``wish`` from the first replica that gives one; see ``Pursuit.next`` for the order
        and the errors. Leaving the context ends the upstream request and gives the replica back, on every
        path.
        """
        pursuit = self._pursuits.begin(
            wish.model,
            request_id=wish.request_id,
            key=wish.key,
            origin=wish.visit,
            document=wish.document,
            only=wish.only,
        )
        if wish.visit is not None:
            wish.visit.pursuit = pursuit
        try:
            if wish.model.mirror is not None and self._copied is not None:
                self._copied(wish)
            async with AsyncExitStack() as stack:
                yield await self._first_answer(wish, pursuit, stack)
        finally:
            pursuit.finish()

    async def _first_answer(self, wish: Wish, pursuit: Pursuit, stack: AsyncExitStack) -> Opened:
        while True:
            lease = pursuit.next()
            if lease is None:
                await pursuit.wait()
                continue
            try:
                opened = await self._attempt(wish, pursuit, lease, stack)
            except UpstreamError as exc:
                pursuit.failed(exc)
                if wish.once is not None and wish.once():
                    raise pursuit.given_up() from exc
                continue
            pursuit.answered(opened.response.status)
            return opened

    async def _attempt(self, wish: Wish, pursuit: Pursuit, lease: Lease, stack: AsyncExitStack) -> Opened:
        replica, left_s = lease.replica, pursuit.time_left_s()
        async with AsyncExitStack() as attempt:
            call = wish.plan(replica)
            headers, trace = wish.headers, wish.visit.trace if wish.visit is not None else None
            if trace is not None:
                headers = trace.retold(headers, trace.attempt(replica.id, replica.model_id))
            response = await attempt.enter_async_context(
                self._transport.open(
                    UpstreamRequest(
                        url=replica.endpoint.url + call.path,
                        headers=headers,
                        body=call.body,
                        method=call.method,
                        timeouts=pursuit.serving.timeouts,
                        deadline=None if left_s is None else asyncio.get_running_loop().time() + left_s,
                    )
                )
            )
            refused = refused_head(
                response.status, response.headers.get("Retry-After", ""), pursuit.may_go_elsewhere
            )
            if refused is not None:
                raise refused
            metered = _Metered(response, replica)
            first = await (whole(metered) if wish.buffered else metered.chunk())
            if response.status == FAILED:
                # what it says is kept until it is known whether it lives
                first = first if wish.buffered else first + await whole(metered)
                if await pursuit.is_dying():
                    raise UpstreamLostError("it answered 500 and died")
            # an engine that has begun a stream before it saw that it cannot says so in the first event
            if metered.meter.streamed and not wish.buffered:
                while first and may_become_error(first) and (more := await metered.chunk()):
                    first += more
            reported = in_band_error(first) if metered.meter.streamed else None
            if reported is not None:
                raise reported
            # only now: a failed attempt's answer counts for nobody
            pursuit.meter = metered.meter
            stack.push_async_exit(attempt.pop_all())
            return Opened(pursuit, replica, metered, first)
        raise AssertionError("unreachable: the attempt's stack swallows nothing")


class _Metered:
    """An answer whose bytes pass a meter on their way, before any translation.

    Its pieces are counted on its replica too: who sends them is neither hung nor dead. Refusals do not count,
    for an engine's front end utters them while the engine itself is stuck.
    """

    __slots__ = ("_counts", "_replica", "_response", "meter")

    def __init__(self, response: UpstreamResponse, replica: Replica) -> None:
        streamed = response.headers.get("Content-Type", "").startswith("text/event-stream")
        self._response = response
        self._replica = replica
        self._counts = response.status < 300
        self.meter = AnswerMeter(streamed=streamed, headers=response.headers)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> MultiMapping[str]:
        return self._response.headers

    async def chunk(self) -> bytes:
        data = await self._response.chunk()
        self._replica.heard += self._counts
        self.meter.feed(data)
        return data
