"""The replicas that were lost under one request, and what looking at them has shown."""

from __future__ import annotations

import asyncio

from .replicas import HealthView, Replica

# a request whose replica died under it twice is not sent to a third one
MOST_DEATHS = 2
_VERDICT_S = 15.0
# a replica that died refuses a look at once
_DOUBT_S = 1.0


class Losses:
    """``before``: how many replicas the like of this request had ended when it came. ``alone``: it was the only
    suspect on the last one. ``doubt``: the look at a replica that did not answer in time;
    ``silent``: those of which nobody knows why. ``stuck``: those that said nothing at all from the moment on at
    which they got this request, which was a suspect already; they count beside one that has died.
    """

    __slots__ = ("_looks", "alone", "before", "doubt", "silent", "stuck")

    def __init__(self, before: int = 0) -> None:
        self.before = before
        self.alone = False
        self.doubt: asyncio.Future[HealthView] | None = None
        self.silent: list[Replica] = []
        self.stuck = 0
        self._looks: list[asyncio.Future[HealthView]] = []

    def __len__(self) -> int:
        return len(self._looks)

    def add(self, look: asyncio.Future[HealthView]) -> None:
        """One more was lost; ``look`` will tell whether it died."""
        self._looks.append(look)

    @property
    def doubtful(self) -> bool:
        """Whether it has to be found out why a replica was silent."""
        return self.doubt is not None and not self.doubt.done()

    def was_dead(self) -> bool:
        """Whether the one that was silent had died; asked once."""
        doubt, self.doubt = self.doubt, None
        return doubt is not None and not doubt.cancelled() and doubt.result().failures > 0

    def note_silence(self, replica: Replica, heard: int) -> None:
        """``replica`` did not answer this suspect, which it got when it had ``heard`` so many pieces.

        If it has said nothing to anybody since, and nobody came before, it is this request's doing.
        """
        if replica.heard == heard and replica.explained != heard:
            replica.explained = heard
            self.stuck += 1
            self.alone = True

    def deaths(self) -> int | None:
        """How many have died under this request and its like; ``None`` while that has to be found out."""
        looks = self._looks
        if self.before + len(looks) + self.stuck < MOST_DEATHS:
            return 0
        if not all(look.done() for look in looks):
            return None
        died = self.before + sum(not look.cancelled() and look.result().failures > 0 for look in looks)
        return died + self.stuck if died else 0

    async def judged(self) -> None:
        """Wait for the looks. Whoever is silent to them as well may be stuck or full: nobody knows, and the
        request has the benefit of the doubt.
        """
        if self.doubt is not None:
            await asyncio.wait([self.doubt], timeout=_DOUBT_S)
            self.doubt.cancel()
            return
        await asyncio.wait(self._looks, timeout=_VERDICT_S)
        for look in self._looks:
            if not look.done():
                look.cancel()
