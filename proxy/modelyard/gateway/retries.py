"""How many retries the whole proxy may make in vain: a share of its requests, so that trouble is not multiplied."""

from __future__ import annotations

from collections.abc import Callable

_WINDOW_S = 10.0
_ALWAYS = 10


class RetryBudget:
    """Retries of the last ten to twenty seconds that did not help, against the requests of the same time.

    They may be ``percent`` of the requests, those that still run included, and ten in any case. A retry that is
    answered is paid back: where one replica of several dies, all that it had may go elsewhere; where everything
    fails, little is tried twice. Two buckets that take turns; ``clock`` gives seconds and never goes back.
    """

    __slots__ = ("_before", "_clock", "_percent", "_since", "refused", "requests", "retries")

    def __init__(self, percent: float, clock: Callable[[], float]) -> None:
        self._percent = percent
        self._clock = clock
        self._since = clock()
        self._before = (0, 0)
        self.requests = 0
        self.retries = 0
        self.refused = 0

    def take(self, running: int) -> bool:
        """Whether one more retry may be made while ``running`` requests run; it is counted if so."""
        self._turn()
        requests, retries = max(running, self._before[0] + self.requests), self._before[1] + self.retries
        if retries >= max(_ALWAYS, requests * self._percent / 100):
            self.refused += 1
            return False
        self.retries += 1
        return True

    def helped(self) -> None:
        """A request that was retried has been answered."""
        if self.retries:
            self.retries -= 1
        elif self._before[1]:
            self._before = (self._before[0], self._before[1] - 1)

    def _turn(self) -> None:
        now = self._clock()
        passed = now - self._since
        if passed >= _WINDOW_S:
            # a bucket that nobody looked at for long says nothing of the last seconds
            share = _WINDOW_S / passed
            self._before = (int(self.requests * share), int(self.retries * share))
            self.requests = self.retries = 0
            self._since = now
