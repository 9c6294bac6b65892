"""What an attempt's outcome means: for the request, and for the replica it was made on. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable

from modelyard.errors import (
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamError,
)

# A replica that answers one of these did not do the work; any other answer is an answer.
_TRY_ELSEWHERE = frozenset({502, 503, 504})
_TOO_MANY = 429
FAILED = 500


class Blame(enum.Enum):
    """What a failed attempt says of its replica."""

    FAULT = "fault"
    """It failed; its breaker counts that."""
    BUSY = "busy"
    """It is alive and has no room: others come first for a while."""
    NONE = "none"
    """Nothing: the client's time was over."""


def blame_for(error: UpstreamError) -> Blame:
    """What ``error`` says of the replica that it came from."""
    if error.code == "deadline_exceeded":
        return Blame.NONE
    if isinstance(error, UpstreamBusyError) and (
        error.status == _TOO_MANY or error.retry_after_s is not None
    ):
        return Blame.BUSY
    return Blame.FAULT


def refused_head(status: int, retry_after: str, elsewhere: Callable[[], bool]) -> UpstreamError | None:
    """Why an answer with this status and ``Retry-After`` does not count as one; ``None`` when it does.

    ``elsewhere`` tells whether another replica may be asked: only then a 429 is not the answer. A 500 is left
    to ``Pursuit.is_dying``.
    """
    if status in _TRY_ELSEWHERE or (status == _TOO_MANY and elsewhere()):
        return UpstreamBusyError(
            f"it answered {status}", status=status, retry_after_s=_retry_after(retry_after)
        )
    if not 200 <= status < 600:
        # 101 would make a tunnel of the connection; the rest are no statuses
        return UpstreamBrokenError(f"it answered with the status {status}, which answers nothing")
    if 300 <= status < 400:
        # never followed (it could lead anywhere) and never passed on (it tells inner addresses)
        return UpstreamError(f"it answered with a redirect ({status})", code="upstream_redirect")
    return None


def gave_up(last: UpstreamError, model: str, replica: str, attempts: int, more: str = "") -> UpstreamError:
    """``last``, which the last replica of ``attempts`` gave, in words for the client; ``more`` says why no other
    one is tried.
    """
    tried = "1 replica was" if attempts == 1 else f"{attempts} replicas were"
    return type(last)(
        f"{tried} tried for model {model!r}; {replica}: {last.message}{more}; try again shortly",
        code=last.code,
        status=last.status,
        retry_after_s=last.retry_after_s,
    )


def _retry_after(text: str) -> int | None:
    return min(int(text), 3600) if text.isdecimal() and len(text) < 8 else None
