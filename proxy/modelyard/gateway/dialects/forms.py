"""A multipart form read as it comes: fields are found in it, and nothing of it is kept. No I/O.

RFC 7578 over RFC 2046. The pieces that come out, put together, are the bytes that went in.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from email.message import Message
from typing import Any

from modelyard.errors import BadRequestError

_MOST_HEADERS = 16 * 1024
_MOST_FIELD = 1024


@dataclass(frozen=True, slots=True)
class FieldValue:
    """The content of the field that is looked for, in the place where it stood. ``early``: before any file."""

    raw: bytes
    early: bool = True


class _State(enum.Enum):
    PREAMBLE = enum.auto()
    HEADERS = enum.auto()
    CONTENT = enum.auto()
    FIELD = enum.auto()
    OVER = enum.auto()


class FormScanner:
    """Passes a form on in pieces; the content of each field called ``wanted`` comes as a ``FieldValue``.

    ``file_begun`` is whether the first file has begun, ``over`` whether the form has ended.
    """

    def __init__(self, boundary: str, wanted: str) -> None:
        self._mark = b"\r\n--" + boundary.encode("latin-1")
        self._wanted = wanted
        self._state = _State.PREAMBLE
        # a boundary stands at the beginning of a line, and so may the very first byte
        self._buffer = bytearray(b"\r\n")
        self._virtual = 2
        self.file_begun = False

    @property
    def over(self) -> bool:
        """Whether the last boundary has been seen."""
        return self._state is _State.OVER

    def feed(self, data: bytes) -> list[bytes | FieldValue]:
        """What ``data`` gives. Raises ``BadRequestError`` for what is no form."""
        self._buffer += data
        out: list[bytes | FieldValue] = []
        while self._step(out):
            pass
        return out

    def _step(self, out: list[bytes | FieldValue]) -> bool:
        """One step; whether there may be another."""
        if self._state is _State.OVER:
            self._take(len(self._buffer), out)
            return False
        if self._state is _State.HEADERS:
            return self._headers(out)
        at, sure = self._boundary()
        if self._state is _State.FIELD:
            if (at if at >= 0 else len(self._buffer) - len(self._mark)) > _MOST_FIELD:
                raise BadRequestError(f"the form field {self._wanted!r} is longer than {_MOST_FIELD} bytes")
            if not sure:
                return False
            out.append(FieldValue(bytes(self._buffer[:at]), not self.file_begun))
            del self._buffer[:at]
        elif at < 0:
            # what may be the beginning of a boundary stays
            self._take(max(0, len(self._buffer) - len(self._mark) + 1), out)
            return False
        else:
            self._take(at, out)
            if not sure:
                return False
        self._take(len(self._mark), out)
        self._state = _State.HEADERS
        return True

    def _boundary(self) -> tuple[int, bool]:
        """Where the next boundary stands (-1: nowhere), and whether what follows it has come and shows that it is
        one: a longer line that begins like it is content.
        """
        at = self._buffer.find(self._mark)
        while at >= 0:
            after = at + len(self._mark)
            following = bytes(self._buffer[after : after + 2])
            if len(following) < 2:
                return at, False
            if following in (b"--", b"\r\n") or following[0] in b" \t":
                return at, True
            at = self._buffer.find(self._mark, at + 1)
        return -1, False

    def _headers(self, out: list[bytes | FieldValue]) -> bool:
        if self._buffer.startswith(b"--"):
            self._state = _State.OVER
            return True
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MOST_HEADERS:
                raise BadRequestError("the headers of a part of the form are too long")
            return False
        name, filename = _named(bytes(self._buffer[:end]))
        self._take(end + 4, out)
        if name == self._wanted and filename is None:
            self._state = _State.FIELD
        else:
            self.file_begun = self.file_begun or filename is not None or name == "file"
            self._state = _State.CONTENT
        return True

    def _take(self, count: int, out: list[bytes | FieldValue]) -> None:
        """Pass ``count`` bytes of the buffer on."""
        if count:
            piece = bytes(self._buffer[self._virtual : count])
            self._virtual = max(0, self._virtual - count)
            del self._buffer[:count]
            if piece:
                out.append(piece)


def _named(headers: bytes) -> tuple[str | None, str | None]:
    """Name and file name of a part. Raises ``BadRequestError`` where an engine may read others than these."""
    value: str | None = None
    for line in headers.split(b"\r\n"):
        name, _, said = line.partition(b":")
        folded = line[:1] in (b" ", b"\t") and bool(line.strip())
        if folded or b"\r" in line or b"\n" in line:
            raise BadRequestError("a header of a part of the form does not stand on one line")
        if name.strip().lower() == b"content-disposition":
            if value is not None:
                raise BadRequestError("a part of the form has two headers Content-Disposition; send one")
            value = said.strip().decode("utf-8", "replace")
    if value is None:
        return None, None
    called = parameter(value, "name")
    if called is not None and "\\" in called:
        raise BadRequestError("the name of a form field holds a backslash; leave it out")
    return called, parameter(value, "filename")


def parameter(value: str, name: str) -> str | None:
    """The parameter ``name`` of a header's ``value``, read as engines read it.

    Raises ``BadRequestError`` where it stands twice: one reader takes the first, the next the last.
    """
    message = Message()
    message["content-type"] = value
    found: list[Any] = [said for key, said in message.get_params(failobj=[]) if key.lower() == name]
    if len(found) > 1:
        raise BadRequestError(f"a header of the form has two parameters {name!r}; send one")
    if not found:
        return None
    # with its character set where the parameter is written in RFC 2231's way
    return str(found[0][2] if isinstance(found[0], tuple) else found[0])
