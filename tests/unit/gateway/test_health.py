from __future__ import annotations

import asyncio
import random
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog.loader import load_engines
from modelyard.errors import UpstreamConnectError
from modelyard.gateway.health import Finding, HealthMonitor, HealthRules, next_health
from modelyard.gateway.replicas import HealthState, HealthView, ReplicaPool
from modelyard.registry.load import load_text

RULES = HealthRules(failures=3, successes=2)
ONE = "version: 1\nmodels: {m: {endpoints: [{id: a, url: 'http://h:1', engine: vllm}]}}"


def walk(*findings: Finding) -> list[HealthState]:
    view = HealthView()
    states = []
    for number, finding in enumerate(findings):
        view = next_health(view, finding, "because", RULES, float(number))
        states.append(view.state)
    return states


def test_the_first_finding_counts_at_once() -> None:
    assert walk(Finding.READY) == [HealthState.READY]
    assert walk(Finding.NOT_READY) == [HealthState.STARTING]
    assert walk(Finding.DOWN) == [HealthState.FAILING]


def test_a_ready_replica_leaves_after_three_and_returns_after_two() -> None:
    ready, failing = HealthState.READY, HealthState.FAILING
    down, up = Finding.DOWN, Finding.READY
    assert walk(up, down, down, up, down, down, down, up, up) == [
        ready, ready, ready, ready, ready, ready, failing, failing, ready,
    ]  # fmt: skip


def test_a_starting_replica_is_ready_at_once() -> None:
    assert walk(Finding.DOWN, Finding.NOT_READY, Finding.READY)[1:] == [
        HealthState.STARTING,
        HealthState.READY,
    ]


@given(st.lists(st.sampled_from(Finding), max_size=30))
def test_never_ready_without_a_success_and_since_moves_only_with_the_state(findings: list[Finding]) -> None:
    view = HealthView()
    seen_ready = False
    for number, finding in enumerate(findings, start=1):
        seen_ready |= finding is Finding.READY
        following = next_health(view, finding, "x", RULES, float(number))
        assert seen_ready or following.state is not HealthState.READY
        assert (following.since == view.since) == (following.state is view.state)
        view = following


async def test_probes_ask_the_live_then_the_ready_path_and_survive_faults() -> None:
    pool = ReplicaPool(load_engines())
    pool.apply(load_text(ONE, "r"))
    replica = pool.get("a")
    assert replica is not None
    asked: list[str] = []
    answers: deque[int | Exception] = deque(
        [200, 200, RuntimeError("a fault of ours"), UpstreamConnectError("refused"), 503]
    )
    done = asyncio.Event()

    async def fetch(url: str, timeout_s: float) -> int:
        asked.append(url)
        if not answers:
            done.set()
            return 200
        answer = answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    monitor = HealthMonitor(
        pool, fetch, HealthRules(interval_s=0.001), clock=lambda: 5.0, rng=random.Random(1)
    )
    monitor.follow()
    async with asyncio.timeout(10):
        await done.wait()
    await monitor.close()
    assert asked[:5] == [
        "http://h:1/health",
        "http://h:1/v1/models",
        "http://h:1/health",
        "http://h:1/health",
        "http://h:1/health",
    ]
    assert replica.health.state is HealthState.READY
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("health")]


async def test_a_refused_request_marks_and_wakes_the_probe() -> None:
    pool = ReplicaPool(load_engines())
    pool.apply(load_text(ONE, "r"))
    replica = pool.get("a")
    assert replica is not None
    probed = asyncio.Event()

    async def fetch(url: str, timeout_s: float) -> int:
        probed.set()
        return 200

    monitor = HealthMonitor(
        pool, fetch, HealthRules(interval_s=3600), clock=lambda: 0.0, rng=random.Random(1)
    )
    monitor.follow()
    async with asyncio.timeout(10):
        await probed.wait()
        probed.clear()
        monitor.mark_unreachable(replica, "refused")
        assert replica.health.failures == 1
        await probed.wait()
    await monitor.close()
