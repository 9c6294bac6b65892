"""Deadlines without a timer for each request: one coarse look over everything that is open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# A deadline may be noticed this much late, which no deadline of a model server is fine enough to mind.
TICK_S = 0.1


class Watched(Protocol):
    """Something with deadlines."""

    def check(self, now: float) -> None:
        """Act on what is due at the loop time ``now``. May add and remove what is watched."""


class Sweeper:
    """Checks what it watches every ``tick_s`` seconds, and sleeps while there is nothing.

    A look that comes late is put off once: the process stood still, and what has arrived meanwhile has not
    been read yet.
    """

    __slots__ = ("_due", "_handle", "_late", "_loop", "_tick_s", "_watched", "discard")

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float = TICK_S) -> None:
        self._loop = loop
        self._tick_s = tick_s
        self._watched: set[Watched] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._late = False
        # the set's own method: this is called for every request
        self.discard: Callable[[Watched], None] = self._watched.discard

    def watch(self, item: Watched) -> None:
        """Check ``item`` from now on."""
        self._watched.add(item)
        if self._handle is None:
            # asked here as well, which spares a call for nearly every request
            self._again()

    def close(self) -> None:
        """Check nothing any more."""
        self._watched.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def __len__(self) -> int:
        return len(self._watched)

    def _again(self) -> None:
        if self._handle is not None:
            return
        self._due = self._loop.time() + self._tick_s
        self._handle = self._loop.call_at(self._due, self._sweep)

    def _sweep(self) -> None:
        self._handle = None
        now = self._loop.time()
        self._late = not self._late and now - self._due > self._tick_s
        try:
            if not self._late:
                for item in list(self._watched):
                    # one may have ended another
                    if item in self._watched:
                        item.check(now)
        finally:
            if self._watched:
                self._again()
