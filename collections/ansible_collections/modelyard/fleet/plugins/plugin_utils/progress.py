"""Plain lines while something is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from ansible.utils.display import Display

EVERY_S = 10.0
"""Seconds after which the same thing is said again."""


class Progress:
    """Lines about one subject: at once when they are new, again when nothing has changed for a while."""

    def __init__(
        self,
        subject: str,
        show: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subject = subject
        self._show = show or Display().display
        self._clock = clock
        self._begun = self._last = clock()
        self._said = ""

    def tell(self, what: str, *, kind: str | None = None) -> None:
        """Say ``what``, unless it (or another of its ``kind``) was said within the last seconds."""
        now = self._clock()
        key = kind or what
        if key == self._said and now - self._last < EVERY_S:
            return
        self._said, self._last = key, now
        self._show(f"  {self._subject}: {what} ({now - self._begun:.0f} s)")

    def warn(self, what: str) -> None:
        """Say ``what`` in any case, so that it is seen."""
        Display().warning(f"{self._subject}: {what}")
