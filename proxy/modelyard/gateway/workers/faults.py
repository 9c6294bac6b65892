"""What requests find out about replicas and about one another, told from worker to worker: open breakers, and
requests that end their engines.

Looked for a few times a second among the replicas that had requests, so that no request pays for it. The steady
clock is one for all processes of a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..breaker import Breaker, BreakerState
from ..pursuits import Pursuits
from ..replicas import Replica
from ..suspects import Case, Suspects

_BREAKER, _CASE = "breaker", "case"


class SharedFaults:
    """One worker's part in it. ``find`` gives a replica by its id."""

    def __init__(
        self,
        pursuits: Pursuits,
        find: Callable[[str], Replica | None],
        tell: Callable[[str, Any], None],
        listen: Callable[[str, Callable[[Any], None]], None],
    ) -> None:
        self._pursuits = pursuits
        self._find = find
        self._tell = tell
        self._breakers: dict[str, tuple[bool, float]] = {}
        self._cases: dict[str, tuple[int, bool]] = {}
        listen(_BREAKER, self._hear_breaker)
        listen(_CASE, self._hear_case)

    def look(self, touched: Iterable[Replica]) -> None:
        """Tell what is new: of ``touched``, the replicas that had requests since the last look, and of cases."""
        for replica in touched:
            if replica.removed:
                self._breakers.pop(replica.id, None)
                continue
            now = _shown(replica.breaker)
            if now is not None and now != self._breakers.get(replica.id, (False, 0.0)):
                self._breakers[replica.id] = now
                breaker = replica.breaker
                self._tell(_BREAKER, [replica.id, *now, breaker.opened, breaker.failures])
        suspects = self._pursuits.suspects
        if not suspects.watching:
            self._cases.clear()
            return
        for mark, case in suspects.all().items():
            if self._cases.get(mark) != (case.deaths, case.condemned):
                self._cases[mark] = (case.deaths, case.condemned)
                self._tell(
                    _CASE,
                    [mark, case.model, case.deaths, case.replicas, case.since, case.until, case.condemned],
                )

    def _hear_breaker(self, fact: list[Any]) -> None:
        name, is_open, until, opened, failures = fact
        replica = self._find(name)
        if replica is None:
            return
        breaker = replica.breaker
        breaker.state = BreakerState.OPEN if is_open else BreakerState.CLOSED
        breaker.until, breaker.opened, breaker.failures = until, opened, failures
        breaker.trial = False
        self._breakers[name] = (is_open, until)
        self._pursuits.changed(replica)

    def _hear_case(self, fact: list[Any]) -> None:
        mark, model, deaths, replicas, since, until, condemned = fact
        if until <= self._pursuits.steady():
            # a worker that begins later hears what is long over, too
            return
        self._cases[mark] = (deaths, condemned)
        _merge(self._pursuits.suspects, mark, Case(model, deaths, replicas, since, until, condemned))


def _shown(breaker: Breaker) -> tuple[bool, float] | None:
    """What others are told of a breaker; ``None`` while its trial is open."""
    if breaker.state is BreakerState.HALF_OPEN:
        return None
    is_open = breaker.state is BreakerState.OPEN
    return is_open, breaker.until if is_open else 0.0


def _merge(suspects: Suspects, mark: str, heard: Case) -> None:
    known = suspects.case(mark)
    if known is None:
        known = suspects.died(mark, heard.model, heard.replicas[-1] if heard.replicas else "")
        known.until = heard.until
    known.deaths = max(known.deaths, heard.deaths)
    known.replicas = list(dict.fromkeys([*heard.replicas, *known.replicas]))[-10:]
    known.since, known.until = min(known.since, heard.since), max(known.until, heard.until)
    known.condemned = known.condemned or heard.condemned
