from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from modelyard.errors import QueryOfDeathError
from modelyard.gateway.breaker import BreakerRules, BreakerState
from modelyard.gateway.replicas import Replica
from modelyard.gateway.workers.faults import SharedFaults

from .stage import Stage

REGISTRY = """
version: 1
generation: 1
models: {m: {endpoints: [{id: a, url: "http://a:1", engine: vllm}, {id: b, url: "http://b:1", engine: vllm}]}}
"""


class Pair:
    """Two workers; what one tells, the other hears at once, as JSON."""

    def __init__(self) -> None:
        self.stages = [Stage(REGISTRY, breaker=BreakerRules(failures=2, open_s=10)) for _ in range(2)]
        self.heard: list[dict[str, Callable[[Any], None]]] = [{}, {}]
        self.told: list[tuple[int, str]] = []
        self.faults = [self.part(number) for number in range(2)]

    def part(self, mine: int) -> SharedFaults:
        stage = self.stages[mine]

        def tell(topic: str, fact: Any) -> None:
            self.told.append((mine, topic))
            self.heard[1 - mine][topic](orjson.loads(orjson.dumps(fact)))

        return SharedFaults(stage.pursuits, stage.pool.get, tell, self.heard[mine].__setitem__)

    def replica(self, number: int, name: str = "a") -> Replica:
        found = self.stages[number].pool.get(name)
        assert found is not None
        return found

    def look(self) -> None:
        for stage, faults in zip(self.stages, self.faults, strict=True):
            faults.look(list(stage.pool.everyone()))


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_breaker_that_opens_in_one_is_open_in_both_and_closes_in_both(pair: Pair) -> None:
    first, second = pair.stages
    for _ in range(2):
        lease = first.pool.lease(pair.replica(0))
        first.pursuits.fault(lease)
        lease.release()
    pair.look()
    assert [pair.replica(number).breaker.state for number in (0, 1)] == [BreakerState.OPEN] * 2
    assert pair.replica(1).breaker.until == pair.replica(0).breaker.until
    chosen = second.balancer.peek(second.registry.models["m"])
    assert chosen is pair.replica(1, "b")
    # the other one tries it out, and tells what it found
    second.now += 11
    lease = second.pool.lease(pair.replica(1))
    pair.look()
    assert pair.replica(0).breaker.state is BreakerState.OPEN
    second.pursuits.well(lease)
    lease.release()
    pair.look()
    assert [pair.replica(number).breaker.state for number in (0, 1)] == [BreakerState.CLOSED] * 2
    # what was heard is not told back, and nothing is told twice
    pair.look()
    assert pair.told == [(0, "breaker"), (1, "breaker")]


def test_what_ended_engines_for_one_is_refused_by_both(pair: Pair) -> None:
    first, second = pair.stages
    mark = first.begin(prompt="deadly").mark
    first.suspects.died(mark, "m", "a")
    pair.look()
    case = second.suspects.case(mark)
    assert case is not None
    assert (case.deaths, case.replicas, case.condemned) == (1, ["a"], False)
    first.suspects.died(mark, "m", "b")
    first.suspects.condemn(mark)
    pair.look()
    pair.look()
    with pytest.raises(QueryOfDeathError):
        second.begin(prompt="deadly")
    second.begin(prompt="harmless")
    assert pair.told == [(0, "case"), (0, "case")]


def test_what_is_long_over_is_not_revived_in_one_that_begins_later(pair: Pair) -> None:
    first, second = pair.stages
    mark = first.begin(prompt="deadly").mark
    first.suspects.died(mark, "m", "a")
    first.suspects.condemn(mark)
    second.now += 601
    pair.faults[0].look([])
    assert second.suspects.all() == {}
    # and what still holds does so no longer than for the first
    second.now -= 300
    pair.faults[0] = pair.part(0)
    pair.faults[0].look([])
    heard, said = second.suspects.case(mark), first.suspects.case(mark)
    assert heard is not None
    assert said is not None
    assert (heard.until, heard.condemned) == (said.until, True)
