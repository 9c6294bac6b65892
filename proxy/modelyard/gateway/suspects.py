"""Requests that end their engines: found out, and refused before they take the fleet down.

A request whose replica dies under it is a *suspect*. All requests of that replica are, and most are innocent,
so each is tried once more; but apart from one another: a suspect gets a replica that no other suspect is on,
until its answer has begun or it has run there for a while. If that replica dies as well, the suspect alone on
it is to blame: it is not sent to a third one, and its like is refused for some time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# what differs between two sendings of the same request, and does nothing to an engine
_IDLE = frozenset(
    {"model", "user", "stream", "stream_options", "request_id", "metadata", "session_id", "safety_identifier"}
)
# a request that ends its engine does so within its first steps; on a busy machine that takes a while
CONFINED_S = 15.0
# an answer that broke sooner than this after it was asked for broke early
EARLY_S = 3.0
# losses of one replica within this time are one death, however many like requests it had
_ONE_DEATH_S = 3.0
_MOST = 1000


@dataclass(slots=True)
class Case:
    """What is known of all requests with one fingerprint. Times are those of the steady clock.

    ``deaths`` counts replicas that died, not requests: many with one body may be lost with one replica.
    """

    model: str
    deaths: int
    replicas: list[str]
    since: float
    until: float
    condemned: bool = False
    refused: int = 0
    died_at: float = 0.0


def fingerprint(model: str, route: str, document: Mapping[str, Any]) -> str:
    """The same for two requests that would do the same to an engine; ``document`` is the body."""
    digest = hashlib.blake2b(f"{model}\0{route}\0".encode(), digest_size=12)
    for key in sorted(document):
        if key not in _IDLE:
            digest.update(f"{key}\0{document[key]!r}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


class Suspects:
    """The cases of one proxy; ``steady`` gives seconds and never goes back. ``hold_s``: how long a condemned
    request is refused, and a suspected one remembered; 0 switches it all off.
    """

    def __init__(self, steady: Callable[[], float], hold_s: float) -> None:
        self._steady = steady
        self._hold_s = hold_s
        self._cases: dict[str, Case] = {}

    @property
    def watching(self) -> bool:
        """Whether there is any case, so that fingerprints have to be taken."""
        return bool(self._cases)

    @property
    def enabled(self) -> bool:
        """Whether requests are held to account at all."""
        return self._hold_s > 0

    def case(self, mark: str) -> Case | None:
        """The case of a fingerprint, where there is one that still holds."""
        case = self._cases.get(mark)
        if case is not None and case.until <= self._steady():
            del self._cases[mark]
            return None
        return case

    def died(self, mark: str, model: str, replica: str) -> Case:
        """A replica has died under a request with this fingerprint."""
        now = self._steady()
        case = self.case(mark)
        if case is None:
            self._make_room(now)
            case = self._cases[mark] = Case(model, 0, [], now, now)
        if not case.replicas or case.replicas[-1] != replica or now - case.died_at > _ONE_DEATH_S:
            case.deaths += 1
            case.replicas = [*case.replicas, replica][-10:]
            case.died_at = now
        case.until = now + self._hold_s
        return case

    def condemn(self, mark: str) -> None:
        """The request is to blame."""
        case = self._cases.get(mark)
        if case is not None:
            case.condemned = True
            case.until = self._steady() + self._hold_s

    def cleared(self, mark: str) -> None:
        """The request was answered: it harms nobody."""
        case = self._cases.get(mark)
        if case is not None and not case.condemned:
            del self._cases[mark]

    def all(self) -> dict[str, Case]:
        """Every case that still holds."""
        return {mark: case for mark in list(self._cases) if (case := self.case(mark)) is not None}

    def _make_room(self, now: float) -> None:
        if len(self._cases) < _MOST:
            return
        self._cases = {mark: case for mark, case in self._cases.items() if case.until > now}
        while len(self._cases) >= _MOST:
            # the oldest suspicion goes first, a condemned one last
            mark = min(self._cases, key=lambda each: (self._cases[each].condemned, self._cases[each].until))
            del self._cases[mark]
