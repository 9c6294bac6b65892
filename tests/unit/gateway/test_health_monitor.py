from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from modelyard.catalog.loader import load_engines
from modelyard.errors import UpstreamBrokenError, UpstreamConnectError, UpstreamError, UpstreamTimeoutError
from modelyard.gateway.health.monitor import HealthMonitor
from modelyard.gateway.health.rules import HealthRules
from modelyard.gateway.replicas import HealthState, HealthView, LoadFigures, Replica, ReplicaPool
from modelyard.registry.load import load_text


class Engine:
    """Every engine at once, behind the probes; what it answers may be changed at any time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.live: int | Exception = 200
        self.ready: int | Exception = 200
        self.page: bytes | Exception = b""
        self.gate: asyncio.Event | None = None
        self.open = 0
        self.most_open = 0

    async def status_of(self, url: str, timeout_s: float) -> int:
        self.asked.append(url)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.open -= 1
        answer = self.live if url.endswith("/health") else self.ready
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def fetch(self, url: str, timeout_s: float, limit: int) -> tuple[int, bytes]:
        self.asked.append(url)
        if isinstance(self.page, Exception):
            raise self.page
        return 200, self.page


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., tuple[HealthMonitor, ReplicaPool, Engine, Clock]]


def registry(count: int) -> str:
    rows = ", ".join(f"{{id: r{n}, url: 'http://h{n}:1', engine: vllm}}" for n in range(count))
    return f"version: 1\nmodels: {{m: {{endpoints: [{rows}]}}}}"


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    monitors: list[HealthMonitor] = []

    def start(count: int = 1, **rules: float) -> tuple[HealthMonitor, ReplicaPool, Engine, Clock]:
        pool, engine, clock = ReplicaPool(load_engines()), Engine(), Clock()
        pool.apply(load_text(registry(count), "r"))
        chosen = HealthRules(**{"interval_s": 3600.0, **rules})  # type: ignore[arg-type]
        monitor = HealthMonitor(pool, engine, chosen, clock=clock, rng=random.Random(1))
        monitors.append(monitor)
        return monitor, pool, engine, clock

    yield start
    for monitor in monitors:
        await monitor.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("health")]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def first(pool: ReplicaPool) -> Replica:
    replica = pool.get("r0")
    assert replica is not None
    return replica


async def test_a_look_asks_the_live_the_ready_and_the_metrics_path(make: Make) -> None:
    monitor, pool, engine, _ = make()
    engine.page = b"vllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.5\n"
    monitor.follow()
    assert (await monitor.look_now(first(pool))).state is HealthState.READY
    assert engine.asked == ["http://h0:1/health", "http://h0:1/v1/models", "http://h0:1/metrics"]
    assert first(pool).load == LoadFigures(3.0, None, 0.5, 1000.0)


async def test_looks_survive_faults_of_ours(make: Make) -> None:
    monitor, pool, engine, _ = make(interval_s=0.001)
    engine.live = RuntimeError("a fault of ours")
    monitor.follow()
    await monitor.look_now(first(pool))
    engine.live = 200
    assert (await monitor.look_now(first(pool))).state is HealthState.READY


async def test_a_conductor_that_fails_is_started_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, pool, _, _ = make()
    whole = monitor._conduct
    failures = iter([RuntimeError("a fault of ours")])

    async def once_broken() -> None:
        for failure in failures:
            raise failure
        await whole()

    monkeypatch.setattr(monitor, "_conduct", once_broken)
    monkeypatch.setattr("modelyard.gateway.health.monitor._RESTART_AFTER_S", 0.0)
    monitor.follow()
    assert (await monitor.look_now(first(pool))).state is HealthState.READY
    assert "the health conductor failed" in caplog.text


async def test_a_look_that_has_begun_does_not_answer_a_later_question(make: Make) -> None:
    monitor, pool, engine, _ = make()
    engine.gate = asyncio.Event()
    monitor.follow()
    early = monitor.look_now(first(pool))
    await until(lambda: engine.open == 1)
    late = monitor.look_now(first(pool))
    engine.gate.set()
    await early
    assert not late.done()
    engine.live = UpstreamConnectError("connection refused")
    await late
    assert first(pool).health.failures == 1


async def test_nobody_waits_for_a_replica_that_is_gone(make: Make) -> None:
    monitor, pool, engine, _ = make()
    engine.gate = asyncio.Event()
    monitor.follow()
    replica = first(pool)
    waiting = monitor.look_now(replica)
    pool.apply(load_text("version: 1\nmodels: {m: {endpoints: []}}", "r"))
    monitor.follow()
    assert (await waiting).state is HealthState.UNKNOWN
    assert (await monitor.look_now(replica)).state is HealthState.UNKNOWN


async def test_a_refused_request_marks_and_brings_a_look(make: Make) -> None:
    monitor, pool, engine, _ = make()
    monitor.follow()
    await monitor.look_now(first(pool))
    asked = len(engine.asked)
    for _ in range(2):
        monitor.mark_unreachable(first(pool), "refused")
    assert first(pool).health.failures == 2
    await monitor.look_now(first(pool))
    assert len(engine.asked) == asked + 3
    assert first(pool).health.failures == 0


async def test_a_large_fleet_is_looked_at_in_measure(make: Make) -> None:
    monitor, pool, engine, _ = make(2000, most_per_s=1e9)
    engine.gate = asyncio.Event()
    monitor.follow()
    await until(lambda: engine.most_open >= 256)
    for _ in range(5):
        await asyncio.sleep(0)
    assert engine.most_open == 256
    engine.gate.set()
    await until(lambda: all(replica.health.probed_at is not None for replica in pool.everyone()))
    assert engine.most_open == 256
    assert monitor._interval_s() >= 3600 * 0.8


async def test_the_rhythm_slows_down_with_the_size_of_the_fleet(make: Make) -> None:
    monitor, _, _, _ = make(100, interval_s=1.0, most_per_s=10.0)
    monitor.follow()
    assert 8 <= monitor._interval_s() <= 12


async def test_the_oldest_look_tells_whether_looks_go_on(make: Make) -> None:
    monitor, pool, _, clock = make(2)
    assert monitor.oldest_look_s() == 0.0
    monitor.follow()
    await asyncio.gather(*[monitor.look_now(replica) for replica in pool.everyone()])
    clock.now += 50
    await monitor.look_now(first(pool))
    assert monitor.oldest_look_s() == 50.0


async def look(monitor: HealthMonitor, pool: ReplicaPool, clock: Clock, after_s: float = 0.0) -> HealthView:
    clock.now += after_s
    return await monitor.look_now(first(pool))


STUCK = b"vllm:num_requests_running 1\nvllm:iteration_tokens_total_count 10\n"


@pytest.mark.parametrize("eject", [False, True])
async def test_an_engine_that_stands_still_with_work_is_hung_until_it_moves(
    make: Make, eject: bool, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, pool, engine, clock = make(eject_hung=eject)
    told: list[tuple[bool, bool]] = []
    monitor.listen(
        lambda _, before, after: told.append((before.hung_since is None, after.hung_since is None))
    )
    engine.page = STUCK
    monitor.follow()
    views = [await look(monitor, pool, clock, 60.0) for _ in range(4)]
    assert [view.hung_since is not None for view in views] == [False, False, False, True]
    assert views[-1].ejected is eject
    assert views[-1].state is HealthState.READY
    assert "is hung" in caplog.text
    engine.page = STUCK.replace(b"10", b"11")
    assert (await look(monitor, pool, clock, 5.0)).hung_since is None
    assert told[1:] == [(True, False), (False, True)]
    assert (first(pool).came_back_at is not None) is eject


async def test_without_a_counter_or_with_zero_seconds_nobody_is_judged(make: Make) -> None:
    for page, rules in ((b"vllm:num_requests_running 1\n", {}), (STUCK, {"hung_after_s": 0.0})):
        monitor, pool, engine, clock = make(**rules)
        engine.page = page
        monitor.follow()
        assert all([(await look(monitor, pool, clock, 600.0)).hung_since is None for _ in range(6)])


async def test_bytes_that_we_relay_are_progress(make: Make) -> None:
    monitor, pool, engine, clock = make()
    engine.page = STUCK
    monitor.follow()
    for _ in range(6):
        first(pool).heard += 1
        assert (await look(monitor, pool, clock, 100.0)).hung_since is None


async def test_what_was_out_of_sight_is_not_judged_for_that_time(make: Make) -> None:
    monitor, pool, engine, clock = make()
    engine.page = STUCK
    monitor.follow()
    for _ in range(3):
        await look(monitor, pool, clock, 59.0)
    engine.page = UpstreamBrokenError("cut")
    await look(monitor, pool, clock, 59.0)
    engine.page = STUCK
    assert (await look(monitor, pool, clock, 59.0)).hung_since is None


async def test_a_restarted_engine_is_no_longer_hung(make: Make) -> None:
    monitor, pool, engine, clock = make(eject_hung=True)
    engine.page = STUCK
    monitor.follow()
    for _ in range(4):
        await look(monitor, pool, clock, 60.0)
    engine.live = UpstreamConnectError("connection refused")
    for _ in range(3):
        view = await look(monitor, pool, clock, 5.0)
    assert (view.state, view.hung_since is not None) == (HealthState.FAILING, True)
    engine.live, engine.page = 200, b"vllm:num_requests_running 0\nvllm:iteration_tokens_total_count 0\n"
    for _ in range(2):
        view = await look(monitor, pool, clock, 5.0)
    assert (view.state, view.hung_since) == (HealthState.READY, None)
    assert first(pool).came_back_at == clock.now


async def test_old_figures_are_forgotten_when_no_new_ones_come(make: Make) -> None:
    monitor, pool, engine, clock = make(interval_s=5.0, hung_after_s=0.0)
    engine.page = b"vllm:num_requests_waiting 2\n"
    monitor.follow()
    await look(monitor, pool, clock)
    engine.page = UpstreamTimeoutError("late")
    await look(monitor, pool, clock, 5.0)
    assert first(pool).load == LoadFigures(None, 2.0, None, 1000.0)
    await look(monitor, pool, clock, 15.0)
    assert first(pool).load is None


async def test_a_long_queue_makes_a_replica_busy(make: Make) -> None:
    monitor, pool, engine, clock = make(busy_waiting=5)
    engine.page = b"vllm:num_requests_waiting 5\n"
    monitor.follow()
    await look(monitor, pool, clock)
    assert (await look(monitor, pool, clock)).state is HealthState.BUSY
    engine.page = b"vllm:num_requests_waiting 4\n"
    await look(monitor, pool, clock)
    assert (await look(monitor, pool, clock)).state is HealthState.READY


@pytest.mark.parametrize("error", [UpstreamTimeoutError("late"), UpstreamConnectError("late", status=504)])
async def test_a_late_probe_is_no_failure_while_answers_flow(make: Make, error: UpstreamError) -> None:
    monitor, pool, engine, clock = make()
    monitor.follow()
    await look(monitor, pool, clock)
    replica = first(pool)

    async def late(url: str, timeout_s: float) -> int:
        replica.heard += 1
        raise error

    engine.status_of = late  # type: ignore[method-assign]
    for _ in range(5):
        view = await look(monitor, pool, clock)
    assert (view.state, view.failures) == (HealthState.BUSY, 0)
    assert replica.came_back_at is None


async def test_a_replica_that_returns_says_when(make: Make) -> None:
    monitor, pool, engine, clock = make()
    monitor.follow()
    await look(monitor, pool, clock)
    assert first(pool).came_back_at is None
    engine.live = UpstreamConnectError("connection refused")
    for _ in range(3):
        await look(monitor, pool, clock)
    engine.live = 200
    for _ in range(2):
        await look(monitor, pool, clock, 7.0)
    assert first(pool).came_back_at == clock.now


async def test_a_refusal_for_fullness_makes_a_ready_one_busy_until_the_next_look(make: Make) -> None:
    monitor, pool, _, clock = make()
    monitor.mark_busy(first(pool), "it answered 429")
    assert first(pool).health.state is HealthState.UNKNOWN
    monitor.follow()
    await look(monitor, pool, clock)
    monitor.mark_busy(first(pool), "it answered 429")
    assert first(pool).health.state is HealthState.BUSY
    assert (await look(monitor, pool, clock)).state is HealthState.READY


async def test_a_listener_that_fails_stops_neither_looks_nor_others(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    monitor, pool, _, clock = make()
    told: list[Replica] = []

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of theirs")

    monitor.listen(broken)
    monitor.listen(lambda replica, *_: told.append(replica))
    monitor.follow()
    assert (await look(monitor, pool, clock)).state is HealthState.READY
    assert told == [first(pool)]
    assert "a listener failed" in caplog.text


async def test_draining_is_told_once_and_undraining_is_a_return(make: Make) -> None:
    monitor, pool, _, clock = make()
    told: list[Replica] = []
    monitor.listen(lambda replica, *_: told.append(replica))
    for _ in range(2):
        monitor.set_drained([first(pool)], True)
    assert (len(told), first(pool).drained, first(pool).came_back_at) == (1, True, None)
    monitor.set_drained([first(pool)], False)
    assert (len(told), first(pool).drained, first(pool).came_back_at) == (2, False, clock.now)


async def test_what_the_registry_takes_back_is_told_like_an_undrain(make: Make) -> None:
    monitor, pool, _, clock = make()
    told: list[Replica] = []
    monitor.follow()
    await look(monitor, pool, clock)
    monitor.listen(lambda replica, *_: told.append(replica))
    draining = registry(1).replace("engine: vllm", "engine: vllm, state: draining")
    for text, calls in ((draining, 1), (draining, 1), (registry(1), 2), (registry(1), 2)):
        pool.apply(load_text(text, "r"))
        monitor.follow()
        assert len(told) == calls
        assert first(pool).came_back_at == (clock.now if calls == 2 else None)


async def test_a_large_change_is_followed_in_many_turns_and_to_its_end(make: Make) -> None:
    monitor, pool, engine, _ = make(3000, most_per_s=1e6)
    monitor.follow()
    asked_at_once = len(engine.asked)
    turns: list[int] = []

    async def beside() -> None:
        while len(engine.asked) < 9000:
            turns.append(len(engine.asked))
            await asyncio.sleep(0)

    await asyncio.wait_for(beside(), 60)
    assert asked_at_once == 0
    assert len(turns) > 30
    assert all(replica.health.state is HealthState.READY for replica in pool.everyone())

    # all but one go, and a change that comes before the last one is followed does not lose anything
    monitor.listen(lambda replica, _, __: told.append(replica.id))
    told: list[str] = []
    pool.apply(load_text(registry(3000).replace("http://h", "http://g"), "r"))
    monitor.follow()
    pool.apply(load_text(registry(2000).replace("http://h", "http://g"), "r"))
    monitor.follow()
    await until(lambda: len(set(told)) == 2000)
    assert all(replica.health.state is HealthState.READY for replica in pool.everyone())
    assert len(pool) == 2000
