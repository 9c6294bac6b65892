"""A circuit breaker for one replica: a small machine without I/O; the time is given to it.

Closed until the failures say otherwise, then open for a while, then half-open: one request is let in, and its
outcome closes or opens it again, for twice as long. Only failures of the replica count; what a client did
(4xx, leaving) or what merely says "not now" (429, or 503 with ``Retry-After``) never does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

_REMEMBERED = 20
_MASK = (1 << _REMEMBERED) - 1
_MOST_FAILED = _REMEMBERED // 2


class BreakerState(enum.Enum):
    """Whether requests pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


CLOSED = BreakerState.CLOSED


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """``failures`` in a row open it, and so does half of the last twenty; 0 switches it off. It stays open for
    ``open_s`` seconds, doubled with each time in a row up to ``longest_s``.
    """

    failures: int = 5
    open_s: float = 10.0
    longest_s: float = 120.0


class Breaker:
    """Single writer: the pursuits. Times are those of the clock that the caller uses throughout."""

    __slots__ = ("_history", "_rules", "_seen", "failures", "opened", "state", "trial", "until")

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self._rules = rules or BreakerRules()
        self._history = 0
        self._seen = 0
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.opened = 0
        """Times it has opened in a row."""
        self.until = 0.0
        """When open: the time from which one request is let in."""
        self.trial = False
        """When half-open: whether that request runs."""

    @property
    def marked(self) -> bool:
        """Whether it remembers any failure; a success is news only to one that does."""
        return bool(self._history or self.failures)

    def lets(self, now: float) -> bool:
        """Whether a request may pass now; ``enter`` has to follow where it does."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return now >= self.until
        return not self.trial

    def enter(self) -> bool:
        """A request passes; whether it is the one that tries the replica out."""
        if self.state is BreakerState.CLOSED:
            return False
        self.state = BreakerState.HALF_OPEN
        self.trial = True
        return True

    def succeeded(self, *, trial: bool) -> bool:
        """A request was answered well. True when that closed it."""
        self.failures = 0
        if self._history:
            self._history = self._history << 1 & _MASK
        if self._seen < _REMEMBERED:
            self._seen += 1
        if trial and self.state is BreakerState.HALF_OPEN:
            self._close()
            return True
        return False

    def failed(self, now: float, *, trial: bool) -> bool:
        """The replica failed a request. True when that opened it."""
        self.failures += 1
        self._history = (self._history << 1 | 1) & _MASK
        if self._seen < _REMEMBERED:
            self._seen += 1
        limit = self._rules.failures
        if self.state is BreakerState.HALF_OPEN:
            if trial:
                self._open(now)
            return trial
        if self.state is BreakerState.OPEN or not limit:
            return False
        often = self._seen == _REMEMBERED and self._history.bit_count() >= max(_MOST_FAILED, limit)
        if self.failures >= limit or often:
            self._open(now)
            return True
        return False

    def left(self, *, trial: bool) -> None:
        """The request that tried the replica out ended without an outcome: another one may."""
        if trial:
            self.trial = False

    def _open(self, now: float) -> None:
        rules = self._rules
        self.state = BreakerState.OPEN
        self.trial = False
        self.until = now + min(rules.open_s * 2**self.opened, rules.longest_s)
        self.opened = min(self.opened + 1, 16)

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self.trial = False
        self.failures = self._history = self._seen = self.opened = 0
