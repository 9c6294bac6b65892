"""Messages between the supervisor and one worker: JSON objects with their length before them, over a socket
pair.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import orjson

_log = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
_LARGEST = 256 * 2**20

Message = dict[str, Any]


class Framing:
    """Bytes to messages; no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that ``data`` completes. Raises ``ValueError`` for what is none."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > _LARGEST:
                raise ValueError(f"a message of {length} bytes is too long")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            message = orjson.loads(bytes(buffer[_LENGTH.size : end]))
            del buffer[:end]
            yield message


def framed(message: Message) -> bytes:
    """``message`` as it goes over the wire; dataclasses and enumerations in it become plain."""
    body = orjson.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Channel(asyncio.Protocol):
    """One end. ``send`` never waits; each message that arrives is given to ``receive``, and the end of the
    other side to ``gone``, once.
    """

    def __init__(self, receive: Callable[[Message], None], gone: Callable[[], None]) -> None:
        self._receive = receive
        self._gone = gone
        self._framing = Framing()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def over(
        cls, end: socket.socket, receive: Callable[[Message], None], gone: Callable[[], None]
    ) -> Channel:
        """A channel over ``end``, which it closes with itself."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(receive, gone), sock=end)
        return channel

    def send(self, message: Message) -> None:
        """Send ``message``; dropped where the other side is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(message))

    def close(self) -> None:
        """What was sent goes out, then it closes."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        # uvloop's transports are those of asyncio by their methods only
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        for message in self._framing.feed(data):
            try:
                self._receive(message)
            except Exception:
                # one odd message must not end what the others depend on
                _log.exception("a message of kind %r could not be taken", message.get("kind"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = None
        self._gone()
