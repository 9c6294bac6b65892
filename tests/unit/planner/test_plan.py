"""Plans of small fleets: what starts, stops, is replaced or stays, and what the plan says about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import Seen, see
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import (
    Plan,
    make_plan,
    redacted_plan,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host, Model, Source

from modelyard.catalog import load_engines
from modelyard.inventory import host_settings
from modelyard.registry.load import load_text

ENGINES = {name: engine.data for name, engine in load_engines().items()}
HOSTS = {
    name: Host(name, accelerator="nvidia", gpus=("0", "1", "2", "3"), address=f"192.0.2.{at}")
    for at, name in enumerate(("gpu01", "gpu02", "gpu03"), 11)
}


def model(name: str, replicas: int = 1, gpus: int = 1, **more: Any) -> Model:
    base: dict[str, Any] = {
        "name": name,
        "task": "generate",
        "engine": "vllm",
        "hosts": tuple(HOSTS),
        "pattern": "engine_hosts",
        "source": Source("path", f"/srv/models/{name}"),
    }
    return Model(id=name, replicas=replicas, gpus=gpus, **{**base, **more})


def settings(**given: Any) -> dict[str, Any]:
    return host_settings(
        {"fleet_accelerator": "nvidia", "fleet_gpus": 4, **given},
        name="gpu01",
        ansible_host="192.0.2.11",
        local=False,
        inventory_dir="/inventory",
        python="/usr/bin/python3",
    )


def facts_after(plan: Plan, host: str, **changed: Any) -> dict[str, Any]:
    """What fleet_facts would say once the plan has been carried out."""
    replicas = [
        {
            "replica": item["replica"],
            "model": item["model"],
            "runtime": item["runtime"],
            "state": "up",
            "hash": item["hash"],
            "spec": item["spec"],
            "gpus": item["gpus"],
            "port": item["port"],
        }
        for item in json.loads(json.dumps(redacted_plan(plan)))["hosts"][host]["replicas"]
    ]
    return {"replicas": replicas, "docker": "up", "process": "absent", "listening_ports": [], **changed}


def plan_for(
    models: Sequence[Model],
    seen: Mapping[str, Mapping[str, Any] | None] | None = None,
    memory: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> Plan:
    views = []
    for name, host in HOSTS.items():
        found = (seen or {}).get(name, {"replicas": [], "docker": "up"})
        one = see(
            name,
            settings(fleet_address=host.address),
            found,
            [item for item in memory if item["host"] == name],
            runtimes={"docker"},
        )
        views.append(one)
    return make_plan(models, views, ENGINES, **more)


def settled(models: Sequence[Model]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Facts and memory of a fleet on which this wish has been deployed."""
    plan = plan_for(models)
    return {name: facts_after(plan, name) for name in HOSTS}, redacted_plan(plan)["assignments"]


def actions(plan: Plan) -> dict[str, str]:
    return {change["replica"]: change["action"] for change in plan["changes"]}


def test_replicas_of_one_model_spread_and_models_pack() -> None:
    plan = plan_for([model("a", replicas=3), model("b"), model("c")])
    where = {item["replica"]: item["gpus"] for item in plan["assignments"]}
    assert {"gpu01.a.0", "gpu02.a.1", "gpu03.a.2"} < set(where)
    assert {"gpu01.b.0", "gpu01.c.0"} < set(where)
    assert set(actions(plan).values()) == {"start"}


def test_two_gpus_are_neighbours() -> None:
    plan = plan_for([model("a", gpus=1, hosts=("gpu01",)), model("b", gpus=2, hosts=("gpu01",))])
    gpus = {item["model"]: item["gpus"] for item in plan["assignments"]}
    assert gpus == {"b": ["0", "1"], "a": ["2"]}


def test_a_second_plan_keeps_everything() -> None:
    models = [model("a", replicas=3), model("b", gpus=2)]
    facts, memory = settled(models)
    plan = plan_for(models, facts, memory)
    assert set(actions(plan).values()) == {"keep"}
    assert plan["counts"] == {"start": 0, "stop": 0, "replace": 0, "keep": 4, "unknown": 0}


def test_a_changed_argument_replaces_exactly_that_model_and_says_why() -> None:
    facts, memory = settled([model("a", replicas=2, args={"max_model_len": 4096}), model("b")])
    plan = plan_for([model("a", replicas=2, args={"max_model_len": 8192}), model("b")], facts, memory)
    reasons = {one["replica"]: one["reason"] for one in plan["changes"] if one["action"] == "replace"}
    assert reasons == dict.fromkeys(("gpu01.a.0", "gpu02.a.1"), "max_model_len: 4096 -> 8192")
    assert actions(plan)["gpu01.b.0"] == "keep"


def test_a_changed_secret_shows_without_its_value() -> None:
    facts, memory = settled([model("a", env={"HF_TOKEN": "old-secret"})])
    in_place = {"surge": False}
    plan = plan_for([model("a", env={"HF_TOKEN": "new-secret", "B": "1"}, rollout=in_place)], facts, memory)
    assert plan["changes"][0]["reason"] == "env.B added; env.HF_TOKEN changed"
    assert plan["assignments"][0]["spec"]["env"]["HF_TOKEN"] == "new-secret"
    report = json.dumps(redacted_plan(plan))
    assert "secret" not in report
    assert "sha256:" in report


