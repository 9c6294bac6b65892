"""Which replica holds a stored response: an answer of ``/v1/responses`` lives in the engine that made it."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from multidict import MultiMapping

from .upstream import UpstreamResponse

# `{"id":"resp_..."` begins an answer, and `"response":{"id":"resp_..."` the first event of a stream
_ID = re.compile(rb'"id"\s*:\s*"(resp_[A-Za-z0-9_.-]{1,200})"')
_SEARCHED = 16 * 1024


class Home(NamedTuple):
    """Where a response is kept."""

    model: str
    replica: str


class ResponseHomes:
    """The last ``capacity`` responses of at most ``age_s`` seconds. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float], *, capacity: int = 20_000, age_s: float = 86_400) -> None:
        self._clock = clock
        self._capacity = capacity
        self._age_s = age_s
        self._homes: OrderedDict[str, tuple[float, Home]] = OrderedDict()
        self.on_remember: Callable[[str, Home], None] | None = None
        """Whoever else has to know of a response that was kept here."""

    def remember(self, response_id: str, home: Home) -> None:
        """The response is kept there; the longest unused one is forgotten when there are too many."""
        self.learn(response_id, home)
        if self.on_remember is not None:
            self.on_remember(response_id, home)

    def learn(self, response_id: str, home: Home) -> None:
        """The same, from another worker."""
        self._homes[response_id] = (self._clock(), home)
        self._homes.move_to_end(response_id)
        if len(self._homes) > self._capacity:
            self._homes.popitem(last=False)

    def find(self, response_id: str) -> Home | None:
        """Where it is kept; ``None`` when it was never seen, or too long ago."""
        known = self._homes.get(response_id)
        if known is None:
            return None
        if self._clock() - known[0] > self._age_s:
            del self._homes[response_id]
            return None
        self._homes.move_to_end(response_id)
        return known[1]

    def __len__(self) -> int:
        return len(self._homes)


class IdWatch:
    """An answer whose first bytes are looked at, as they pass, for the id of the response in it."""

    __slots__ = ("_found", "_response", "_seen")

    def __init__(self, response: UpstreamResponse, first: bytes, found: Callable[[str], None]) -> None:
        self._response = response
        self._found = found
        self._seen: bytearray | None = bytearray()
        self._look(first)

    @property
    def status(self) -> int:
        """See ``UpstreamResponse``."""
        return self._response.status

    @property
    def headers(self) -> MultiMapping[str]:
        """See ``UpstreamResponse``."""
        return self._response.headers

    async def chunk(self) -> bytes:
        """See ``UpstreamResponse``."""
        data = await self._response.chunk()
        if self._seen is not None:
            self._look(data)
        return data

    def _look(self, data: bytes) -> None:
        if self._seen is None:
            return
        self._seen += data[: _SEARCHED - len(self._seen)]
        match = _ID.search(self._seen)
        if match is not None:
            self._found(match[1].decode())
        if match is not None or len(self._seen) >= _SEARCHED:
            self._seen = None
