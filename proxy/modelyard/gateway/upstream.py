"""Moving bytes to and from an engine. Everything above sees only ``Transport``, so that another can replace
it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict, MultiMapping

from modelyard.errors import UpstreamBrokenError
from modelyard.registry.model import Timeouts

_WHOLE_LIMIT = 64 * 2**20


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to one engine; ``deadline`` is a loop time or ``None``.

    A body that comes in pieces is sent as it comes and never twice; ``length`` is its size in bytes, ``None``
    where nobody knows it. What its iterator raises is raised to whoever waits for the answer.
    """

    url: str
    headers: CIMultiDict[str]
    body: bytes | AsyncIterable[bytes]
    timeouts: Timeouts
    deadline: float | None = None
    method: str = "POST"
    length: int | None = None


class UpstreamResponse(Protocol):
    """An engine's answer whose head has arrived."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> MultiMapping[str]:
        """The headers as the engine sent them."""

    async def chunk(self) -> bytes:
        """The next bytes as they came, ``b""`` at the end.

        Raises ``UpstreamTimeoutError`` when they do not come in time, ``UpstreamBrokenError`` when the
        answer is cut.
        """


class Transport(Protocol):
    """A way to reach engines."""

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send a request. Entering raises ``UpstreamError``; leaving early closes the connection, so that the
        engine stops.
        """

    async def status_of(self, url: str, timeout_s: float) -> int:
        """The status of a GET, for probes. Raises ``UpstreamConnectError`` when no connection comes within
        half of ``timeout_s``, another ``UpstreamError`` when there is no answer in time.
        """

    async def fetch(self, url: str, timeout_s: float, limit: int) -> tuple[int, bytes]:
        """Status and body of a GET. Raises like ``status_of``, also when the body is not whole in time, or
        larger than ``limit`` bytes.
        """


async def whole(response: UpstreamResponse, limit: int = _WHOLE_LIMIT) -> bytes:
    """The rest of an answer, at most ``limit`` bytes of it (``UpstreamBrokenError`` beyond)."""
    parts: list[bytes] = []
    size = 0
    while part := await response.chunk():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise UpstreamBrokenError(f"the answer is larger than {limit} bytes")
    return b"".join(parts)
