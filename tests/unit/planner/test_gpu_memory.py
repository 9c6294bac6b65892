"""A model goes where its GPUs have enough memory, by the operator's word, by measure, or by the estimate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.footprints import (
    DECLARED,
    ESTIMATE,
    key_of_model,
    with_need,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Need

from modelyard.catalog import load_engines
from modelyard.sizing import UNTOLD_ARGS
from tests.unit.planner.test_gpus import GIB, given, hardware, one, plan, seen
from tests.unit.planner.test_plan import ENGINES, actions, facts_after

BOTH = ("gpu01", "gpu02")
VLLM = ENGINES["vllm"]


def needs(gib: float, **more: Any) -> Any:
    return one(need=Need(int(gib * GIB), ESTIMATE), **{"hosts": BOTH, **more})


def small_and_large(**facts: Any) -> tuple[Any, Any]:
    return (
        seen({"hardware": hardware("up", "up", memory=24), **facts}, fleet_gpus=2),
        seen({"hardware": hardware("up", "up", memory=80)}, name="gpu02", fleet_gpus=2),
    )


def used(found: dict[str, Any], replica: str, *gpus: int, gib: int = 20) -> dict[str, Any]:
    for at in gpus:
        found["gpus"][at]["used"] = {replica: gib * GIB}
    return found


def test_a_model_goes_where_it_fits() -> None:
    assert given(plan([needs(20)], *small_and_large())) == {"gpu01.m.0": ["0"]}
    assert given(plan([needs(30)], *small_and_large())) == {"gpu02.m.0": ["0"]}


def test_who_needs_most_comes_first() -> None:
    large = seen({"hardware": hardware("up", memory=80)}, fleet_gpus=1)
    small = seen({"hardware": hardware("up", memory=24)}, name="gpu02", fleet_gpus=1)
    found = plan([needs(20, name="a"), needs(60, name="b")], large, small)
    assert (given(found), found["problems"]) == ({"gpu02.a.0": ["0"], "gpu01.b.0": ["0"]}, [])


def test_a_model_that_fits_nowhere_is_told_with_numbers() -> None:
    found = plan([needs(90.5, gpus=2)], *small_and_large())
    assert found["problems"] == [
        "model m: 0 of 1 replicas placed, each needs 2 GPUs on one host with about 90.5 GiB each (by the estimate); "
        "of the hosts matching engine_hosts: gpu01 has 24.0 GiB on each GPU; gpu02 has 80.0 GiB on each GPU"
    ]


def test_gpus_of_one_host_that_are_not_alike() -> None:
    mixed = hardware("up", "up", "up", "up", memory=80)
    for at in (0, 2):
        mixed["gpus"][at]["memory_total"] = 24 * GIB
    assert given(plan([needs(30, gpus=2)], seen({"hardware": mixed}))) == {"gpu01.m.0": ["1", "3"]}
    found = plan([needs(30, replicas=3, hosts=("gpu01",))], seen({"hardware": mixed}))
    assert (
        "gpu01 has GPUs with 24.0 GiB to 80.0 GiB, and 0 of those with enough are free"
        in found["problems"][0]
    )


def test_memory_that_nobody_knows_keeps_nobody_away() -> None:
    unknown = hardware("up", "up")
    for item in unknown["gpus"]:
        item["memory_total"] = None
    assert given(plan([needs(30)], seen({"hardware": unknown}, fleet_gpus=2))) == {"gpu01.m.0": ["0"]}
    declared = seen({"hardware": unknown}, fleet_gpus=2, fleet_gpu_memory_gib=24)
    assert "gpu01 has 24.0 GiB on each GPU" in plan([needs(30)], declared)["problems"][0]


def test_what_runs_stays_whatever_the_estimate_says() -> None:
    before = plan([one(hosts=BOTH)], *small_and_large())
    found = plan([needs(30)], *small_and_large(**facts_after(before, "gpu01")))
    assert (actions(found), found["problems"]) == ({"gpu01.m.0": "keep"}, [])


def test_what_is_changed_goes_where_it_fits() -> None:
    before = plan([one(hosts=BOTH)], *small_and_large())
    found = plan([needs(30, args={"max_model_len": 99999})], *small_and_large(**facts_after(before, "gpu01")))
    assert actions(found) == {"gpu01.m.0": "stop", "gpu02.m.0": "start"}


def test_where_it_has_run_it_fits_whatever_the_estimate_says() -> None:
    before = plan([one(hosts=BOTH)], *small_and_large())
    facts = facts_after(before, "gpu01")
    facts["hardware"] = used(hardware("up", "up", memory=24), "gpu01.m.0", 0)
    # another image is another launch, and nothing that decides about memory
    changed = needs(30, image="other:1", replicas=2)
    found = plan([changed], *small_and_large(**facts))
    assert actions(found) == {"gpu01.m.0": "replace", "gpu02.m.1": "start"}
    (entry,) = found["footprints"].values()
    assert entry == {"model": "m", "used": 20 * GIB, "memory": 24 * GIB}
    # and it is remembered when nothing runs any more
    later = plan([changed], *small_and_large(), footprints=found["footprints"])
    assert sorted(given(later)) == ["gpu01.m.0", "gpu02.m.1"]
    # of other arguments nothing is known
    longer = replace(changed, args={"max_model_len": 99999})
    assert "gpu01.m.0" not in given(plan([longer], *small_and_large(), footprints=found["footprints"]))


@pytest.mark.parametrize("change", ["down", "unproved", "one GPU of two"])
def test_what_is_not_proved_is_not_measured(change: str) -> None:
    wish = one(gpus=2)
    before = plan([wish], seen({"hardware": hardware("up", "up")}, fleet_gpus=2))
    facts = facts_after(before, "gpu01")
    facts["hardware"] = used(
        hardware("up", "up"), "gpu01.m.0", 0, *([] if change == "one GPU of two" else [1])
    )
    facts["replicas"][0]["state"] = "down" if change == "down" else "up"
    unproved = {"gpu01.m.0": before["assignments"][0]["hash"]} if change == "unproved" else {}
    found = plan([wish], seen(facts, fleet_gpus=2), unproved=unproved)
    assert found["footprints"] == {}


def test_the_smallest_gpu_counts_and_a_larger_one_says_nothing_new() -> None:
    wish = one()
    key = key_of_model(wish, VLLM)
    before = plan([wish], seen({"hardware": hardware("up", "up")}, fleet_gpus=2))
    facts = facts_after(before, "gpu01") | {"hardware": used(hardware("up", "up"), "gpu01.m.0", 0, gib=70)}
    for memory, expected in ((24, (20, 24)), (100, (70, 80))):
        known = {key: {"model": "m", "used": 20 * GIB, "memory": memory * GIB}}
        found = plan([wish], seen(facts, fleet_gpus=2), footprints=known)["footprints"][key]
        assert (found["used"] // GIB, found["memory"] // GIB) == expected


def test_what_the_operator_declares_goes_before_what_was_measured() -> None:
    wish = one(need=Need(40 * GIB, DECLARED))
    known = {key_of_model(wish, VLLM): {"model": "m", "used": GIB, "memory": 24 * GIB}}
    assert with_need(wish, VLLM, known) == wish
    assert with_need(replace(wish, need=Need()), VLLM, known).need == Need(proved=24 * GIB)
    frugal = {**VLLM, "memory": {**VLLM["memory"], "takes": "need"}}
    assert with_need(replace(wish, need=Need(90 * GIB, ESTIMATE)), frugal, known).need.at_least == GIB


def test_a_second_plan_with_needs_keeps_everything() -> None:
    models = [needs(30, replicas=2), needs(20, name="n")]
    first = plan(models, *small_and_large())
    assert first["problems"] == []
    again = plan(
        models,
        seen(facts_after(first, "gpu01") | {"hardware": hardware("up", "up", memory=24)}, fleet_gpus=2),
        seen(
            facts_after(first, "gpu02") | {"hardware": hardware("up", "up", memory=80)},
            name="gpu02",
            fleet_gpus=2,
        ),
    )
    assert set(actions(again).values()) == {"keep"}


def test_the_catalog_names_every_argument_that_the_estimate_reads() -> None:
    for engine in load_engines().values():
        assert engine.data["memory"]["takes"] in ("share", "need")
    assert set(UNTOLD_ARGS) <= set(VLLM["memory"]["arguments"])
    assert {"max_model_len", "gpu_memory_utilization", "kv_cache_dtype", "dtype"} <= set(
        VLLM["memory"]["arguments"]
    )
