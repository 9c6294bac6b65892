"""What every translator of a stream does alike. No I/O: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from modelyard.errors import ModelyardError, UpstreamBrokenError, UpstreamError

from ..answers import Shape, error_event
from ..events import Event, EventScanner
from ..in_band import error_of
from ..json_text import read

DONE = b"[DONE]"
# vLLM's words for a generation that was cut: no end that may be shown as one
GIVEN_UP = frozenset({"abort", "error"})
# what reading an object as its API says it is raises, where it is not of that shape
_ODD = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)


@contextmanager
def reading() -> Iterator[None]:
    """For reading what an engine answered, which may be anything. Raises ``UpstreamError`` where it is not of the
    shape that its API says.
    """
    try:
        yield
    except _ODD as exc:
        raise UpstreamError("it answered with something unexpected", code="upstream_garbled") from exc


class StreamTranslator(Protocol):
    """Turns an engine's event stream into the client's. However the input is cut, the output is the same."""

    @property
    def fault(self) -> ModelyardError | None:
        """Why the stream cannot go on; set by ``feed`` after what came before the fault was returned."""

    @property
    def finished(self) -> bool:
        """Whether the client has got a proper end; what the engine sends after it does not matter."""

    def feed(self, data: bytes) -> bytes:
        """What the client gets for ``data``; often nothing. Never raises: see ``fault``."""

    def end(self) -> bytes:
        """The engine's stream is over: the client's proper end, or nothing when it has got it.

        Raises the fault, or ``UpstreamBrokenError`` when the stream stopped before its proper end.
        """

    def broken(self, error: ModelyardError) -> bytes:
        """The event that tells the client of ``error``; the stream must then be cut, not ended."""


class EventTranslator:
    """``StreamTranslator`` for engines whose events each hold one JSON object; subclasses say what each
    becomes.
    """

    def __init__(self, shape: Shape, request_id: str) -> None:
        self.fault: ModelyardError | None = None
        self.finished = False
        # what the stream has told of its token counts, for the books
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self._shape = shape
        self._request_id = request_id
        self._scanner = EventScanner()

    def feed(self, data: bytes) -> bytes:
        """See ``StreamTranslator.feed``."""
        if self.finished or self.fault is not None:
            return b""
        out: list[bytes] = []
        try:
            for event in self._scanner.feed(data):
                out.append(self._translated(event))
        except ModelyardError as exc:
            self.fault = exc
        return b"".join(out)

    def end(self) -> bytes:
        """See ``StreamTranslator.end``."""
        if self.fault is not None:
            raise self.fault
        if self.finished:
            return b""
        last = self.closing()
        self.finished = True
        return last

    def broken(self, error: ModelyardError) -> bytes:
        """See ``StreamTranslator.broken``."""
        return error_event(error, self._shape, self._request_id)

    def message(self, message: dict[str, Any]) -> bytes:
        """What one object of the engine becomes. Sets ``finished`` with the last one."""
        raise NotImplementedError

    def closing(self) -> bytes:
        """The proper end, when the engine has said all that is needed for one.

        Raises ``UpstreamBrokenError`` when it has not.
        """
        raise UpstreamBrokenError("its stream stopped before its end")

    def note_usage(self, message: dict[str, Any]) -> None:
        """Take the token counts from an OpenAI object's ``usage``, where it has them."""
        usage = message.get("usage")
        if isinstance(usage, dict):
            for name in ("prompt_tokens", "completion_tokens"):
                if isinstance(usage.get(name), int):
                    setattr(self, name, usage[name])

    def _translated(self, event: Event) -> bytes:
        if self.finished:
            return b""
        if event.data == DONE:
            last = self.closing()
            self.finished = True
            return last
        try:
            message = read(event.data)
        except ValueError as exc:
            raise UpstreamError(
                "its stream holds something that is not JSON", code="upstream_garbled"
            ) from exc
        if not isinstance(message, dict):
            raise UpstreamError("its stream holds something unexpected", code="upstream_garbled")
        error = error_of(message)
        if error is not None:
            raise error
        try:
            return self.message(message)
        except _ODD as exc:
            raise UpstreamError("its stream holds something unexpected", code="upstream_garbled") from exc


class Chained:
    """Two translators one after the other."""

    def __init__(self, first: StreamTranslator, second: StreamTranslator) -> None:
        self._first = first
        self._second = second

    @property
    def fault(self) -> ModelyardError | None:
        """See ``StreamTranslator.fault``."""
        return self._first.fault or self._second.fault

    @property
    def finished(self) -> bool:
        """See ``StreamTranslator.finished``."""
        return self._second.finished

    def feed(self, data: bytes) -> bytes:
        """See ``StreamTranslator.feed``."""
        return self._second.feed(self._first.feed(data))

    def end(self) -> bytes:
        """See ``StreamTranslator.end``."""
        return self._second.feed(self._first.end()) + self._second.end()

    def broken(self, error: ModelyardError) -> bytes:
        """See ``StreamTranslator.broken``."""
        return self._second.broken(error)
