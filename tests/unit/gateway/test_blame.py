"""Who is held to account for an engine's end, and who is not."""

from __future__ import annotations

import asyncio
import time

import pytest

from modelyard.errors import QueryOfDeathError, UpstreamLostError
from modelyard.gateway.breaker import BreakerRules
from modelyard.gateway.pursuit import Pursuit
from modelyard.gateway.replicas import HealthState, Lease
from modelyard.gateway.suspects import fingerprint

from .stage import Stage, fleet
from .test_pursuit import LOST, attempt, die, settled


async def end_in_stream(stage: Stage, pursuit: Pursuit) -> None:
    """Its replica dies soon after its answer has begun."""
    lease = await attempt(pursuit)
    pursuit.answered()
    await die_in_stream(stage, pursuit, lease)


async def die_in_stream(stage: Stage, pursuit: Pursuit, lease: Lease) -> None:
    stage.dead.add(lease.replica.id)
    stage.set_health(lease.replica.id, HealthState.FAILING)
    pursuit.finish(LOST)
    await settled()


async def test_uploads_whose_body_nobody_has_read_are_never_taken_for_one_another() -> None:
    stage = Stage(fleet("a", "b", "c", "d"), breaker=BreakerRules(failures=0))
    await end_in_stream(stage, stage.begin())
    for _ in range(2):
        pursuit = stage.begin()
        await die(stage, pursuit)
        pursuit.finish()
    assert stage.suspects.all() == {}
    assert stage.begin().next() is not None


async def test_one_that_ends_its_engines_after_its_first_bytes_is_found_out() -> None:
    stage = Stage(fleet("a", "b", "c", "d"), breaker=BreakerRules(failures=0))
    for _ in range(3):
        await end_in_stream(stage, stage.begin(prompt="deadly"))
    with pytest.raises(QueryOfDeathError):
        stage.begin(prompt="deadly")
    assert len(stage.dead) == 3


async def test_one_answer_that_ends_well_clears_what_broke_before() -> None:
    stage = Stage(fleet("a", "b", "c", "d", "e"), breaker=BreakerRules(failures=0))
    for _ in range(2):
        await end_in_stream(stage, stage.begin(prompt="unlucky"))
    well = stage.begin(prompt="unlucky")
    await attempt(well)
    well.answered()
    well.finish()
    assert stage.suspects.all() == {}
    await end_in_stream(stage, stage.begin(prompt="unlucky"))
    stage.begin(prompt="unlucky").finish()


async def test_a_long_answer_that_breaks_is_not_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(fleet("a", "b", "c", "d"), breaker=BreakerRules(failures=0))
    now = time.perf_counter
    for hours in range(1, 4):
        pursuit = stage.begin(prompt="long")
        lease = await attempt(pursuit)
        pursuit.answered()
        monkeypatch.setattr(time, "perf_counter", lambda hours=hours: now() + 3600 * hours)
        await die_in_stream(stage, pursuit, lease)
    assert not any(case.condemned for case in stage.suspects.all().values())
    assert isinstance(LOST, UpstreamLostError)


async def test_a_clock_that_is_set_back_keeps_no_old_view_and_holds_nobody_small() -> None:
    stage = Stage(fleet("a", "b"))
    stage.replica("a").came_back_at = stage.now
    assert stage.balancer.share(stage.replica("a")) < 0.2
    stage.begin().next()
    stage.now -= 3600
    assert stage.balancer.share(stage.replica("a")) == 1.0
    # nobody says so: the look of before must not hold for an hour
    stage.replica("a").drained = True
    assert {str(lease.replica.id) for _ in range(4) if (lease := stage.begin().next())} == {"b"}


async def test_a_suspect_beside_one_of_another_worker_waits_and_is_not_condemned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(fleet("a", "b"), breaker=BreakerRules(failures=0))
    elsewhere = {"b": stage.now + 3}
    monkeypatch.setattr(stage.pool, "confined_elsewhere", lambda replica: elsewhere.get(replica.id, 0.0))
    pursuit = stage.begin(prompt="innocent")
    assert pursuit.next() is not None
    pursuit.failed(LOST)
    stage.set_health("a", HealthState.FAILING)
    await settled()
    assert pursuit.next() is None
    # both took it in the same moment
    elsewhere.clear()
    assert pursuit.next() is not None
    elsewhere["b"] = stage.now + 3
    stage.dead.update("ab")
    pursuit.failed(LOST)
    await settled()
    with pytest.raises(UpstreamLostError):
        pursuit.next()
    assert not any(case.condemned for case in stage.suspects.all().values())


@pytest.mark.parametrize("company", [False, True])
async def test_an_engine_that_takes_long_to_die_of_a_request_still_tells_who_it_was(company: bool) -> None:
    stage = Stage(fleet("a", "b"), breaker=BreakerRules(failures=0))
    pursuit = stage.begin(prompt="deadly")
    await die(stage, pursuit)
    held = pursuit.next()
    assert held is not None
    stage.now += 60
    if company:
        other = stage.begin(prompt="innocent")
        other.suspect(1)
        assert other.next() is not None
    stage.dead.update("ab")
    if company:
        other.failed(LOST)
    pursuit.failed(LOST)
    await settled()
    with pytest.raises(UpstreamLostError if company else QueryOfDeathError):
        pursuit.next()
    if company:
        # it came when the other was still there
        with pytest.raises(UpstreamLostError):
            other.next()
    assert any(case.condemned for case in stage.suspects.all().values()) is not company


async def test_a_suspect_has_its_turn_where_others_keep_coming() -> None:
    rows = ", ".join(
        f'{{id: {name}, url: "http://{name}:1", engine: vllm, max_in_flight: 1}}' for name in "ab"
    )
    stage = Stage(
        f"version: 1\ngeneration: 1\nmodels: {{m: {{endpoints: [{rows}], queue: {{size: 9, wait_s: 60}}}}}}",
        breaker=BreakerRules(failures=0),
    )
    served: list[str] = []
    holders: list[Pursuit] = []

    async def come(name: str, pursuit: Pursuit) -> None:
        await attempt(pursuit)
        served.append(name)
        holders.append(pursuit)

    suspect = stage.begin(prompt="innocent")
    lease = suspect.next()
    assert lease is not None
    stage.set_health(lease.replica.id, HealthState.FAILING)
    await come("first", stage.begin(prompt="first"))
    tasks = [asyncio.create_task(come(f"{n}", stage.begin(prompt=f"{n}"))) for n in range(3)]
    await settled()
    suspect.failed(LOST)
    tasks.append(asyncio.create_task(come("suspect", suspect)))
    await settled()
    for number in range(8):
        # as fast as one leaves, another one comes
        tasks.append(asyncio.create_task(come(f"later {number}", stage.begin(prompt=f"later {number}"))))
        holders.pop().finish()
        before = len(served)
        while len(served) == before:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert served.index("suspect") == 4
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_an_alias_is_the_same_model() -> None:
    stage = Stage(fleet("a"))
    assert fingerprint("m", "", {"model": "alias", "prompt": "x"}) == stage.begin(prompt="x").mark
