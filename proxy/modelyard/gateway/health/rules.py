"""What one look at a replica changes: pure decisions with hysteresis."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from modelyard.errors import UpstreamError, UpstreamTimeoutError

from ..replicas import HealthState, HealthView, with_state

_UNAUTHORISED = frozenset({401, 403})
_FULL = 429
_TIMED_OUT = 504
_IN_SERVICE = frozenset({HealthState.READY, HealthState.BUSY})


class Finding(enum.Enum):
    """What one look at a replica showed."""

    READY = "ready"
    BUSY = "busy"
    """It lives, and is too full to be asked first."""
    LATE = "late"
    """It takes connections and answers nothing in time: full, stopped or stuck."""
    NOT_READY = "not ready"
    UNAUTHORISED = "unauthorised"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """How often to look and how much it takes to change one's mind. Times in seconds.

    ``most_per_s`` bounds the looks of the whole fleet: a large one is looked at less often. ``hung_after_s``
    0 judges no progress, ``busy_waiting`` 0 no queue.
    """

    interval_s: float = 5.0
    timeout_s: float = 10.0
    failures: int = 3
    successes: int = 2
    hung_after_s: float = 120.0
    eject_hung: bool = False
    busy_waiting: int = 0
    most_per_s: float = 200.0


def next_health(
    view: HealthView, finding: Finding, reason: str, rules: HealthRules, now: float
) -> HealthView:
    """The health after one finding.

    The first finding about an unknown replica counts at once; one in service leaves only after
    ``rules.failures`` bad ones in a row, a failing one returns only after ``rules.successes`` good ones in a
    row. Any other is in service with its first success: it has shown no fault to recover from. One in
    service that is late is busy meanwhile, for others are the better choice.
    """
    if finding in (Finding.READY, Finding.BUSY):
        target = HealthState.READY if finding is Finding.READY else HealthState.BUSY
        seen = replace(
            view, successes=view.successes + 1, failures=0, reason=reason or "answers", probed_at=now
        )
        patient = view.state is HealthState.FAILING and seen.successes < rules.successes
        return seen if patient else with_state(seen, target, now)
    seen = replace(view, successes=0, failures=view.failures + 1, reason=reason, probed_at=now)
    if view.state in _IN_SERVICE and seen.failures < rules.failures:
        return with_state(seen, HealthState.BUSY, now) if finding is Finding.LATE else seen
    if finding is Finding.NOT_READY:
        return with_state(seen, HealthState.STARTING, now)
    if finding is Finding.UNAUTHORISED:
        return with_state(seen, HealthState.UNAUTHORISED, now)
    return with_state(seen, HealthState.FAILING, now)


def of_status(path: str, status: int, otherwise: Finding) -> tuple[Finding, str] | None:
    """What a probe's bad status means, with the reason; ``None`` for a good one. ``otherwise`` is the
    finding for a status that has no meaning of its own.
    """
    if 200 <= status < 300:
        return None
    if status in _UNAUTHORISED:
        return Finding.UNAUTHORISED, f"{path} answers {status}: wrong or missing key"
    if status == _FULL:
        return Finding.BUSY, f"{path} answers {status}: it is full"
    return otherwise, f"{path} answers {status}"


def of_error(error: UpstreamError, *, heard: bool) -> tuple[Finding, str]:
    """What a probe without an answer means; ``heard``: bytes of answers came from the replica meanwhile."""
    if heard and error.status == _TIMED_OUT:
        return Finding.BUSY, "too busy for probes, its answers flow"
    if isinstance(error, UpstreamTimeoutError):
        return Finding.LATE, error.message
    return Finding.DOWN, error.message


def in_service(view: HealthView) -> bool:
    """Whether the replica was seen alive and is not taken out for hanging."""
    return view.state in _IN_SERVICE and not (view.ejected and view.hung_since is not None)
