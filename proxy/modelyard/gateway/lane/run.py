"""One request in the lane: the same pursuit as everywhere, driven by callbacks."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from modelyard.errors import (
    ClientGoneError,
    ModelyardError,
    UpstreamError,
    UpstreamLostError,
)

from ..affinity import affinity_key
from ..answers import Shape, error_event
from ..in_band import in_band_error, may_become_error
from ..outcomes import FAILED, refused_head
from ..pursuit import Pursuit
from ..usage import AnswerMeter
from ..visit import Visit
from ..wire.exchange import Exchange
from ..wire.framing import Head
from .answers import answer_head, is_chunked, refusal
from .bodies import renamed
from .heads import Template

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from modelyard.registry.model import Model

    from ..replicas import Replica
    from .lane import Lane
    from .protocol import LaneProtocol

_log = logging.getLogger(__name__)

# an answer of 500 is held back until its replica was looked at; more of it than this is not read meanwhile
_MOST_HELD = 256 * 1024


class Run:
    """Carries out one request, and is the ``Receiver`` of its exchanges.

    Until a byte has gone to the client a failed attempt is followed by the next; then the bytes pass from
    one transport to the other, and each side waits while the other is slow.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_counts",
        "_document",
        "_exchange",
        "_head",
        "_held",
        "_meter",
        "_name",
        "_opening",
        "_protocol",
        "_pursuit",
        "_replica",
        "_started",
        "_task",
        "_template",
        "_transport",
        "_visit",
        "_whole",
        "lane",
        "request_id",
    )

    def __init__(
        self,
        lane: Lane,
        protocol: LaneProtocol,
        template: Template,
        body: bytes,
        document: dict[str, Any],
        started: float,
    ) -> None:
        self.lane = lane
        self._protocol = protocol
        self._transport: asyncio.Transport = protocol.transport
        self._template = template
        self._body = body
        self._document = document
        self._name = ""
        self._exchange: Exchange | None = None
        self._head: Head | None = None
        self._held: list[tuple[bytes, bytes | None]] | None = None
        self._opening = b""
        self._whole = False
        self._task: asyncio.Task[None] | None = None
        self._meter: AnswerMeter
        self._chunked = False
        self._replica: Replica
        self._counts = 0
        self._started = False
        self._pursuit: Pursuit
        self.request_id = template.request_id or lane.new_id()
        now = time.perf_counter()
        route = template.route
        client = lane.client_of(template, protocol.peer)
        self._visit = Visit(self.request_id, route.method, route.path, client, started or now)
        self._visit.arrived = now
        tracing = lane.gateway.tracing
        if tracing is not None:
            self._visit.trace = tracing.begin(template.parent)

    def begin(self, model: Model, name: str) -> bool:
        """Send the request to a first replica. False: the lane cannot serve it, and nothing has happened.

        ``name`` is what the client called the model.
        """
        lane, template = self.lane, self._template
        key = None
        if model.policy in ("session_hash", "prefix_hash"):
            key = affinity_key(model.policy, template.session, self._document)
        self._name = name
        visit = self._visit
        visit.model = model.id
        try:
            pursuit = self._pursuit = lane.gateway.pursuits.begin(
                model, request_id=self.request_id, key=key, origin=visit, document=self._document
            )
        except ModelyardError:
            return False
        visit.pursuit = pursuit
        try:
            sent = self._next()
        except ModelyardError:
            sent = False
        if not sent:
            # aiohttp says why, or waits; nothing has been sent
            pursuit.finish()
        return sent

    # --- for the protocol

    def pause(self) -> None:
        """The client is slower than the engine."""
        # before the first byte there is nothing to hold back, and the engine's time runs
        if self._started and self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._exchange is not None:
            self._exchange.resume()

    def client_gone(self) -> None:
        """Nobody reads the answer: the engine stops at once."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort()
        if self._task is not None:
            self._task.cancel()
        self._visit.error = ClientGoneError.code
        self._close(ClientGoneError.status, None)

    # --- for the exchange

    def on_head(self, head: Head) -> None:
        """See ``Receiver``. The head waits for the first byte: until then another replica may answer."""
        status = head.status
        if not 200 <= status < 300:
            refused = refused_head(status, head.noted.get(b"retry-after", ""), self._pursuit.may_go_elsewhere)
            if refused is not None:
                if self._exchange is not None:
                    self._exchange.abort()
                self.on_failed(refused)
                return
        self._head = head
        if status == FAILED:
            self._held = []
            self._task = self.lane.loop.create_task(self._judge())

    def on_data(self, data: bytes, framed: bytes | None) -> None:
        """See ``Receiver``."""
        if not self._started:
            if self._held is not None:
                self._hold(data, framed)
            elif self._head is not None and self._head.streams:
                self._on_first(data, framed)
            else:
                self._answer(data, framed)
            return
        self._meter.feed(data)
        self._replica.heard += self._counts
        if framed is not None:
            self._transport.write(framed)
        elif self._chunked:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._transport.write(data)

    def on_end(self) -> None:
        """See ``Receiver``."""
        self._exchange = None
        if self._held is not None:
            self._whole = True
            return
        if self._opening:
            # what there is of an event is all that comes
            self._answer(self._opening, None)
            self._opening = b""
        if not self._started:
            begun = self._begin_answer()
            self._transport.write(begun + b"0\r\n\r\n" if self._chunked else begun)
        elif self._chunked:
            self._transport.write(b"0\r\n\r\n")
        self._finish(None)

    def on_failed(self, error: UpstreamError) -> None:
        """See ``Receiver``: the next replica, or an honest end."""
        self._exchange = None
        if self._started:
            self._broken(error)
            return
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._held = None
        self._opening = b""
        self._whole = False
        self._pursuit.failed(error)
        self._head = None
        self._go_on()

    # --- inside

    def _go_on(self) -> None:
        """The next attempt, or waiting for one, or the end."""
        try:
            sent = self._next()
        except ModelyardError as exc:
            self._refuse(exc)
            return
        if not sent:
            self._task = self.lane.loop.create_task(self._wait())

    async def _wait(self) -> None:
        try:
            await self._pursuit.wait()
        except ModelyardError as exc:
            self._task = None
            self._refuse(exc)
            return
        self._task = None
        self._go_on()

    def _next(self) -> bool:
        """Send the request to the next replica; False: it has to wait for one. Raises ``ModelyardError`` when
        there is none.
        """
        pursuit = self._pursuit
        while pursuit.next() is not None:
            try:
                self._attempt()
            except UpstreamError as exc:
                pursuit.failed(exc)
            else:
                return True
        return False

    def _hold(self, data: bytes, framed: bytes | None) -> None:
        """Keep a piece of an answer of which nobody knows yet whether it is one."""
        if self._held is not None:
            self._held.append((data, framed))
            if sum(len(piece) for piece, _ in self._held) > _MOST_HELD and self._exchange is not None:
                self._exchange.pause()

    async def _judge(self) -> None:
        """The replica answered 500: what it says counts only if it lives."""
        dying = await self._pursuit.is_dying()
        self._task = None
        if dying:
            if self._exchange is not None:
                self._exchange.abort()
            self.on_failed(UpstreamLostError("it answered 500 and died"))
            return
        held, self._held = self._held or [], None
        exchange, head, whole = self._exchange, self._head, self._whole
        for data, framed in held:
            self.on_data(data, framed)
            if self._head is not head:
                # its first event was an error: another replica is asked
                return
        if exchange is not None and self._protocol.writable:
            exchange.resume()
        if whole:
            self.on_end()

    def _attempt(self) -> None:
        """Send the request to the replica that the pursuit holds. Raises ``ModelyardError``."""
        lane, template, pursuit = self.lane, self._template, self._pursuit
        lease = pursuit.lease
        if lease is None:
            raise RuntimeError("the pursuit holds no replica")
        replica = lease.replica
        served = replica.endpoint.served_name
        body = self._body if served == self._name else renamed(self._body, self._document, served)
        target, begun = template.begun_for(replica.endpoint.url)
        left_s = pursuit.time_left_s()
        trace = self._visit.trace
        if trace is not None:
            begun += b"traceparent: %b\r\n" % trace.attempt(replica.id, replica.model_id).encode()
        request = b"%bX-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            begun,
            self.request_id.encode(),
            len(body),
            body,
        )
        self._exchange = lane.pool.start(
            target,
            request,
            self,
            pursuit.serving.timeouts,
            None if left_s is None else lane.loop.time() + left_s,
        )

    def _on_first(self, data: bytes, framed: bytes | None) -> None:
        """The first bytes of a stream: they decide whether this is the answer."""
        if self._opening:
            data, framed, self._opening = self._opening + data, None, b""
        if may_become_error(data):
            self._opening = data
            return
        reported = in_band_error(data)
        if reported is not None:
            if self._exchange is not None:
                self._exchange.abort()
            self.on_failed(reported)
            return
        self._answer(data, framed)

    def _answer(self, data: bytes, framed: bytes | None) -> None:
        """Begin the answer to the client with ``data``, the first of its body."""
        begun = self._begin_answer()
        self._meter.feed(data)
        self._replica.heard += self._counts
        if framed is not None:
            data = framed
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._transport.write(begun + data)

    def _begin_answer(self) -> bytes:
        """The head for the client."""
        pursuit, head, lane = self._pursuit, self._head, self.lane
        lease = pursuit.lease
        if head is None or lease is None:
            raise RuntimeError("an answer without a head, or without a replica")
        self._meter = pursuit.meter = AnswerMeter(
            streamed=head.streams,
            # besides the type of the answer, as TGI's say what a body does not
            headers=head.multidict() if len(head.noted) > 1 else None,
        )
        pursuit.answered(head.status)
        self._started = True
        if not self._protocol.writable:
            self.pause()
        self._body, self._document = b"", {}
        self._chunked = is_chunked(head)
        self._replica = lease.replica
        # what a front end says while its engine is stuck does not show that anything moves
        self._counts = int(head.status < 300)
        close = lane.gateway.lifecycle.draining
        if close:
            self._protocol.close_after()
        return answer_head(
            head,
            lane.stamp.lines(),
            self._template.told,
            self.request_id,
            lease.replica.id,
            pursuit.attempts,
            close,
        )

    def _broken(self, error: UpstreamError) -> None:
        """An answer cut in the middle is never ended politely."""
        lease = self._pursuit.lease
        if lease is not None:
            _log.warning("request %s: replica %s: %s", self.request_id, lease.replica.id, error.message)
        if self._meter.streamed and self._chunked and self._meter.between_events:
            event = error_event(error, Shape.OPENAI, self.request_id)
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._protocol.close_after()
        self._visit.error = error.code
        self._finish(error)

    def _refuse(self, error: ModelyardError) -> None:
        """Every replica that could be tried has failed."""
        lane = self.lane
        close = lane.gateway.lifecycle.draining
        self._visit.error = error.code
        if close:
            self._protocol.close_after()
        self._transport.write(
            refusal(
                error,
                self._template.route.shape,
                self.request_id,
                lane.stamp.lines(),
                self._template.told,
                close=close,
            )
        )
        self._close(error.status, None)
        self._protocol.done()

    def _finish(self, error: UpstreamError | None) -> None:
        """The answer has ended, or was cut by ``error``."""
        head = self._head
        self._close(500 if head is None else head.status, error)
        self._protocol.done()

    def _close(self, status: int, error: UpstreamError | None) -> None:
        """Give everything back and count the request."""
        self._pursuit.finish(error)
        gateway = self.lane.gateway
        gateway.lifecycle.leave()
        gateway.ended(self._visit, status)
