"""Heads of the lane's answers, in bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from modelyard.errors import ModelyardError

from ..answers import Shape, error_body, error_headers
from ..headers import ATTEMPTS, REPLICA, REQUEST_ID, lines_to_client
from ..wire.framing import Head
from ..wire.target import encoded

_REQUEST_ID = REQUEST_ID.encode()
# joined, since that takes half of what formatting does
_REQUEST_ID_IS = _REQUEST_ID + b": "
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CLOSE = b"Connection: close\r\n"


@lru_cache(maxsize=1024)
def status_line(status: int) -> bytes:
    """The first line of an answer."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


class Stamp:
    """The lines that every answer carries: server and date, made once a second."""

    __slots__ = ("_clock", "_lines", "_second")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._lines = b""

    def lines(self) -> bytes:
        """The lines now."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._lines = f"Server: modelyard\r\nDate: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._lines


def answer_head(
    head: Head, stamp: bytes, told: bytes, request_id: str, replica: str, attempts: int, close: bool
) -> bytes:
    """The head for the client of an engine's answer."""
    begun = head.down
    if begun is None:
        framing = _CHUNKED if is_chunked(head) else b""
        begun = head.down = status_line(head.status) + lines_to_client(head) + framing
    closing = _CLOSE if close else b""
    return b"".join(
        (begun, stamp, told, closing, _REQUEST_ID_IS, request_id.encode(), _way(replica, attempts))
    )


@lru_cache(maxsize=16384)
def _way(replica: str, attempts: int) -> bytes:
    """The end of a head: which replica answered, at which attempt."""
    return f"\r\n{REPLICA}: {replica}\r\n{ATTEMPTS}: {attempts}\r\n\r\n".encode()


def is_chunked(head: Head) -> bool:
    """Whether the client gets the body in chunks: where nobody knows its length."""
    return head.length is None and head.status not in (204, 304)


def refusal(
    error: ModelyardError, shape: Shape, request_id: str, stamp: bytes, told: bytes, *, close: bool
) -> bytes:
    """A whole answer that tells of ``error``, the same as aiohttp would give."""
    body = json.dumps(error_body(error, shape, request_id)).encode()
    return (
        b"%b%b%b%b%b%b: %b\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
        % (
            status_line(error.status),
            encoded(error_headers(error).items()),
            _CLOSE if close else b"",
            stamp,
            told,
            _REQUEST_ID,
            request_id.encode(),
            len(body),
            body,
        )
    )
