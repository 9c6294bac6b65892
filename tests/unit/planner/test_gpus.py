"""Which GPUs of a host are given to a replica: those that are well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen, see
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import Plan, make_plan
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Model

from tests.unit.planner.test_plan import ENGINES, actions, facts_after, model, settings

GIB = 2**30
BAD = "Memory of GPU 1 (NVIDIA L40S, 0000:22:00.0) has had 3 errors."


def hardware(*health: str, memory: int = 80, state: str = "up", **more: Any) -> dict[str, Any]:
    """What ``fleet_facts`` tells of GPUs with this health."""
    gpus = [
        {
            "index": at,
            "uuid": f"GPU-{at}",
            "address": f"0000:2{at}:00.0",
            "name": "NVIDIA L40S",
            "memory_total": memory * GIB,
            "memory_used": 0,
            "health": one,
            "reason": "" if one == "up" else BAD.replace("GPU 1", f"GPU {at}"),
            "instances": [],
            "used": {},
        }
        for at, one in enumerate(health)
    ]
    return {"vendor": "nvidia", "state": state, "reason": "", "gpus": gpus, "groups": [], "links": [], **more}


def seen(facts: dict[str, Any] | None = None, name: str = "gpu01", **given: Any) -> Seen:
    found = {"replicas": [], "docker": "up", **(facts or {})}
    gpus = found.get("hardware", {}).get("gpus", [])
    found["gpus"] = [{"index": one["index"], "uuid": one["uuid"], "memory_mib": 81559} for one in gpus]
    return see(name, settings(**given), found, [], runtimes={"docker"})


def plan(models: Sequence[Model], *hosts: Seen, **more: Any) -> Plan:
    return make_plan(models, hosts, ENGINES, **more)


def one(name: str = "m", gpus: int = 1, hosts: tuple[str, ...] = ("gpu01",), **more: Any) -> Model:
    return model(name, gpus=gpus, hosts=hosts, **more)


def given(found: Plan) -> dict[str, list[str]]:
    return {item["replica"]: item["gpus"] for item in found["assignments"]}


@pytest.mark.parametrize(
    ("health", "setting", "expected"),
    [
        (("down", "unknown", "up", "up"), "up", ["2", "3"]),
        (("down", "unknown", "up", "up"), "not_down", ["1", "2"]),
        (("down", "unknown", "up", "up"), "any", ["0", "1"]),
    ],
)
def test_only_gpus_that_are_well_are_given(
    health: tuple[str, ...], setting: str, expected: list[str]
) -> None:
    found = plan([one("a"), one("b")], seen({"hardware": hardware(*health)}, fleet_gpu_health=setting))
    assert sorted(gpu for gpus in given(found).values() for gpu in gpus) == expected
    assert found["problems"] == []


def test_the_plan_says_which_gpu_is_not_given_and_why() -> None:
    found = plan([one()], seen({"hardware": hardware("up", "down", "up", "up")}))
    assert f"gpu01: GPU 1 is given to no new replica, since its health is down: {BAD}" in found["notes"]
    assert list(found["hosts"]["gpu01"]["unwell_gpus"]) == ["1"]


def test_a_wish_that_fails_for_lack_of_healthy_gpus_says_so() -> None:
    found = plan([one(replicas=3)], seen({"hardware": hardware("up", "down", "up", "unknown")}))
    (problem,) = found["problems"]
    assert "2 of 3 replicas placed" in problem
    assert "gpu01 has 0 of 4 GPUs free" in problem
    assert "GPU 1 is not given: its health is down: Memory of GPU 1" in problem
    assert "GPU 3 is not given: its health is unknown" in problem


@pytest.mark.parametrize("health", ["down", "unknown"])
def test_what_runs_on_a_gpu_gone_bad_stays_and_is_reported(health: str) -> None:
    models = [one(replicas=2)]
    before = plan(models, seen({"hardware": hardware("up", "up", "up", "up")}))
    facts = facts_after(before, "gpu01") | {"hardware": hardware("up", health, "up", "up")}
    found = plan(models, seen(facts))
    assert set(actions(found).values()) == {"keep"}
    assert given(found) == given(before)
    assert any(
        f"gpu01.m.1 runs on a GPU that is not known to be well (GPU 1 is {health})" in note
        for note in found["notes"]
    )


def test_what_runs_on_a_gpu_that_is_gone_stays() -> None:
    models = [one(replicas=4)]
    before = plan(models, seen({"hardware": hardware("up", "up", "up", "up")}))
    found = plan(models, seen(facts_after(before, "gpu01") | {"hardware": hardware("up", "up", "up")}))
    assert set(actions(found).values()) == {"keep"}
    assert given(found) == given(before)
    assert "gpu01: 4 GPUs declared, 3 of them found" in found["notes"]
    assert list(found["hosts"]["gpu01"]["unwell_gpus"]) == ["3"]


def test_a_restart_takes_a_replica_off_a_bad_gpu_and_no_other() -> None:
    models = [one(replicas=2)]
    before = plan(models, seen({"hardware": hardware("up", "up", "up", "up")}))
    facts = facts_after(before, "gpu01") | {"hardware": hardware("up", "down", "up", "up")}
    restart = [{"kind": "host", "name": "gpu01"}]
    found = plan(models, seen(facts), restart=restart)
    assert actions(found) == {"gpu01.m.0": "replace", "gpu01.m.1": "replace"}
    assert given(found) == {"gpu01.m.0": ["0"], "gpu01.m.1": ["2"]}
    reasons = {change["replica"]: change["reason"] for change in found["changes"]}
    assert reasons["gpu01.m.0"] == "a restart is asked for"
    assert reasons["gpu01.m.1"].startswith("a restart is asked for: gpus: [1] -> [2]")


def test_a_restart_that_moves_a_replica_to_another_host_is_nothing_but_a_restart() -> None:
    hosts = ("gpu01", "gpu02")
    for replicas in (1, 2):
        models = [one(replicas=replicas, hosts=hosts)]
        other = seen({"hardware": hardware("up", "up", "up")}, name="gpu02", fleet_gpus=3)
        before = plan(models, seen({"hardware": hardware("up")}, fleet_gpus=1), other)
        facts = facts_after(before, "gpu01") | {"hardware": hardware("down")}
        there = facts_after(before, "gpu02") | {"hardware": hardware("up", "up", "up")}
        now = (seen(facts, fleet_gpus=1), seen(there, name="gpu02", fleet_gpus=3))
        found = plan(models, *now, restart=[{"kind": "host", "name": "gpu01"}])
        changed = [change for change in found["changes"] if change["action"] != "keep"]
        assert {change["action"] for change in changed} == {"start", "stop"}
        assert all(change["reason"].startswith("a restart is asked for: ") for change in changed)
        # a replica more is another change
        more = plan(
            [one(replicas=replicas, hosts=hosts), one("n", hosts=("gpu02",))],
            *now,
            restart=[{"kind": "host", "name": "gpu01"}],
        )
        (other_change,) = [change for change in more["changes"] if change["model"] == "n"]
        assert not other_change["reason"].startswith("a restart")


def test_a_restart_on_a_gpu_of_unknown_health_moves_nothing() -> None:
    models = [one(replicas=2)]
    before = plan(models, seen({"hardware": hardware("up", "up", "up", "up")}))
    facts = facts_after(before, "gpu01") | {"hardware": hardware("up", "unknown", "up", "up")}
    found = plan(models, seen(facts), restart=[{"kind": "host", "name": "gpu01"}])
    assert given(found) == given(before)


def test_a_change_that_has_only_a_bad_gpu_is_a_problem_and_not_a_start() -> None:
    models = [one(replicas=4)]
    before = plan(models, seen({"hardware": hardware("up", "up", "up", "up")}))
    facts = facts_after(before, "gpu01") | {"hardware": hardware("up", "down", "up", "up")}
    found = plan([one(replicas=4, args={"max_model_len": 4096})], seen(facts))
    (problem,) = found["problems"]
    assert "GPU 1 is not given: its health is down" in problem


def test_what_is_down_does_not_come_back_on_a_bad_gpu() -> None:
    models = [one()]
    facts = facts_after(plan(models, seen({"hardware": hardware("up", "up")})), "gpu01")
    facts["replicas"][0]["state"] = "down"
    found = plan(models, seen(facts | {"hardware": hardware("down", "up")}))
    assert given(found) == {"gpu01.m.0": ["1"]}


def test_nothing_known_of_a_host_gives_nothing_and_frees_nothing() -> None:
    models = [one(replicas=1)]
    before = plan(models, seen({"hardware": hardware("up", "up", "up", "up")}))
    silent = hardware(state="unknown", reason="nvidia-smi did not answer within 20 s")
    facts = facts_after(before, "gpu01") | {"hardware": silent}
    found = plan([one(replicas=2)], seen(facts))
    assert given(found) == given(before)
    assert actions(found) == {"gpu01.m.0": "keep"}
    assert "nvidia-smi did not answer within 20 s" in found["problems"][0]


def test_one_gpu_by_two_names_is_given_once() -> None:
    facts = {"hardware": hardware("up", "up")}
    found = plan([one(replicas=3)], seen(facts, fleet_gpus=[0, "GPU-0", "GPU-1"]))
    assert sorted(gpu for gpus in given(found).values() for gpu in gpus) == ["0", "GPU-1"]
    assert "it is the same as GPU 0" in found["problems"][0]


def test_an_instance_of_a_cut_gpu_has_the_health_of_its_gpu() -> None:
    found = hardware("up", "down")
    for item in found["gpus"]:
        item["instances"] = [{"uuid": f"MIG-{item['index']}", "memory_total": 20 * GIB}]
    host = seen({"hardware": found}, fleet_gpus=["MIG-0", "MIG-1"]).host
    assert list(host.unwell_gpus) == ["MIG-1"]
    assert host.devices["MIG-0"].memory == 20 * GIB


def test_a_host_that_is_only_listed_is_as_it_was() -> None:
    host = seen({"gpus": []}, fleet_gpu_memory_gib=48).host
    assert host.gpus == ("0", "1", "2", "3")
    assert (dict(host.unwell_gpus), host.devices["0"].memory) == ({}, 48 * GIB)
