"""How far apart two clocks are, by one call from one machine to the other. Pure."""

from __future__ import annotations


def offset(before: float, after: float, began: float, ended: float) -> dict[str, float]:
    """``offset_s``, by how much the other clock is ahead, and ``within_s``, how far the truth may be from that.

    The caller's clock stood at ``before`` and ``after`` around the call, the other one at ``began`` and ``ended``
    within it. The caller's time of ``ended`` lies between ``before`` plus what the other side took, and ``after``.
    """
    ahead_at_most = began - before
    ahead_at_least = ended - after
    middle = (ahead_at_most + ahead_at_least) / 2
    return {"offset_s": round(middle, 3), "within_s": round(abs(ahead_at_most - ahead_at_least) / 2, 3)}
