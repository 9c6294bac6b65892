"""Server-sent events, read from bytes that come in any pieces. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modelyard.errors import UpstreamBrokenError

MAX_EVENT_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its ``data`` lines joined by newlines, and its ``event`` field, empty where it has none."""

    data: bytes
    name: bytes = b""


class EventScanner:
    """Cuts a stream into events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Lines end with LF or CRLF. Comments and fields other than ``data`` and ``event`` are skipped, and so is an
    event without data. What stands after the last blank line is no event, however complete it looks.
    """

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._searched = 0
        self._size = 0
        self._data: list[bytes] = []
        self._name = b""

    @property
    def between_events(self) -> bool:
        """Whether everything fed so far belongs to events that are complete."""
        return not self._buffer and not self._size

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that ``data`` completes; read it to its end before feeding again.

        Raises ``UpstreamBrokenError`` when one event is larger than the limit, however it was cut.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while (end := buffer.find(b"\n", max(start, self._searched))) >= 0:
                line = bytes(buffer[start:end])
                start = self._searched = end + 1
                event = self._line(line.removesuffix(b"\r"), len(line) + 1)
                if event is not None:
                    yield event
            self._searched = len(buffer)
            self._check(len(buffer) - start)
        finally:
            del buffer[:start]
            self._searched -= start

    def _line(self, line: bytes, size: int) -> Event | None:
        self._size += size
        self._check(0)
        if line:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
            return None
        lines, name = self._data, self._name
        self._data, self._name, self._size = [], b"", 0
        return Event(b"\n".join(lines), name) if lines else None

    def _check(self, more: int) -> None:
        if self._size + more > self._limit:
            raise UpstreamBrokenError(f"one event of its stream is larger than {self._limit} bytes")


def event_bytes(data: bytes) -> bytes:
    """One event that carries ``data``, which holds no newline."""
    return b"data: " + data + b"\n\n"
