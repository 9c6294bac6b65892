"""Places that the inventory names go before everything; one that cannot be had is a problem."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Model, Need, Pin

from tests.unit.planner.test_gpus import GIB, given, hardware, one, plan, seen
from tests.unit.planner.test_plan import actions, facts_after

WELL = hardware("up", "up", "up", "up")


def pinned(*gpus: str, name: str = "m", host: str = "gpu01", **more: Any) -> Model:
    wish = {"replicas": 1, "gpus": len(gpus[0].split(",")), **more}
    return one(name, pins=tuple(Pin(host, tuple(each.split(","))) for each in gpus), **wish)


def test_a_pin_is_honoured_and_stays() -> None:
    models = [pinned("2,3"), one("other", replicas=2)]
    first = plan(models, seen({"hardware": WELL}))
    assert given(first) == {"gpu01.m.0": ["2", "3"], "gpu01.other.0": ["0"], "gpu01.other.1": ["1"]}
    again = plan(models, seen(facts_after(first, "gpu01") | {"hardware": WELL}))
    assert set(actions(again).values()) == {"keep"}
    assert (again["problems"], given(again)) == ([], given(first))


def test_a_uuid_stands_for_its_index() -> None:
    found = plan([pinned("GPU-3")], seen({"hardware": WELL}))
    assert given(found) == {"gpu01.m.0": ["3"]}


def test_the_rest_of_the_replicas_is_placed_as_usual() -> None:
    found = plan([pinned("3", replicas=3)], seen({"hardware": WELL}))
    assert sorted(given(found).values()) == [["0"], ["1"], ["3"]]


def test_a_pin_goes_before_health_and_memory_with_a_note() -> None:
    wish = pinned("1", need=Need(100 * GIB, "the estimate"))
    found = plan([wish], seen({"hardware": hardware("up", "down", memory=80)}, fleet_gpus=2))
    assert (given(found), found["problems"]) == ({"gpu01.m.0": ["1"]}, [])
    notes = " ".join(found["notes"])
    assert "model m is pinned to GPU 1 of gpu01, although its health is down" in notes
    assert "has 80.0 GiB and would need 100.0 GiB by the estimate" in notes


def test_who_is_in_the_way_of_a_pin_is_placed_anew() -> None:
    before = plan([one("other")], seen({"hardware": WELL}))
    found = plan([one("other"), pinned("0")], seen(facts_after(before, "gpu01") | {"hardware": WELL}))
    assert given(found) == {"gpu01.m.0": ["0"], "gpu01.other.1": ["2"]}
    assert actions(found) == {"gpu01.m.0": "start", "gpu01.other.0": "stop", "gpu01.other.1": "start"}
    # the other one serves elsewhere before it leaves, and has left before its GPU is taken
    steps = [(step["replicas"], step["stops"]) for step in found["rollout"]["steps"]]
    assert steps == [(["gpu01.other.1"], []), ([], ["gpu01.other.0"]), (["gpu01.m.0"], [])]


def test_a_replica_goes_to_its_new_pin_as_the_same_replica() -> None:
    before = plan([one()], seen({"hardware": WELL}))
    found = plan([pinned("2")], seen(facts_after(before, "gpu01") | {"hardware": WELL}))
    assert (given(found), actions(found)) == ({"gpu01.m.0": ["2"]}, {"gpu01.m.0": "replace"})


def test_two_pins_find_the_replicas_that_have_them() -> None:
    before = plan([one(replicas=2)], seen({"hardware": WELL}))
    found = plan([pinned("1", "0", replicas=2)], seen(facts_after(before, "gpu01") | {"hardware": WELL}))
    assert set(actions(found).values()) == {"keep"}


def test_a_pinned_replica_that_changes_stays_on_its_gpus() -> None:
    before = plan([pinned("2")], seen({"hardware": WELL}))
    found = plan([pinned("2", args={"seed": 1})], seen(facts_after(before, "gpu01") | {"hardware": WELL}))
    assert (given(found), actions(found)) == ({"gpu01.m.0": ["2"]}, {"gpu01.m.0": "replace"})


@pytest.mark.parametrize(
    ("wish", "facts", "says"),
    [
        (pinned("7"), {}, "gpu01 has no GPU 7 in fleet_gpus (0, 1, 2, 3)"),
        (pinned("0", gpus=2), {}, "it names 0, and placement.gpus is 2"),
        (pinned("0", host="gpu09"), {}, "gpu09 is not an engine host"),
        (pinned("0", hosts=("gpu02",)), {}, "gpu01 does not match engine_hosts"),
        (
            pinned("1"),
            {"foreign": [{"name": "trainer", "gpus": ["1"]}]},
            "GPU 1 of gpu01 is used by trainer",
        ),
        (
            pinned("3"),
            {"hardware": hardware("up", "up", "up")},
            "GPU 3 of gpu01 is not there: It is declared in fleet_gpus, and the host does not show it.",
        ),
        (
            pinned("1"),
            {"docker": "absent"},
            "gpu01 has no docker command: site.yml and hosts.yml install Docker",
        ),
    ],
)
def test_a_pin_that_cannot_be_is_a_problem(wish: Model, facts: dict[str, Any], says: str) -> None:
    found = plan([wish], seen({"hardware": WELL, **facts}))
    assert found["problems"] == [
        f"model m: its pin to GPU {', '.join(wish.pins[0].gpus)} of {wish.pins[0].host} cannot be met: {says}"
    ]
    assert given(found) == {}


def test_two_models_pinned_to_one_gpu_are_a_problem() -> None:
    found = plan([pinned("0"), pinned("0", name="n")], seen({"hardware": WELL}))
    assert found["problems"] == [
        "model n: its pin to GPU 0 of gpu01 cannot be met: gpu01.m.0 holds GPU 0 of gpu01"
    ]


def test_what_is_unknown_holds_a_pinned_gpu() -> None:
    before = plan([one("other")], seen({"hardware": WELL}))
    facts = facts_after(before, "gpu01")
    facts["replicas"][0]["state"] = "unknown"
    found = plan([one("other"), pinned("0")], seen(facts | {"hardware": WELL}))
    assert given(found) == {"gpu01.other.0": ["0"]}
    assert "gpu01.other.0 holds GPU 0" in found["problems"][0]


def test_a_replica_whose_pin_cannot_be_had_runs_on() -> None:
    before = plan([one()], seen({"hardware": WELL}))
    facts = facts_after(before, "gpu01") | {"foreign": [{"name": "trainer", "gpus": ["1"]}]}
    found = plan([pinned("1")], seen(facts | {"hardware": WELL}))
    assert actions(found) == {"gpu01.m.0": "keep"}
    assert len(found["problems"]) == 1
