"""One request and its answer on whatever connection carries them."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Protocol

from modelyard.errors import (
    BadRequestError,
    UpstreamBrokenError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamLostError,
    UpstreamTimeoutError,
)
from modelyard.registry.model import Timeouts

from .connection import Connection
from .deadlines import Sweeper
from .framing import Head, Listener
from .target import Target


class Receiver(Listener, Protocol):
    """Who gets an answer. After ``on_end`` or ``on_failed`` nothing more comes; after ``Exchange.abort``
    nothing at all.
    """

    def on_end(self) -> None:
        """The answer is whole."""

    def on_failed(self, error: UpstreamError) -> None:
        """It will not become whole."""


class Home(Protocol):
    """Where exchanges get connections from, and leave them."""

    sweeper: Sweeper

    def connect(self, exchange: Exchange) -> asyncio.Task[None]:
        """Open a connection and ``carry`` the exchange on it, or ``unconnected``."""

    def give_back(self, connection: Connection, idle_s: float | None) -> None:
        """Keep a connection whose answer has ended; ``idle_s`` is how long the engine keeps it."""


class Stage(enum.Enum):
    """How far an exchange has come, and so which deadline is the next."""

    CONNECTING = "connecting"
    FIRST = "waiting for the first byte of the answer's body"
    BODY = "in the body"
    DONE = "done"


_CONNECTING, _FIRST, _BODY, _DONE = Stage.CONNECTING, Stage.FIRST, Stage.BODY, Stage.DONE


@dataclass(frozen=True, slots=True)
class Upload:
    """A request body that comes in pieces; ``length`` in bytes, ``None`` sends it chunked."""

    pieces: AsyncIterable[bytes]
    length: int | None


class Exchange:
    """Sends ``request`` (head and body) and tells the receiver of the answer.

    Deadlines: ``connect_s`` for the connection, ``first_byte_s`` from the sending of the head to the first
    byte of the answer's body, ``idle_s`` between bytes (not while reading is paused), ``deadline`` (a loop
    time) for everything. A connection from the pool that turns out to be closed is replaced once by a fresh
    one, silently: that says nothing about the engine.
    """

    __slots__ = (
        "_bodiless",
        "_connection",
        "_deadline",
        "_due",
        "_home",
        "_limits",
        "_loop",
        "_paused",
        "_receiver",
        "_request",
        "_stage",
        "_task",
        "_upload",
        "fresh",
        "resent",
        "target",
        "upload_error",
    )

    def __init__(
        self,
        home: Home,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        request: bytes,
        receiver: Receiver,
        limits: Timeouts,
        deadline: float | None,
        bodiless: bool,
        upload: Upload | None,
    ) -> None:
        self._home = home
        self._loop = loop
        self._request = request
        self._receiver = receiver
        self._limits = limits
        self._deadline = deadline
        self._bodiless = bodiless
        self._upload = upload
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._stage = _CONNECTING
        self._due = 0.0
        self._paused = False
        self.target = target
        self.fresh = False
        self.resent = False
        self.upload_error: Exception | None = None

    # --- for the receiver

    def pause(self) -> None:
        """Read no more for now: whoever reads the answer is slower than the engine."""
        self._paused = True
        if self._connection is not None and not self._connection.closed:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self.fresh = True
            if self._connection is not None and not self._connection.closed:
                self._connection.transport.resume_reading()

    def abort(self) -> None:
        """Give the request up: the connection closes, so that the engine stops. Harmless after the end."""
        if self._stage is not _DONE:
            connection = self._leave()
            if connection is not None:
                connection.abort()

    # --- for whoever makes connections

    @property
    def done(self) -> bool:
        """Whether it is over, in whatever way."""
        return self._stage is _DONE

    def connect(self) -> None:
        """Send the request on a new connection."""
        self._stage = _CONNECTING
        self._due = self._loop.time() + self._limits.connect_s
        self._task = self._home.connect(self)

    def carry(self, connection: Connection) -> None:
        """Send the request on ``connection``."""
        self._stage = _FIRST
        self._due = self._loop.time() + self._limits.first_byte_s
        self._connection = connection
        self._task = None
        connection.exchange = self
        connection.heard = False
        connection.uses += 1
        connection.parser.start(self._receiver, self._bodiless)
        connection.transport.write(self._request)
        if self._upload is not None:
            self._task = self._loop.create_task(self._send(connection, self._upload))

    def unconnected(self, error: UpstreamError) -> None:
        """There is no connection to be had."""
        self._fail(self._after_all(error))

    # --- for the connection

    def ended(self, clean: bool) -> None:
        """The answer is whole; ``clean``: and nothing followed it."""
        head = self._head
        # an engine that answers before it has the whole body may read the rest as the next request
        whole = self._task is None or self._task.done()
        connection = self._leave()
        if connection is not None:
            if clean and whole and head is not None and head.keep_alive and not connection.closed:
                self._home.give_back(connection, head.idle_s)
            else:
                connection.abort()
        self._receiver.on_end()

    def malformed(self) -> None:
        """The engine sent what is no HTTP."""
        where = "answered" if self._head is None else "went on"
        self._fail(UpstreamBrokenError(f"it {where} with something that is not HTTP"))

    def lost(self, whole: bool) -> None:
        """The connection is closed; ``whole``: which ended the answer as announced."""
        connection = self._connection
        if whole:
            self.ended(False)
        elif connection is not None and self._is_stale(connection):
            self.resent = True
            connection.exchange = None
            self._connection = None
            self.connect()
        elif self._head is None:
            self._fail(UpstreamLostError("it closed the connection without an answer"))
        else:
            self._fail(UpstreamLostError("it closed the connection before its answer was whole"))

    def _is_stale(self, connection: Connection) -> bool:
        """Whether the engine closed an idle connection just as we took it."""
        return not connection.heard and connection.uses > 1 and not self.resent and self._upload is None

    # --- for the sweeper

    def check(self, now: float) -> None:
        """See ``Watched``."""
        if self._deadline is not None and now >= self._deadline:
            self._fail(
                UpstreamTimeoutError("the whole answer took longer than total_s", code="deadline_exceeded")
            )
            return
        if self.fresh and self._stage is _FIRST:
            self._look()
        if self._stage is _BODY and (self.fresh or self._paused):
            self.fresh = False
            self._due = now + self._limits.idle_s
        elif now >= self._due:
            self._fail(self._late())

    def _look(self) -> None:
        """See how far the answer has come since the last look."""
        connection = self._connection
        if connection is not None and connection.parser.head is not None:
            # it will not be sent again
            self._request = b""
            if connection.parser.began:
                self._stage = _BODY

    @property
    def _head(self) -> Head | None:
        return None if self._connection is None else self._connection.parser.head

    def _late(self) -> UpstreamError:
        limits = self._limits
        if self._stage is _CONNECTING:
            late = UpstreamConnectError(f"no connection within {limits.connect_s:g} s", status=504)
            return self._after_all(late)
        if self._stage is _BODY:
            return UpstreamTimeoutError(f"it was silent for {limits.idle_s:g} s in the middle of its answer")
        if self._head is None:
            return UpstreamTimeoutError(f"no answer within {limits.first_byte_s:g} s")
        return UpstreamTimeoutError("it did not begin to answer within first_byte_s")

    def _after_all(self, error: UpstreamError) -> UpstreamError:
        """What no connection means: one that had the request before was closed under it, and the engine may
        have ended with it.
        """
        if self.resent:
            return UpstreamLostError(f"it closed the connection without an answer, and then: {error.message}")
        return error

    def _fail(self, error: UpstreamError) -> None:
        connection = self._leave()
        if connection is not None:
            connection.abort()
        self._receiver.on_failed(error)

    def _leave(self) -> Connection | None:
        """Let go of everything; returns the connection."""
        self._stage = _DONE
        self._home.sweeper.discard(self)
        self._request = b""
        connection, self._connection = self._connection, None
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()
        if connection is not None:
            connection.exchange = None
            if self._paused and not connection.closed:
                connection.transport.resume_reading()
        return connection

    async def _send(self, connection: Connection, upload: Upload) -> None:
        """Send a body in pieces, no faster than the engine takes them."""
        sent = 0
        loop, patience = self._loop, self._limits.first_byte_s
        try:
            # the engine's time stands still while the body's sender is waited for
            self._due = math.inf
            async for piece in upload.pieces:
                sent += len(piece)
                if upload.length is not None and sent > upload.length:
                    break
                if piece:
                    framed = piece if upload.length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
                    connection.transport.write(framed)
                    self._due = loop.time() + patience
                    await connection.drained()
                    self._due = math.inf
            if upload.length is not None and sent != upload.length:
                raise BadRequestError(f"the body is not as long as its announced {upload.length} bytes")
        except Exception as exc:
            # not the engine's fault: whoever waits for the answer gets it in its own words
            self.upload_error = exc
            if self._stage is not _DONE:
                self._fail(UpstreamBrokenError("the request's body did not come"))
            return
        if upload.length is None:
            connection.transport.write(b"0\r\n\r\n")
        self._due = loop.time() + patience