def test_removing_a_model_stops_its_replicas_only() -> None:
    facts, memory = settled([model("a", replicas=2), model("b")])
    plan = plan_for([model("b")], facts, memory)
    assert actions(plan) == {"gpu01.a.0": "stop", "gpu02.a.1": "stop", "gpu01.b.0": "keep"}
    assert plan["hosts"]["gpu02"]["stops"] == [{"replica": "gpu02.a.1", "runtime": "docker"}]
    assert plan["changes"][0]["reason"] == "model a is no longer in the inventory"
    assert list(plan["registry"]["models"]) == ["b"]


def test_scaling_down_removes_the_highest_index_but_a_down_one_first() -> None:
    facts, memory = settled([model("a", replicas=3)])
    assert actions(plan_for([model("a", replicas=2)], facts, memory))["gpu03.a.2"] == "stop"
    facts["gpu01"]["replicas"][0]["state"] = "down"
    assert actions(plan_for([model("a", replicas=2)], facts, memory)) == {
        "gpu01.a.0": "stop",
        "gpu02.a.1": "keep",
        "gpu03.a.2": "keep",
    }


def test_a_stop_says_why() -> None:
    facts, memory = settled([model("a", replicas=3)])

    def reasons(wish: Model) -> list[str]:
        changes = plan_for([wish], facts, memory)["changes"]
        return [change["reason"] for change in changes if change["action"] == "stop"]

    assert reasons(model("a", replicas=2)) == ["2 wished, 3 there"]
    moved = model("a", replicas=3, hosts=("gpu01", "gpu02"), pattern="engine_hosts:!gpu03")
    assert reasons(moved) == ["gpu03 does not match engine_hosts:!gpu03"]


def test_a_replica_that_is_down_is_started_in_its_place() -> None:
    facts, memory = settled([model("a", replicas=2)])
    facts["gpu02"]["replicas"][0]["state"] = "down"
    plan = plan_for([model("a", replicas=2)], facts, memory)
    assert actions(plan) == {"gpu01.a.0": "keep", "gpu02.a.1": "start"}
    assert [item["observed"] for item in plan["assignments"]] == ["up", "down"]


def test_a_replica_that_vanished_comes_back_where_it_was() -> None:
    facts, memory = settled([model("a", replicas=2), model("b", hosts=("gpu02",))])
    before = {item["replica"]: (item["gpus"], item["port"]) for item in memory}
    facts["gpu02"]["replicas"] = []
    plan = plan_for([model("a", replicas=2), model("b", hosts=("gpu02",))], facts, memory)
    assert {item["replica"]: (item["gpus"], item["port"]) for item in plan["assignments"]} == before
    assert actions(plan) == {"gpu01.a.0": "keep", "gpu02.a.1": "start", "gpu02.b.0": "start"}


def test_a_host_that_does_not_answer_keeps_what_it_had() -> None:
    models = [model("a", replicas=2, args={"max_model_len": 4096}), model("b")]
    facts, memory = settled(models)
    facts["gpu02"] = None
    plan = plan_for([model("a", replicas=2, args={"max_model_len": 8192}), model("b")], facts, memory)
    assert actions(plan) == {"gpu01.a.0": "replace", "gpu02.a.1": "unknown", "gpu01.b.0": "keep"}
    kept = next(item for item in plan["assignments"] if item["host"] == "gpu02")
    assert kept["observed"] == "unknown"
    assert kept["hash"] == next(item["hash"] for item in memory if item["host"] == "gpu02")
    assert plan["hosts"]["gpu02"]["state"] == "unknown"
    endpoints = plan["registry"]["models"]["a"]["endpoints"]
    assert [one["id"] for one in endpoints] == ["gpu01.a.0", "gpu02.a.1"]


def test_a_removed_model_on_a_silent_host_is_remembered_but_not_routed() -> None:
    facts, memory = settled([model("a", replicas=2)])
    facts["gpu02"] = None
    plan = plan_for([], facts, memory)
    assert actions(plan) == {"gpu01.a.0": "stop", "gpu02.a.1": "unknown"}
    assert [(item["replica"], item["wished"]) for item in plan["assignments"]] == [("gpu02.a.1", False)]
    assert plan["registry"]["models"] == {}
    # and once the host answers again, it is stopped
    answered, _ = settled([model("a", replicas=2)])
    again = plan_for([], answered, redacted_plan(plan)["assignments"])
    assert actions(again)["gpu02.a.1"] == "stop"


def test_an_impossible_wish_does_not_stop_the_others() -> None:
    plan = plan_for([model("huge", replicas=2, gpus=4), model("a", replicas=6)], {"gpu03": None})
    placed = {item["replica"] for item in plan["assignments"]}
    assert placed == {"gpu01.huge.0", "gpu02.huge.1"}
    (problem,) = plan["problems"]
    assert problem == (
        "model a: 0 of 6 replicas placed, each needs 1 GPU on one host; of the hosts matching engine_hosts: "
        "gpu01 has 0 of 4 GPUs free; gpu02 has 0 of 4 GPUs free; gpu03 did not answer"
    )


