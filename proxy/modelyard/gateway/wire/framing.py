"""HTTP/1.1 answers out of bytes: a strict reader that does no I/O.

What an answer's length is decides where the next answer on the same connection begins, so everything that
two readers could understand differently is malformed (RFC 9112, sections 5 to 7 and 11).
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import NamedTuple, Protocol

from multidict import CIMultiDict

LARGEST_HEAD = 64 * 1024
_LARGEST_LINE = 4 * 1024
_LARGEST_TRAILERS = 16 * 1024
_MOST_INTERIM = 16

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEX = re.compile(rb"[0-9A-Fa-f]{1,15}")
_TIMEOUT = re.compile(rb"(?i)(?:^|[,\s])timeout\s*=\s*([0-9]{1,6})(?:$|[,\s])")
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
_ASKED_FOR = frozenset({b"content-type", b"retry-after", b"x-prompt-tokens", b"x-generated-tokens"})
_NOTED = _FRAMING | _ASKED_FOR


class MalformedError(Exception):
    """The bytes are no HTTP/1.1 answer, or one whose length cannot be trusted."""


class Fed(enum.Enum):
    """What the bytes did. ``LEFT_OVER``: the answer has ended and bytes that nobody asked for follow it."""

    MORE = "more"
    ENDED = "ended"
    LEFT_OVER = "left over"


class Field(NamedTuple):
    """One header line: its name and value as they came, and the name in lower case."""

    name: bytes
    value: bytes
    lowered: bytes


class Head:
    """An answer's head. ``named`` are the lower-case names that its Connection header lists; ``idle_s`` the
    server's own keep-alive time, where it said one. ``length`` is ``None`` where the body is chunked or ends
    with the connection; ``streams`` says that it is made of server-sent events. ``noted`` holds what readers
    of answers ask for, by lower-case name. Never changed once it is read: several answers may share it.
    ``down`` is what a reader made of it for its client.
    """

    __slots__ = (
        "chunked",
        "down",
        "fields",
        "idle_s",
        "keep_alive",
        "length",
        "named",
        "noted",
        "status",
        "streams",
    )

    def __init__(self, status: int) -> None:
        self.status = status
        self.fields: list[Field] = []
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.named: frozenset[bytes] = frozenset()
        self.idle_s: float | None = None
        self.noted: dict[bytes, str] = {}
        self.streams = False
        self.down: bytes | None = None

    def multidict(self) -> CIMultiDict[str]:
        """The headers as text; bytes that are not UTF-8 survive as surrogates."""
        return CIMultiDict(
            [
                (name.decode("ascii"), value.decode("utf-8", "surrogateescape"))
                for name, value, _ in self.fields
            ]
        )


class Listener(Protocol):
    """Who is told of an answer while it is read."""

    def on_head(self, head: Head) -> None:
        """The final head (interim ones are skipped)."""

    def on_data(self, data: bytes, framed: bytes | None) -> None:
        """Some bytes of the body. ``framed`` is the same in whole chunks as they came, where they may be
        passed on as they are.
        """


class _State(enum.Enum):
    HEAD = 0
    SIZE = 1
    CHUNK = 2
    CHUNK_END = 3
    TRAILERS = 4
    LENGTH = 5
    CLOSE = 6
    DONE = 7


# looked up once: a member of an enumeration costs several times a plain name
_HEAD, _SIZE, _LENGTH, _DONE = _State.HEAD, _State.SIZE, _State.LENGTH, _State.DONE
_MORE, _ENDED, _LEFT_OVER = Fed.MORE, Fed.ENDED, Fed.LEFT_OVER


class ResponseParser:
    """Reads one answer after another; ``start`` before each. A listener may call ``stop`` from within.

    ``head`` is the present answer's, ``began`` whether a byte of its body has come.
    """

    __slots__ = (
        "_bodiless",
        "_interim",
        "_left",
        "_listener",
        "_partial",
        "_state",
        "_trailed",
        "began",
        "head",
    )

    def __init__(self) -> None:
        self.head: Head | None = None
        self.began = False
        self._state = _DONE
        self._partial = b""
        self._left = 0
        self._trailed = 0
        self._interim = 0
        self._bodiless = False
        self._listener: Listener

    def start(self, listener: Listener, bodiless: bool = False) -> None:
        """Expect one answer; ``bodiless`` for one to HEAD."""
        self.head = None
        self.began = False
        self._state = _HEAD
        self._partial = b""
        self._interim = 0
        self._bodiless = bodiless
        self._listener = listener

    def stop(self) -> None:
        """Tell the listener nothing more."""
        self._state = _DONE

    def feed(self, data: bytes) -> Fed:
        """Read ``data``. Raises ``MalformedError``."""
        state = self._state
        if state is _SIZE:
            # the hot case of a stream: exactly one whole chunk
            cut = data.find(b"\r\n", 0, 18)
            if cut > 0 and not self._partial:
                size = plain_size(data[:cut])
                if size > 0 and cut + size + 4 == len(data) and data.endswith(b"\r\n"):
                    self.began = True
                    self._listener.on_data(data[cut + 2 : -2], data)
                    return _MORE
            return self._chunked(data)
        if state is _LENGTH:
            return self._counted(data)
        if state is _HEAD:
            return self._begin(data)
        if state is _State.CLOSE:
            self.began = True
            self._listener.on_data(data, None)
            return _MORE
        if state is _DONE:
            return _LEFT_OVER
        return self._chunked(data)

    def eof(self) -> bool:
        """The connection was closed in good order; whether that ended the answer."""
        if self._state is _State.CLOSE:
            self._state = _DONE
            return True
        return False

    def _begin(self, data: bytes) -> Fed:
        known = len(self._partial)
        if known:
            data = self._partial + data
        while True:
            cut = data.find(b"\r\n\r\n", max(0, known - 3))
            if cut < 0:
                _check_beginning(data)
                self._partial = data
                return _MORE
            # many an answer begins like the one before, above all those of streams
            head = known_head(data[:cut]) if cut < 600 else parse_head(data[:cut])
            data = data[cut + 4 :]
            known = 0
            if head.status >= 200:
                break
            self._interim += 1
            if head.status < 100 or head.status == 101 or self._interim > _MOST_INTERIM:
                # 101 would make a tunnel of the connection
                raise MalformedError(f"the status {head.status} answers nothing")
            if not data:
                self._partial = b""
                return _MORE
        self._partial = b""
        self.head = head
        if self._bodiless or head.status in (204, 304):
            self._state, self._left = _LENGTH, 0
        elif head.chunked:
            self._state = _SIZE
        elif head.length is None:
            self._state = _State.CLOSE
        else:
            self._state, self._left = _LENGTH, head.length
        self._listener.on_head(head)
        if self._state is _DONE:
            return _MORE
        if self._state is _LENGTH:
            return self._counted(data)
        return self.feed(data) if data else _MORE

    def _counted(self, data: bytes) -> Fed:
        size = len(data)
        left = self._left
        if size:
            self.began = True
        if size < left:
            self._left = left - size
            if size:
                self._listener.on_data(data, None)
            return _MORE
        self._left = 0
        if left:
            self._listener.on_data(data if size == left else data[:left], None)
            if self._state is _DONE:
                return _MORE
        self._state = _DONE
        return _ENDED if size == left else _LEFT_OVER

    def _chunked(self, data: bytes) -> Fed:
        at, end = 0, len(data)
        while at < end:
            state = self._state
            if state is _SIZE:
                if not self._partial:
                    at = self._whole_chunks(data, at)
                    if self._state is _DONE or at == end:
                        break
                line, at = self._line(data, at)
                if line is not None:
                    self._left = chunk_size(line)
                    self._trailed = 0
                    self._state = _State.CHUNK if self._left else _State.TRAILERS
            elif state is _State.CHUNK:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _State.CHUNK_END
                self.began = True
                self._listener.on_data(piece, None)
            elif state is _State.CHUNK_END:
                wanted = 2 - len(self._partial)
                self._partial += data[at : at + wanted]
                at += wanted
                if not b"\r\n".startswith(self._partial):
                    raise MalformedError("a chunk does not end where it said")
                if len(self._partial) == 2:
                    self._partial = b""
                    self._state = _SIZE
            elif state is _State.TRAILERS:
                line, at = self._line(data, at)
                if line == b"":
                    self._state = _DONE
                    return _ENDED if at == end else _LEFT_OVER
                self._trailed += 0 if line is None else len(line)
                if self._trailed > _LARGEST_TRAILERS:
                    raise MalformedError("the trailers are too large")
            else:
                # the listener wants no more
                break
        return _MORE

    def _whole_chunks(self, data: bytes, at: int) -> int:
        """Hand over the whole chunks at ``at`` together; returns where they end."""
        begin, end = at, len(data)
        parts: list[bytes] = []
        while True:
            cut = data.find(b"\r\n", at, at + 18)
            if cut < 0:
                break
            size = plain_size(data[at:cut])
            stop = cut + 2 + size
            if size <= 0 or stop + 2 > end:
                break
            if data[stop : stop + 2] != b"\r\n":
                raise MalformedError("a chunk does not end where it said")
            parts.append(data[cut + 2 : stop])
            at = stop + 2
        if parts:
            self.began = True
            self._listener.on_data(b"".join(parts), data[begin:at])
        return at

    def _line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The next line without its end, and where it ends; ``None`` where it is not whole yet."""
        cut = data.find(b"\n", at)
        line = self._partial + (data[at:] if cut < 0 else data[at : cut + 1])
        if len(line) > _LARGEST_LINE:
            raise MalformedError("a line is too long")
        if cut < 0:
            self._partial = line
            return None, len(data)
        self._partial = b""
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            raise MalformedError("a line holds characters that no line may hold")
        return line[:-2], cut + 1


