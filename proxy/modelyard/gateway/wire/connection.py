"""One connection to an engine, used by one exchange after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from .framing import Fed, MalformedError, ResponseParser
from .target import Target

if TYPE_CHECKING:
    from .exchange import Exchange

_MORE = Fed.MORE


class Connection:
    """Bytes between the loop's transport and the exchange that has the connection now, if any.

    An ``asyncio.Protocol`` by its methods, not by its bases: with an interpreted base it would not be a native class
    where it is compiled.

    ``idle_until`` is the loop time after which an unused connection is not used again; ``heard`` says
    whether a byte of the present answer has come; ``uses`` counts exchanges.
    """

    __slots__ = (
        "_drained",
        "_forget",
        "_writable",
        "closed",
        "exchange",
        "heard",
        "idle_until",
        "parser",
        "target",
        "transport",
        "uses",
    )

    def __init__(self, target: Target, forget: Callable[[Connection], None]) -> None:
        self.target = target
        self.parser = ResponseParser()
        self.exchange: Exchange | None = None
        self.transport: asyncio.Transport
        self.closed = False
        self.heard = False
        self.uses = 0
        self.idle_until = 0.0
        self._forget = forget
        self._writable = True
        self._drained: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        exchange = self.exchange
        if exchange is None:
            # a response that nobody asked for must never be taken for the next answer
            self.abort()
            return
        self.heard = exchange.fresh = True
        try:
            fed = self.parser.feed(data)
        except MalformedError:
            if self.exchange is exchange:
                exchange.malformed()
            return
        if fed is not _MORE and self.exchange is exchange:
            exchange.ended(fed is Fed.ENDED)

    def eof_received(self) -> None:
        """See ``asyncio.Protocol``: the transport closes itself."""
        self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.closed = True
        self._wake()
        exchange = self.exchange
        if exchange is None:
            self._forget(self)
        else:
            exchange.lost(exc is None and self.parser.eof())

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._writable = False

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._writable = True
        self._wake()

    async def drained(self) -> None:
        """Wait until more may be written, or the connection is closed."""
        while not self._writable and not self.closed:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def abort(self) -> None:
        """Close it at once; nobody is told."""
        self.closed = True
        self.parser.stop()
        self.transport.abort()

    def _wake(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
