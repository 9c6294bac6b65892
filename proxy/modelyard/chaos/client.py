"""A client made of a bare socket: it shows exactly what the proxy sent, and whether it was whole."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .answers import LAST_CHUNK, chunk
from .engine import reset
from .scenario import Surprise

_LIMIT_S = 15.0
_BODILESS = (204, 304)
_STATUS_LINE = re.compile(r"HTTP/1\.1 [0-9]{3}( |$)")
_SIZE_LINE = re.compile(rb"[0-9A-Fa-f]{1,15}(;.*)?\r\n")


@dataclass(slots=True)
class Answer:
    """What a client saw. ``whole`` is false when the end that was announced did not come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    seconds: float = 0.0

    @property
    def attempts(self) -> int:
        """How many replicas the proxy says it tried; 0 where it does not say."""
        text = self.headers.get("x-modelyard-attempts", "0")
        return int(text) if text.isdecimal() else 0

    @property
    def replica(self) -> str:
        """The replica that the proxy says answered."""
        return self.headers.get("x-modelyard-replica", "")

    @property
    def code(self) -> str:
        """The stable code of an error of the proxy's, empty where there is none."""
        with suppress(ValueError, AttributeError):
            said = json.loads(self.body)
            inner = said.get("error")
            found = inner.get("code") if isinstance(inner, dict) else said.get("code")
            return str(found or "")
        return ""

    def told(self) -> str:
        """The answer in brief, for a report."""
        if not self.status:
            return "no answer"
        code = f" {self.code}" if self.status >= 400 else ""
        end = "" if self.whole else ", cut short"
        return f"{self.status}{code}, {len(self.body)} bytes{end}"


class Client:
    """One connection to the proxy; ``async with`` closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left: int | None = None
        self._chunked = False
        self._sent_at = time.monotonic()
        self.answer = Answer()

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Client:
        """A connection; a small ``receive_buffer`` (bytes) makes a client that can be slow."""
        plug = socket.socket()
        try:
            if receive_buffer is not None:
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            plug.setblocking(False)
            await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", port))
            limit = receive_buffer or 2**16
            reader, writer = await asyncio.open_connection(sock=plug, limit=limit)
        except BaseException:
            plug.close()
            raise
        return cls(reader, writer)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Close at once, whatever is under way."""
        reset(self._writer)

    def hang_up(self) -> None:
        """Close with FIN, as a client does that is stopped."""
        self._writer.close()

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def post(
        self, path: str, body: Mapping[str, Any], *, chunked: bool = False, headers: Mapping[str, str] = {}
    ) -> None:
        """Send one request; with ``chunked`` its body comes in two chunks and without a length."""
        data = json.dumps(body).encode()
        half = len(data) // 2
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
        lines = [f"{name}: {value}" for name, value in headers.items()]
        top = "\r\n".join(
            (
                f"POST {path} HTTP/1.1",
                "Host: chaos",
                "Content-Type: application/json",
                framing,
                *lines,
                "",
                "",
            )
        ).encode()
        await self.raw(top + (chunk(data[:half]) + chunk(data[half:]) + LAST_CHUNK if chunked else data))

    async def get(self, path: str, headers: Mapping[str, str] = {}) -> Answer:
        """One GET and its whole answer."""
        lines = [f"{name}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join((f"GET {path} HTTP/1.1", "Host: chaos", *lines, "", "")).encode())
        return await self.rest()

    async def begin(self) -> Answer:
        """The head of the next answer; its body is read with ``more`` or ``rest``."""
        self.answer = answer = Answer()
        self._sent_at = time.monotonic()
        try:
            async with asyncio.timeout(_LIMIT_S):
                raw = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            answer.seconds = time.monotonic() - self._sent_at
            self._left = 0
            return answer
        except TimeoutError:
            raise Surprise(f"a client got no answer within {_LIMIT_S:g} s") from None
        except asyncio.LimitOverrunError:
            raise Surprise("a client got an answer whose head is larger than 64 KiB") from None
        first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        if not _STATUS_LINE.match(first):
            # bytes of another answer, which a lenient reader would step over
            raise Surprise(f"a client got no answer but {raw[:60]!r}")
        answer.status = int(first.split(" ", 2)[1])
        for line in lines:
            name, _, value = line.partition(":")
            answer.headers[name.strip().lower()] = value.strip()
        self._chunked = answer.headers.get("transfer-encoding", "").lower() == "chunked"
        length = answer.headers.get("content-length")
        self._left = None if self._chunked or length is None else int(length)
        if answer.status in _BODILESS:
            self._chunked, self._left = False, 0
        return answer

    async def more(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end or where it was cut."""
        answer = self.answer
        if answer.whole or not answer.status:
            return b""
        try:
            async with asyncio.timeout(_LIMIT_S):
                data = await (self._next_chunk() if self._chunked else self._next_bytes())
        except (asyncio.IncompleteReadError, ConnectionError):
            data = b""
        except TimeoutError:
            raise Surprise(f"a client's answer stood still for {_LIMIT_S:g} s: {answer.told()}") from None
        answer.body += data
        answer.seconds = time.monotonic() - self._sent_at
        return data

    async def rest(self) -> Answer:
        """The answer to its end, head included where that has not been read."""
        if not self.answer.status or self.answer.whole:
            await self.begin()
        while await self.more():
            pass
        return self.answer

    async def skip(self) -> int:
        """Read the body to its end without keeping it; how many bytes it had."""
        size = 0
        while data := await self.more():
            size += len(data)
            self.answer.body = b""
        return size

    async def _next_chunk(self) -> bytes:
        if not self._left:
            self._left = _chunk_size(await self._reader.readuntil(b"\r\n"))
            if not self._left:
                while await self._reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                self.answer.whole = True
                return b""
        data = await self._reader.read(min(self._left, 2**16))
        if not data:
            raise asyncio.IncompleteReadError(b"", self._left)
        self._left -= len(data)
        if not self._left:
            await self._reader.readexactly(2)
        return data

    async def _next_bytes(self) -> bytes:
        if self._left == 0:
            self.answer.whole = True
            return b""
        data = await self._reader.read(2**16 if self._left is None else min(self._left, 2**16))
        if self._left is None:
            # without a length the end of the connection is the end of the answer
            self.answer.whole = not data
        elif not data:
            raise asyncio.IncompleteReadError(b"", self._left)
        else:
            self._left -= len(data)
            self.answer.whole = not self._left
        return data


def _chunk_size(line: bytes) -> int:
    """The size that a chunk's first line gives. Raises ``Surprise`` for any other line."""
    if not _SIZE_LINE.fullmatch(line):
        raise Surprise(f"a client got no chunk but {line[:60]!r}")
    return int(line.partition(b";")[0], 16)
