"""One client's connection: whole plain requests are served here, anything else goes on with aiohttp."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import TYPE_CHECKING, cast

import orjson

from modelyard.errors import BodyTimeoutError, ClientGoneError, ModelyardError

from ..answers import Shape
from ..dialects.bodies import late
from ..visit import Visit
from .answers import refusal
from .heads import LARGEST_HEAD, Template, may_become
from .run import Run

if TYPE_CHECKING:
    from .lane import Lane

# what a client may send ahead while it is answered, before it is made to wait
_MOST_AHEAD = 64 * 1024
# as aiohttp: longer than any load balancer keeps a connection
_KEEP_ALIVE_S = 3630.0
# turns of the loop after which aiohttp has begun a request that was handed to it
_TURNS = 4


class LaneProtocol:
    """Reads requests one after the other. ``transport`` exists once the connection is made; ``writable`` says
    whether the client takes bytes as fast as they come.

    An ``asyncio.Protocol`` by its methods, not by its bases: with an interpreted base it would not be a native class
    where it is compiled.
    """

    __slots__ = (
        "_ahead",
        "_begun",
        "_closing",
        "_due",
        "_entered",
        "_lane",
        "_paused",
        "_run",
        "_size",
        "_template",
        "_unread",
        "_wanted",
        "peer",
        "transport",
        "writable",
    )

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._run: Run | None = None
        self._template: Template | None = None
        # what has come of a request that is not whole: its pieces, their size, and the size it will have
        self._unread: list[bytes] = []
        self._size = 0
        self._wanted = 0
        self._ahead = b""
        self._paused = False
        self.writable = True
        self._closing = False
        self._entered = False
        self._due = 0.0
        # when the head of a request whose body is not whole was there, as ``perf_counter`` tells
        self._begun = 0.0
        self.peer: str | None = None
        self.transport: asyncio.Transport

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self.transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else None
        lane = self._lane
        lane.connections.add(self)
        lane.sweeper.watch(self)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._run is not None:
            self._ahead += data
            if len(self._ahead) > _MOST_AHEAD and not self._paused:
                self._paused = True
                self.transport.pause_reading()
        elif self._closing:
            # the answer said that it was the last
            return
        elif self._unread:
            self._unread.append(data)
            self._size += len(data)
            if self._size >= self._wanted:
                whole = b"".join(self._unread)
                self._unread.clear()
                self._read(whole)
        else:
            self._read(data)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self.writable = False
        if self._run is not None:
            self._run.pause()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self.writable = True
        if self._run is not None:
            self._run.resume()

    def eof_received(self) -> None:
        """See ``asyncio.Protocol``. A client that closes its sending side only counts as gone: nothing tells
        it from one that has left.
        """
        if self._run is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._forget()
        run, self._run = self._run, None
        if run is not None:
            run.client_gone()
        else:
            self._end(ClientGoneError.status, ClientGoneError.code, self._lane.new_id())
        self._leave()

    # --- for the run

    def close_after(self) -> None:
        """The present answer is the last of this connection."""
        self._closing = True

    def done(self) -> None:
        """The present request is answered."""
        self._run = None
        if self._closing:
            self.transport.close()
            return
        self._due = 0.0
        if self._ahead:
            data, self._ahead = self._ahead, b""
            self._read(data)
        if self._paused and len(self._ahead) <= _MOST_AHEAD // 2:
            self._resume_reading()

    # --- for the lane

    def check(self, now: float) -> None:
        """See ``Watched``: a client may take its time, but not for ever."""
        if self._run is not None or now < self._due:
            return
        if not self._due:
            # this look is the first since its last answer
            self._due = now + _KEEP_ALIVE_S
            return
        if not self._unread:
            self.transport.close()
        elif self._entered:
            self._refuse(late(self._lane.body_timeout_s))
        else:
            self._refuse(
                BodyTimeoutError(
                    f"the request was not whole within {self._lane.body_timeout_s:g} s; send it faster"
                )
            )

    def cut(self) -> None:
        """Close the connection, whatever it does."""
        if self._run is None:
            self.transport.close()
        else:
            self.transport.abort()

    # --- inside

    def _read(self, data: bytes) -> None:
        """Serve the request that ``data`` begins with, wait for the rest of it, or hand it over."""
        lane, template = self._lane, self._template
        found = template.match(data) if template is not None else None
        if found is None:
            end = data.find(b"\r\n\r\n", 0, LARGEST_HEAD)
            if end < 0:
                if may_become(data) and len(data) < LARGEST_HEAD:
                    self._await(data, len(data) + 1)
                else:
                    self._hand_over(data)
                return
            template = lane.template(data[: end + 4], self.peer) if may_become(data) else None
            found = template.match(data) if template is not None else None
            if found is None:
                self._hand_over(data)
                return
            self._template = template
        begin, length = found
        whole = begin + length
        if length > lane.largest_body or lane.gateway.lifecycle.draining:
            self._hand_over(data)
        elif len(data) < whole:
            if not self._entered:
                self._entered = True
                self._begun = time.perf_counter()
                lane.gateway.lifecycle.enter()
            self._await(data, whole)
        else:
            self._serve(data, begin, whole)

    def _serve(self, data: bytes, begin: int, whole: int) -> None:
        lane, template = self._lane, self._template
        body = data[begin:whole]
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            self._hand_over(data)
            return
        name = document.get("model") if type(document) is dict else None
        if type(name) is not str or template is None:
            self._hand_over(data)
            return
        model = lane.model_of(name)
        if model is None:
            self._hand_over(data)
            return
        run = Run(lane, self, template, body, document, self._begun)
        if not run.begin(model, name):
            self._hand_over(data)
            return
        if not self._entered:
            lane.gateway.lifecycle.enter()
        # from here on the run leaves
        self._entered = False
        self._begun = 0.0
        self._run = run
        self._size = 0
        self._ahead = data[whole:]

    def _await(self, data: bytes, whole: int) -> None:
        """Wait until a request has ``whole`` bytes."""
        if not self._size:
            self._due = self._lane.loop.time() + self._lane.body_timeout_s
        self._unread.append(data)
        self._size, self._wanted = len(data), whole

    def _hand_over(self, data: bytes) -> None:
        """Let aiohttp go on with this connection, from ``data`` on."""
        transport, lane = self.transport, self._lane
        self._forget()
        handler = lane.fallback()
        transport.set_protocol(handler)
        if self._paused:
            self._resume_reading()
        handler.connection_made(transport)
        if not self.writable:
            handler.pause_writing()
        handler.data_received(data)
        if self._entered:
            # aiohttp counts the request from its first turn on: until then it must not seem to be over
            self._after(_TURNS)

    def _after(self, turns: int) -> None:
        if turns:
            self._lane.loop.call_soon(self._after, turns - 1)
        else:
            self._leave()

    def _refuse(self, error: ModelyardError) -> None:
        lane = self._lane
        self._closing = True
        self._due = math.inf
        self._unread.clear()
        template = self._template
        identity = (template.request_id if template is not None else None) or lane.new_id()
        told = template.told if template is not None else b""
        self._end(error.status, error.code, identity)
        self.transport.write(refusal(error, Shape.OPENAI, identity, lane.stamp.lines(), told, close=True))
        self.transport.close()

    def _end(self, status: int, code: str, identity: str) -> None:
        """A request whose body did not become whole ends here, once, and is counted like any other."""
        begun, self._begun = self._begun, 0.0
        if begun and self._template is not None:
            route = self._template.route
            client = self._lane.client_of(self._template, self.peer)
            visit = Visit(identity, route.method, route.path, client, begun)
            visit.error = code
            self._lane.gateway.ended(visit, status)

    def _resume_reading(self) -> None:
        self._paused = False
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _forget(self) -> None:
        self._lane.connections.discard(self)
        self._lane.sweeper.discard(self)

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._lane.gateway.lifecycle.leave()