@lru_cache(maxsize=1024)
def plain_size(line: bytes) -> int:
    """The chunk size that ``line`` gives, -1 where it is anything but plain hexadecimal digits."""
    return int(line, 16) if _HEX.fullmatch(line) else -1


def chunk_size(line: bytes) -> int:
    """The size in a chunk's first line, whatever extensions follow it. Raises ``MalformedError``."""
    size = plain_size(line.partition(b";")[0].rstrip(b" \t"))
    if size < 0:
        raise MalformedError("a chunk's size cannot be read")
    return size


def parse_head(block: bytes) -> Head:
    """A head from its status line to its last header, without the empty line. Raises ``MalformedError``."""
    lines = block.split(b"\r\n")
    count = len(lines) - 1
    if len(block) > LARGEST_HEAD:
        raise MalformedError("the head is too large")
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        raise MalformedError("the head holds characters that no head may hold")
    status, modern = _status(lines[0])
    head = Head(status)
    del lines[0]
    head.fields = fields = list(map(_field, lines))
    tokens: set[bytes] = set()
    for field in fields:
        if field[2] in _NOTED:
            _note(head, field, tokens)
    if head.chunked and (head.length is not None or not modern):
        raise MalformedError("the head gives two lengths")
    head.keep_alive = modern if not tokens else b"close" not in tokens and (modern or b"keep-alive" in tokens)
    if tokens:
        head.named = frozenset(tokens)
    head.streams = head.noted.get(b"content-type", "").startswith("text/event-stream")
    return head


