"""What is tried, in which order and how often: told without I/O on a clock of its own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import (
    ModelyardError,
    NoReplicaError,
    QueryOfDeathError,
    QueueFullError,
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamLostError,
    UpstreamTimeoutError,
)
from modelyard.gateway.balancer import BalancerRules
from modelyard.gateway.breaker import BreakerRules, BreakerState
from modelyard.gateway.losses import Losses
from modelyard.gateway.pursuit import Pursuit
from modelyard.gateway.replicas import HealthState, Lease, LoadFigures

from .stage import Stage, fleet

LOST = UpstreamLostError("it closed the connection without an answer")
REFUSED = UpstreamConnectError("connection refused")
SILENT = UpstreamTimeoutError("no answer within 20 s")
BROKEN = UpstreamBrokenError("it went on with something that is not HTTP")


def taken(pursuit: Pursuit) -> str:
    lease = pursuit.next()
    assert lease is not None
    return lease.replica.id


async def settled() -> None:
    """Let the callbacks of looks run."""
    for _ in range(3):
        await asyncio.sleep(0)


def endpoints(*rows: str, **model: object) -> str:
    items = ", ".join(f'{{url: "http://10.0.0.1:{n}", engine: vllm, {row}}}' for n, row in enumerate(rows, 1))
    more = "".join(f", {key}: {value}" for key, value in model.items())
    return f"version: 1\ngeneration: 1\nmodels:\n  m: {{endpoints: [{items}]{more}}}\n"


# --- choosing


def test_a_later_tier_is_used_while_an_earlier_one_cannot() -> None:
    stage = Stage(endpoints("id: a, max_in_flight: 2", "id: b, tier: 1"))
    assert [taken(stage.begin()) for _ in range(4)] == ["a", "a", "b", "b"]


def test_the_canary_gets_its_share_and_the_other_side_stands_in() -> None:
    stage = Stage(endpoints("id: a", "id: b, track: canary", canary_percent=20))
    counts = Counter()
    for _ in range(2000):
        pursuit = stage.begin()
        counts[taken(pursuit)] += 1
        pursuit.finish()
    assert 300 < counts["b"] < 500
    stage.set_health("a", HealthState.FAILING)
    assert {taken(stage.begin()) for _ in range(20)} == {"b"}


def test_what_an_engine_says_of_its_load_counts_within_bounds() -> None:
    stage = Stage(fleet("a", "b"))
    stage.replica("a").load = LoadFigures(running=500, waiting=500, kv_usage=0.5, at=stage.now)
    assert [taken(stage.begin()) for _ in range(8)] == ["b"] * 8
    assert {taken(stage.begin()) for _ in range(8)} == {"a", "b"}
    stale = Stage(fleet("a", "b"))
    stale.replica("a").load = LoadFigures(running=500, waiting=500, kv_usage=0.5, at=stale.now - 60)
    assert {taken(stale.begin()) for _ in range(2)} == {"a", "b"}


def test_one_that_came_back_gets_its_first_request_and_few_beside() -> None:
    stage = Stage(fleet("a", "b"), rules=BalancerRules(slow_start_s=10))
    stage.replica("a").came_back_at = stage.now
    stage.pursuits.changed(stage.replica("a"))
    counts = Counter(taken(stage.begin()) for _ in range(10))
    assert (counts["a"], counts["b"]) == (1, 9)
    stage.now += 11
    stage.balancer.changed()
    assert [taken(stage.begin()) for _ in range(6)] == ["a"] * 6


@pytest.mark.parametrize(
    ("document", "chosen"), [({}, {"b"}), ({"max_tokens": 10}, {"a", "b"}), ({"max_tokens": 4000}, {"b"})]
)
def test_one_that_is_about_to_end_gets_nothing_long(document: dict[str, int], chosen: set[str]) -> None:
    stage = Stage(endpoints('id: a, expires_at: "1970-01-01T00:17:10Z"', "id: b"))  # in 30 s
    assert {taken(stage.begin(**document)) for _ in range(6)} == chosen
    stage.set_health("b", HealthState.FAILING)
    assert taken(stage.begin(**document)) == "a"


# --- failing


def test_each_replica_is_tried_once_and_then_the_last_error_is_told() -> None:
    stage = Stage(fleet("a", "b"))
    pursuit = stage.begin()
    tried = {taken(pursuit)}
    pursuit.failed(REFUSED)
    tried.add(taken(pursuit))
    pursuit.failed(REFUSED)
    assert tried == {"a", "b"}
    with pytest.raises(UpstreamConnectError, match="2 replicas were tried"):
        pursuit.next()
    pursuit.finish()
    assert stage.in_flight() == 0


def test_retries_that_do_not_help_are_bounded_and_those_that_do_are_free() -> None:
    stage = Stage(fleet("a", "b"), budget_percent=10, breaker=BreakerRules(failures=0))
    refused = 0
    for _ in range(100):
        pursuit = stage.begin()
        pursuit.next()
        pursuit.failed(BROKEN)
        try:
            pursuit.next()
            pursuit.failed(BROKEN)
        except UpstreamError as error:
            refused += "no retries are left" in error.message
        pursuit.finish()
    assert refused == 90
    healing = Stage(fleet("a", "b"), budget_percent=10, breaker=BreakerRules(failures=0))
    for _ in range(100):
        pursuit = healing.begin()
        pursuit.next()
        pursuit.failed(BROKEN)
        assert pursuit.next() is not None
        pursuit.answered()
        pursuit.finish()


def test_a_breaker_opens_tries_one_and_closes() -> None:
    stage = Stage(fleet("a", "b"), breaker=BreakerRules(failures=3, open_s=10))
    breaker = stage.replica("a").breaker
    for _ in range(3):
        stage.pursuits.fault(stage.pool.lease(stage.replica("a")))
    assert breaker.state is BreakerState.OPEN
    assert {taken(stage.begin()) for _ in range(5)} == {"b"}
    stage.now += 10
    first = stage.begin()
    while taken(first) != "a":
        first = stage.begin()
    assert {taken(stage.begin()) for _ in range(5)} == {"b"}, "more than one tries it out"
    first.answered()
    assert breaker.state is BreakerState.CLOSED
    assert stage.replica("a").came_back_at == stage.now


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (UpstreamBusyError("it answered 429", status=429), False),
        (UpstreamBusyError("it answered 503", status=503, retry_after_s=3), False),
        (UpstreamBusyError("it answered 503", status=503), True),
        (UpstreamError("time", code="deadline_exceeded"), False),
        (REFUSED, True),
    ],
)
def test_only_faults_of_the_replica_open_its_breaker(error: UpstreamError, counts: bool) -> None:
    stage = Stage(fleet("a"), breaker=BreakerRules(failures=1))
    pursuit = stage.begin()
    pursuit.next()
    pursuit.failed(error)
    assert (stage.replica("a").breaker.state is BreakerState.OPEN) is counts
    assert (stage.busy == ["a"]) is (isinstance(error, UpstreamBusyError) and not counts)


def test_a_client_that_leaves_a_trial_lets_another_one_try() -> None:
    stage = Stage(fleet("a"), breaker=BreakerRules(failures=1, open_s=1))
    stage.pursuits.fault(stage.pool.lease(stage.replica("a")))
    stage.now += 1
    pursuit = stage.begin()
    assert taken(pursuit) == "a"
    pursuit.finish()
    assert taken(stage.begin()) == "a"


# --- waiting


async def test_who_comes_first_is_served_first_and_too_many_are_told() -> None:
    stage = Stage(endpoints("id: a, max_in_flight: 1", queue="{size: 2, wait_s: 100}"))
    holder = stage.begin()
    holder.next()
    order: list[int] = []

    async def client(number: int) -> None:
        pursuit = stage.begin()
        while pursuit.next() is None:
            await pursuit.wait()
        order.append(number)
        pursuit.finish()

    tasks = []
    for number in range(2):
        tasks.append(asyncio.create_task(client(number)))
        await settled()
    late = stage.begin()
    assert late.next() is None
    with pytest.raises(QueueFullError) as told:
        await late.wait()
    assert told.value.retry_after_s
    holder.finish()
    await asyncio.gather(*tasks)
    assert order == [0, 1]
    assert stage.in_flight() == 0
    assert not stage.rooms.crowded("m")


async def test_waiting_ends_and_says_when_to_come_back() -> None:
    stage = Stage(endpoints("id: a, max_in_flight: 1", queue="{size: 2, wait_s: 5}"))
    stage.begin().next()
    pursuit = stage.begin()
    assert pursuit.next() is None
    task = asyncio.create_task(pursuit.wait())
    await settled()
    stage.now += 6
    with pytest.raises(NoReplicaError, match="within 5 s"):
        await task
    assert len(stage.rooms.of("m")) == 0


def test_nobody_waits_for_replicas_that_are_gone() -> None:
    stage = Stage(fleet("a"))
    stage.set_health("a", HealthState.FAILING)
    with pytest.raises(NoReplicaError):
        stage.begin().next()
    stage.set_health("a", HealthState.STARTING)
    assert stage.begin().next() is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_no_place_is_lost_and_no_count_leaks_whoever_leaves_when(seed: int) -> None:
    asyncio.run(crowd(seed))


async def crowd(seed: int) -> None:
    chance = random.Random(seed)
    stage = Stage(
        endpoints("id: a, max_in_flight: 1", "id: b, max_in_flight: 2", queue="{size: 50, wait_s: 1000}"),
        breaker=BreakerRules(failures=0),
    )
    served = 0

    async def client() -> None:
        nonlocal served
        pursuit = stage.begin()
        try:
            while True:
                lease = pursuit.next()
                if lease is None:
                    await pursuit.wait()
                    continue
                assert lease.replica.in_flight <= (lease.replica.endpoint.max_in_flight or 99)
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                if chance.random() < 0.2:
                    pursuit.failed(UpstreamBrokenError("broken"))
                    continue
                pursuit.answered(chance.choice([200, 500]))
                served += 1
                break
        except ModelyardError:
            served += 1
        finally:
            pursuit.finish(chance.choice([None, LOST]))

    tasks = [asyncio.create_task(client()) for _ in range(20)]
    leave = chance.sample(tasks, 6)
    for task in leave:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=20)
    assert len(done) == len(tasks), "somebody waits for a place that is free"
    assert served >= len(tasks) - len(leave)
    assert stage.in_flight() == 0
    assert stage.pursuits.running == set()
    assert not stage.rooms.crowded("m")


# --- requests that end their engines


async def attempt(pursuit: Pursuit) -> Lease:
    while (lease := pursuit.next()) is None:
        await pursuit.wait()
    return lease


async def die(stage: Stage, pursuit: Pursuit) -> None:
    lease = await attempt(pursuit)
    stage.dead.add(lease.replica.id)
    stage.set_health(lease.replica.id, HealthState.FAILING)
    pursuit.failed(LOST)
    await settled()


async def test_a_deadly_request_gets_two_replicas_and_then_none() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="deadly")
    await die(stage, pursuit)
    await die(stage, pursuit)
    with pytest.raises(QueryOfDeathError, match="ended 2 replicas"):
        await attempt(pursuit)
    pursuit.finish()
    for _ in range(8):
        with pytest.raises(QueryOfDeathError):
            stage.begin(prompt="deadly", stream=True)
    assert len(stage.dead) == 2
    (case,) = stage.suspects.all().values()
    assert (case.condemned, case.deaths, case.refused) == (True, 2, 8)
    assert taken(stage.begin(prompt="harmless")) not in stage.dead
    stage.now += 601
    assert stage.begin(prompt="deadly") is not None


async def test_one_that_died_with_its_engine_before_gets_one_more_only() -> None:
    """The first time it was streaming already, so it was not tried again."""
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="deadly")
    lease = await attempt(pursuit)
    pursuit.answered()
    stage.dead.add(lease.replica.id)
    stage.set_health(lease.replica.id, HealthState.FAILING)
    pursuit.finish(LOST)
    await settled()
    again = stage.begin(prompt="deadly")
    await die(stage, again)
    with pytest.raises(QueryOfDeathError):
        await attempt(again)


async def test_a_replica_that_died_silently_is_a_loss_as_well() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="deadly")
    for _ in range(2):
        lease = await attempt(pursuit)
        stage.dead.add(lease.replica.id)
        stage.set_health(lease.replica.id, HealthState.FAILING)
        pursuit.failed(SILENT)
    with pytest.raises(QueryOfDeathError):
        await attempt(pursuit)
    assert len(stage.dead) == 2


async def test_a_replica_that_dies_after_it_was_silent_is_a_loss_as_well() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="deadly")
    first = (await attempt(pursuit)).replica.id
    pursuit.failed(SILENT)
    second = (await attempt(pursuit)).replica.id
    stage.dead |= {first, second}
    pursuit.failed(LOST)
    with pytest.raises(UpstreamLostError, match="two replicas ended"):
        await attempt(pursuit)
    assert len(stage.dead) == 2


@pytest.mark.parametrize("error", [SILENT, UpstreamTimeoutError("late", code="deadline_exceeded")])
async def test_a_replica_that_is_only_silent_makes_nobody_suspect(
    monkeypatch: pytest.MonkeyPatch, error: UpstreamTimeoutError
) -> None:
    monkeypatch.setattr("modelyard.gateway.losses._DOUBT_S", 0.01)
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    # the looks get no answer either
    stage.pursuits.look = lambda _: asyncio.get_running_loop().create_future()
    pursuit = stage.begin(prompt="harmless")
    await attempt(pursuit)
    pursuit.failed(error)
    if error is SILENT:
        await attempt(pursuit)
        assert pursuit.attempts == 2
    assert not pursuit.suspected
    assert not stage.suspects.watching


def end_a_under(stage: Stage, pursuits: list[Pursuit]) -> list[Pursuit]:
    """Replica ``a`` is gone; those that were on it."""
    stage.dead.add("a")
    stage.set_health("a", HealthState.FAILING)
    return [pursuit for pursuit in pursuits if pursuit.replica is stage.replica("a")]


async def test_two_hundred_innocents_survive_the_death_of_their_replica() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuits = [stage.begin(prompt=f"p{number}") for number in range(200)]
    for pursuit in pursuits:
        pursuit.next()
    doomed = end_a_under(stage, pursuits)
    for pursuit in doomed:
        pursuit.failed(LOST)

    async def go_on(pursuit: Pursuit) -> None:
        lease = await attempt(pursuit)
        confined = lease.replica.confined
        assert confined is not None
        assert confined.by is pursuit
        pursuit.answered()
        pursuit.finish()

    async with asyncio.timeout(60):
        await asyncio.gather(*map(go_on, doomed))
    assert len(doomed) > 50
    assert not any(case.condemned for case in stage.suspects.all().values())


async def lose_a_with_many_of_one_body(stage: Stage) -> list[Pursuit]:
    """The streams of the same body that other replicas still have."""
    pursuits = [stage.begin(prompt="the same") for _ in range(30)]
    for pursuit in pursuits:
        pursuit.next()
        pursuit.answered()
    doomed = end_a_under(stage, pursuits)
    for pursuit in doomed:
        pursuit.finish(LOST)
    await settled()
    assert len(doomed) > 1
    return [pursuit for pursuit in pursuits if pursuit not in doomed]


async def test_many_of_one_body_that_are_lost_with_one_replica_are_one_death() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    await lose_a_with_many_of_one_body(stage)
    (case,) = stage.suspects.all().values()
    assert (case.deaths, case.replicas) == (1, ["a"])
    stage.now += 60
    stage.suspects.died(stage.begin(prompt="the same").mark, "m", "a")
    assert case.deaths == 2


async def test_a_stream_that_ends_well_elsewhere_clears_its_like() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    left = await lose_a_with_many_of_one_body(stage)
    left[0].finish()
    assert stage.suspects.all() == {}


async def test_an_engine_that_only_drops_a_connection_condemns_nobody() -> None:
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="p")
    for _ in range(3):
        await attempt(pursuit)
        pursuit.failed(LOST)
        await settled()
    with pytest.raises(UpstreamLostError):
        await attempt(pursuit)
    assert stage.suspects.all() == {}


async def test_one_that_ends_a_replica_and_silences_the_next_gets_no_third(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelyard.gateway.losses._DOUBT_S", 0.01)
    stage = Stage(fleet("a", "b", "c"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="deadly")
    await die(stage, pursuit)
    second = await attempt(pursuit)
    pursuit.failed(UpstreamTimeoutError("no answer within 60 s"))
    with pytest.raises(QueryOfDeathError):
        await attempt(pursuit)
    # an innocent one that came later and waited in vain there too
    innocent = Losses(1)
    innocent.note_silence(second.replica, second.replica.heard)
    assert (innocent.stuck, innocent.deaths()) == (0, 0)


def test_one_that_was_on_two_replicas_that_ended_is_not_sent_to_the_last() -> None:
    stage = Stage(fleet("a", "b", "c"))
    mark = stage.begin(prompt="p").mark
    stage.suspects.died(mark, "m", "a")
    stage.now += 10
    stage.suspects.died(mark, "m", "b")
    for name in ("a", "b"):
        stage.set_health(name, HealthState.FAILING)
    with pytest.raises(NoReplicaError, match="not sent to the last one"):
        stage.begin(prompt="p")
    assert taken(stage.begin(prompt="other")) == "c"
    stage.set_health("a", HealthState.READY)
    assert stage.begin(prompt="p").suspected
