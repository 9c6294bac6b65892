from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog.loader import load_engines
from modelyard.gateway.policies import pick
from modelyard.gateway.replicas import HealthState, Lease, ReplicaPool
from modelyard.registry.load import load_text

from .stage import Stage

POLICIES = ["round_robin", "least_loaded", "power_of_two", "session_hash", "prefix_hash"]


@dataclass
class Fake:
    id: str
    in_flight: int = 0


def fleet(*loads: int) -> list[Fake]:
    return [Fake(f"r{number}", load) for number, load in enumerate(loads)]


def choose(
    policy: str,
    items: list[Fake],
    *,
    turn: int = 0,
    key: str | None = None,
    weights: list[float] | None = None,
) -> str:
    return pick(policy, items, weights or [1.0] * len(items), turn=turn, rng=random.Random(turn), key=key).id


def test_least_loaded_takes_turns_among_equals_and_minds_weights() -> None:
    assert choose("least_loaded", fleet(3, 1, 2)) == "r1"
    assert [choose("least_loaded", fleet(0, 0, 0), turn=turn) for turn in range(4)] == [
        "r0",
        "r1",
        "r2",
        "r0",
    ]
    assert choose("least_loaded", fleet(3, 2), weights=[4, 1]) == "r0"


def test_round_robin_goes_round() -> None:
    assert [choose("round_robin", fleet(9, 0), turn=turn) for turn in range(3)] == ["r0", "r1", "r0"]


def test_power_of_two_never_takes_the_fullest() -> None:
    assert {choose("power_of_two", fleet(0, 0, 0, 50), turn=turn) for turn in range(200)} == {
        "r0",
        "r1",
        "r2",
    }


def test_a_session_sticks_and_moves_only_if_its_replica_goes() -> None:
    items = fleet(0, 0, 0, 0)
    homes = {key: choose("session_hash", items, key=key) for key in map(str, range(200))}
    assert min(Counter(homes.values()).values()) > 20
    left = [item for item in items if item.id != "r2"]
    for key, home in homes.items():
        moved = choose("session_hash", left, key=key)
        assert moved != "r2"
        assert home in ("r2", moved)


def test_a_hash_does_not_overload() -> None:
    items = fleet(0, 0, 0, 0)
    home = choose("prefix_hash", items, key="the same")
    for item in items:
        item.in_flight = 40 if item.id == home else 1
    assert choose("prefix_hash", items, key="the same") != home


@given(
    policy=st.sampled_from(POLICIES),
    loads=st.lists(st.integers(0, 1000), min_size=1, max_size=20),
    turn=st.integers(0, 10**6),
    key=st.none() | st.text(),
)
def test_every_policy_always_chooses_one(policy: str, loads: list[int], turn: int, key: str | None) -> None:
    items = fleet(*loads)
    assert choose(policy, items, turn=turn, key=key) in {item.id for item in items}


TWO = """
version: 1
models:
  m:
    endpoints:
      - {id: a, url: "http://h:1", engine: vllm}
      - {id: b, url: "http://h:2", engine: vllm}
"""


def test_choosing_counts_and_what_was_tried_is_left_out() -> None:
    stage = Stage(TWO)
    balancer, model = stage.balancer, stage.registry.models["m"]
    first = balancer.acquire(model, set())
    assert first is not None
    second = balancer.acquire(model, {first.replica})
    assert second is not None
    assert {first.replica.id, second.replica.id} == {"a", "b"}
    assert balancer.acquire(model, {first.replica, second.replica}) is None
    assert first.replica.in_flight == second.replica.in_flight == 1
    with second:
        pass
    second.release()
    first.release()
    first.release()
    assert first.replica.in_flight == second.replica.in_flight == 0


@pytest.mark.parametrize(("state", "chosen"), [("ready", {"a"}), ("failing", {"b"}), ("starting", {"b"})])
def test_the_unknown_are_used_only_when_none_is_ready(state: str, chosen: set[str]) -> None:
    stage = Stage(TWO, ready=False)
    stage.set_health("a", HealthState(state))
    balancer = stage.balancer
    assert {item.id for item in balancer.usable("m")} == chosen
    assert balancer.available("m") is (state == "ready")


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_counts_survive_reloads_and_never_go_below_zero(steps: list[tuple[int, bool]]) -> None:
    pool = ReplicaPool(load_engines())
    both, one = (
        load_text(TWO, "r"),
        load_text(TWO.replace('      - {id: b, url: "http://h:2", engine: vllm}\n', ""), "r"),
    )
    pool.apply(both)
    held: list[Lease] = []
    for number, (index, alternate) in enumerate(steps):
        if alternate:
            pool.apply(both if number % 2 else one)
        elif index and held:
            held.pop(index % len(held)).release()
        else:
            replicas = pool.of_model("m")
            held.append(pool.lease(replicas[index % len(replicas)]))
        assert sum(item.in_flight for item in pool.everyone()) == len(held)
    for lease in held:
        lease.release()
    pool.apply(both)
    assert [item.in_flight for item in pool.everyone()] == [0, 0]