known_head = lru_cache(maxsize=512)(parse_head)


@lru_cache(maxsize=256)
def _status(line: bytes) -> tuple[int, bool]:
    """The status, and whether the version is 1.1."""
    code = line[9:12]
    if (
        not line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
        or len(code) != 3
        or not code.isdigit()
        or line[12:13] not in (b"", b" ")
    ):
        raise MalformedError("the status line cannot be read")
    return int(code), line.startswith(b"HTTP/1.1")


def _field(line: bytes) -> Field:
    # most lines are the same in each answer; long ones are not worth their place
    return _short_field(line) if len(line) < 200 else _read_field(line)


def _read_field(line: bytes) -> Field:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise MalformedError("a header line cannot be read")
    return Field(name, value.strip(b" \t"), name.lower())


_short_field = lru_cache(maxsize=2048)(_read_field)


def _note(head: Head, field: Field, tokens: set[bytes]) -> None:
    """Take one of the headers that decide where the answer ends and what comes after it, or that are asked
    for.
    """
    _, value, name = field
    if name == b"content-length":
        if head.length is not None or not value.isdigit() or len(value) > 15:
            raise MalformedError("the content length cannot be read, or is there twice")
        head.length = int(value)
    elif name == b"transfer-encoding":
        if head.chunked or value.lower() != b"chunked":
            raise MalformedError("the transfer coding is not plain chunked")
        head.chunked = True
    elif name == b"connection":
        tokens.update(token for token in map(bytes.strip, value.lower().split(b",")) if token)
    elif name == b"keep-alive":
        found = _TIMEOUT.search(value)
        if found:
            head.idle_s = float(found[1])
    else:
        head.noted.setdefault(name, value.decode("utf-8", "surrogateescape"))


def _check_beginning(data: bytes) -> None:
    """Refuse at once what can no longer become a head."""
    if len(data) > LARGEST_HEAD:
        raise MalformedError("the head is too large")
    if not data.startswith(b"HTTP/1."[: len(data)]):
        raise MalformedError("the answer is not HTTP/1")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise MalformedError("the head holds a bare line feed")