def test_gpus_and_ports_of_others_are_left_alone() -> None:
    facts = {
        "gpu01": {
            "replicas": [],
            "docker": "up",
            "foreign": [{"name": "training", "gpus": ["GPU-b"]}],
            "gpus": [
                {"index": 0, "uuid": "GPU-a", "foreign_processes": [4711]},
                {"index": 1, "uuid": "GPU-b", "foreign_processes": []},
                {"index": 2, "uuid": "GPU-c", "foreign_processes": []},
            ],
            "listening_ports": [8100, 8102],
        },
        "gpu02": None,
        "gpu03": None,
    }
    plan = plan_for([model("a", replicas=2)], facts)
    assert [(item["gpus"], item["port"]) for item in plan["assignments"]] == [(["2"], 8101)]
    assert "gpu01 has 0 of 3 GPUs free (2 used by others)" in plan["problems"][0]
    assert plan["notes"] == ["gpu01: 4 GPUs declared, 3 of them found"]


def test_a_docker_daemon_that_does_not_answer_makes_the_host_unknown() -> None:
    facts, memory = settled([model("a", replicas=3)])
    facts["gpu03"] = {
        "replicas": [],
        "docker": "unknown",
        "process": "absent",
        "problems": ["docker ps: timeout"],
    }
    plan = plan_for([model("a", replicas=3)], facts, memory)
    assert actions(plan)["gpu03.a.2"] == "unknown"
    assert (
        "gpu03: docker does not answer, so the host counts as unknown and is left as it is" in plan["notes"]
    )


def test_a_paused_container_is_nobodys_to_touch() -> None:
    facts, memory = settled([model("a")])
    facts["gpu01"]["replicas"][0]["state"] = "unknown"
    plan = plan_for([model("a", args={"max_model_len": 1})], facts, memory)
    assert actions(plan) == {"gpu01.a.0": "unknown"}


def test_a_changed_runtime_stops_the_old_one() -> None:
    toy = model("toy", gpus=0, engine="echo", source=None, runtime="docker", image="echo:1", hosts=("gpu01",))
    facts, memory = settled([toy])
    plan = plan_for([replace(toy, runtime="process", image=None)], facts, memory)
    assert [change["action"] for change in plan["changes"]] == ["replace"]
    assert "runtime: docker -> process" in plan["changes"][0]["reason"]
    assert plan["hosts"]["gpu01"]["stops"] == [{"replica": "gpu01.toy.0", "runtime": "docker"}]


def test_registry_models_are_what_the_proxy_reads() -> None:
    routing = {"aliases": ["chat"], "timeouts": {"idle_s": 5}, "weight": 3}
    plan = plan_for([model("a", replicas=2, routing=routing), model("idle", replicas=0)])
    document = {"version": 1, "generation": 1, **plan["registry"]}
    registry = load_text(json.dumps(document), "endpoints.yml")
    assert set(registry.models) == {"a", "idle"}
    entry = plan["registry"]["models"]["a"]
    assert entry["timeouts"] == {"connect_s": 5, "first_byte_s": 120, "idle_s": 5, "total_s": 0}
    assert entry["endpoints"][0] == {
        "id": "gpu01.a.0",
        "url": "http://192.0.2.11:8100",
        "engine": "vllm",
        "served_name": "a",
        "weight": 3,
        "state": "active",
        "host": "gpu01",
        "expires_at": None,
    }


def test_home_of_the_user_is_the_hosts_own() -> None:
    own = settings(fleet_runtime="process", fleet_address="127.0.0.1")
    seen: Seen = see(
        "gpu01",
        own,
        {"replicas": [], "docker": "absent", "user_home": "/home/me"},
        [],
        runtimes={"process"},
    )
    assert seen.host.weights_dir == "/home/me/.local/state/modelyard/modelyard/weights"
    assert seen.host.python == "/home/me/.local/state/modelyard/modelyard/venv/bin/python"


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [(3, ("0", "1", "2")), ([1, "GPU-x"], ("1", "GPU-x")), (0, ())],
)
def test_declared_gpus(gpus: Any, expected: tuple[str, ...]) -> None:
    seen = see("gpu01", settings(fleet_gpus=gpus), {"replicas": [], "docker": "up"}, [], runtimes={"docker"})
    assert seen.host.gpus == expected


def test_an_orphan_is_replaced_in_its_place() -> None:
    facts, memory = settled([model("a")])
    facts["gpu01"]["replicas"][0] |= {"lost": "it has outlived its supervisor"}
    facts["gpu01"]["listening_ports"] = [8100]
    plan = plan_for([model("a")], facts, memory)
    (change,) = plan["changes"]
    assert (change["action"], change["reason"]) == ("replace", "it has outlived its supervisor")
    assert (plan["assignments"][0]["port"], plan["assignments"][0]["gpus"]) == (8100, ["0"])
