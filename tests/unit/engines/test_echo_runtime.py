from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from modelyard.engines.echo.metrics import EchoMetrics
from modelyard.engines.echo.runtime import EchoSettings, OverloadedError, Runtime


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


def make(**settings: float) -> tuple[Runtime, FakeTime, CollectorRegistry]:
    registry, time = CollectorRegistry(), FakeTime()
    chosen = EchoSettings(models=("m",), instance="i", **settings)  # type: ignore[arg-type]
    return Runtime(chosen, EchoMetrics(registry), time.clock, time.sleep), time, registry


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(f"modelyard_echo_{name}")


async def one_waits(registry: CollectorRegistry) -> None:
    for _ in range(100):
        if value(registry, "requests_waiting") == 1:
            return
        await asyncio.sleep(0)
    pytest.fail("nobody waits")


async def test_the_first_token_waits_and_the_rest_follow_at_the_rate() -> None:
    runtime, time, _ = make(ttft_s=2.0, token_rate=4.0)
    assert [time.now async for _ in runtime.paced(range(4))] == [102.0, 102.25, 102.5, 102.75]


async def test_a_late_reader_is_not_delayed_further() -> None:
    runtime, time, _ = make(token_rate=1.0)
    seen = []
    async for number in runtime.paced(range(4)):
        seen.append(time.now)
        if number == 0:
            time.now += 2.5
    assert seen == [100.0, 102.5, 102.5, 103.0]


async def test_a_full_engine_refuses_or_lets_wait_and_counts_both() -> None:
    runtime, _, registry = make(max_concurrency=1)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with runtime.place(wait=True):
            inside.set()
            await leave.wait()

    first = asyncio.create_task(hold())
    await inside.wait()
    with pytest.raises(OverloadedError):
        async with runtime.place(wait=False):
            pytest.fail("there was no place")
    second = asyncio.create_task(hold())
    await one_waits(registry)
    assert value(registry, "requests_running") == 1
    leave.set()
    await asyncio.gather(first, second)
    assert value(registry, "requests_waiting") == value(registry, "requests_running") == 0
    assert value(registry, "requests_served_total") == 2
    assert value(registry, "requests_refused_total") == 1


@pytest.mark.parametrize("queued", [False, True])
async def test_a_client_that_leaves_gives_its_place_back(queued: bool) -> None:
    runtime, _, registry = make(max_concurrency=1)

    async def hold() -> None:
        async with runtime.place(wait=True):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold()) for _ in range(2)]
    await one_waits(registry)
    for task in tasks[::-1] if queued else tasks:
        task.cancel()
    assert [type(end) for end in await asyncio.gather(*tasks, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    assert value(registry, "requests_cancelled_total") == 2
    async with runtime.place(wait=False):
        assert value(registry, "requests_running") == 1
