from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelyard.gateway.metrics import Metrics


class Slow(Collector):
    """Collects only once it is let go; notes how many collect at the same time."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.began = threading.Event()
        self.now = 0
        self.most = 0

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        self.now += 1
        self.most = max(self.most, self.now)
        self.began.set()
        assert self.gate.wait(30)
        self.now -= 1
        yield GaugeMetricFamily("one", "One.", value=1)


async def test_the_loop_goes_on_while_a_page_is_made_and_pages_are_made_one_at_a_time() -> None:
    slow = Slow()
    metrics = Metrics(slow)
    pages = [asyncio.create_task(metrics.page(name)) for name in (None, None, "m")]
    async with asyncio.timeout(30):
        while not slow.began.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        slow.gate.set()
        first, second, of_model = await asyncio.gather(*pages)
    assert first == second
    assert b"one 1.0" in first
    assert of_model == b""
    assert slow.most == 1
