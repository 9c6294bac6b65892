"""Pace and places: when each token is due, and how many requests may generate at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from modelyard.engines.echo.metrics import EchoMetrics

T = TypeVar("T")

_BREATH = 64  # tokens generated without a pause before other requests get their turn


class OverloadedError(Exception):
    """Every place is taken and the request would not wait."""


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """How the engine behaves.

    ``models``: served names, the first one is the model's id. ``ttft_s``: seconds until the first token.
    ``token_rate``: tokens per second and request, 0 for as fast as possible. ``max_concurrency``: requests
    that generate at once, 0 for no limit. ``max_model_len``: prompt and answer together, in tokens.
    ``like``: whose routes it has: ``vllm``, ``tgi`` or ``all``.
    ``instance``: what the header ``x-echo-instance`` says. ``created``: Unix time for the model list.
    """

    models: tuple[str, ...]
    instance: str
    ttft_s: float = 0.0
    token_rate: float = 0.0
    max_concurrency: int = 0
    max_model_len: int = 32_768
    created: int = 0
    like: str = "all"


class Runtime:
    """The mutable side of one engine: its places, and its pace measured with an injected clock.

    ``clock`` gives monotonic seconds, ``sleep`` waits for some.
    """

    def __init__(
        self,
        settings: EchoSettings,
        metrics: EchoMetrics,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.clock = clock
        self._sleep = sleep
        self._places = asyncio.Semaphore(settings.max_concurrency) if settings.max_concurrency else None

    @asynccontextmanager
    async def place(self, *, wait: bool) -> AsyncIterator[float]:
        """Hold one place; gives the seconds spent in the queue.

        Raises OverloadedError at once when all are taken and ``wait`` is false. A client that leaves inside
        is counted as cancelled, queue included.
        """
        asked = self.clock()
        try:
            await self._enter(wait)
            self.metrics.running.inc()
            try:
                yield self.clock() - asked
            finally:
                self.metrics.running.dec()
                if self._places is not None:
                    self._places.release()
        except (asyncio.CancelledError, ConnectionResetError):
            self.metrics.cancelled.inc()
            raise
        self.metrics.served.inc()

    async def _enter(self, wait: bool) -> None:
        if self._places is None:
            return
        if not wait and self._places.locked():
            self.metrics.refused.inc()
            raise OverloadedError
        self.metrics.waiting.inc()
        try:
            await self._places.acquire()
        finally:
            self.metrics.waiting.dec()

    async def paced(self, steps: Iterable[T]) -> AsyncIterator[T]:
        """Yield each step when it is due: the first after the time to first token, then at the token rate.

        Due times count from the start, so small delays of the event loop do not add up.
        """
        start = self.clock() + self.settings.ttft_s
        interval = 1 / self.settings.token_rate if self.settings.token_rate else 0.0
        for number, step in enumerate(steps):
            late = self.clock() - (start + number * interval)
            if late < 0:
                await self._sleep(-late)
            elif number % _BREATH == _BREATH - 1:
                await self._sleep(0)
            yield step
