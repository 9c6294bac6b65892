"""Whether an engine that has work gets on with it.

An engine's web server answers probes while the part that generates is stuck, for hours if nobody looks. What
tells is a counter that grows with each step: work is there, and the counter stands still.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# the clock may jump and the loop may be held up: time alone convicts nobody
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at an engine's work.

    ``counter`` is the engine's own count of steps; ``running`` and ``waiting`` are its requests, ``None``
    where it does not say; ``owed`` are requests of ours whose answer has not begun (those that have may wait
    for a slow reader); ``heard`` grows with each piece of an answer that came to us.
    """

    counter: float
    running: float | None
    waiting: float | None
    owed: int
    heard: int

    @property
    def works(self) -> bool:
        """Whether there is anything to get on with."""
        return bool(self.running or self.waiting or self.owed)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the samples have shown. Times are seconds since the epoch.

    ``still_since`` is the first look at work of the present standstill (``None`` without work), ``looks`` how
    many followed it, ``hung_since`` when it was found hung, ``idle_since`` since when a hung one has had
    nothing to do.
    """

    counter: float
    heard: int
    still_since: float | None
    looks: int = 0
    hung_since: float | None = None
    idle_since: float | None = None


def next_progress(before: Progress | None, sample: Sample, hung_after_s: float, now: float) -> Progress:
    """The judgement after one more sample.

    Hung is what has had work in each of at least three looks over ``hung_after_s`` while neither its counter
    nor our own relayed bytes moved. Any movement clears it, a counter that fell (a restart) as well. One that
    merely ran out of work has proved nothing: it is cleared after ``hung_after_s`` of that.
    """
    fresh = Progress(sample.counter, sample.heard, now if sample.works else None)
    if before is None or sample.counter != before.counter or sample.heard != before.heard:
        return fresh
    if not sample.works:
        if before.hung_since is None:
            return fresh
        idle_since = now if before.idle_since is None else before.idle_since
        return fresh if now - idle_since >= hung_after_s else replace(before, idle_since=idle_since)
    if before.still_since is None:
        return fresh
    looks = before.looks + 1
    stuck = looks >= _LOOKS and now - before.still_since >= hung_after_s
    hung_since = now if stuck and before.hung_since is None else before.hung_since
    return replace(before, looks=looks, hung_since=hung_since, idle_since=None)
