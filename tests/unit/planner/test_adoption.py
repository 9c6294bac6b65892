"""Adopted containers in the plan: kept as they are while their wish stands, replaced like any other after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.adopted import described, name_of
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.facts import see
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import (
    Plan,
    make_plan,
    redacted_plan,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Adoption, Model, Source
from ansible_collections.modelyard.fleet.plugins.module_utils.wiring import weights_items

from modelyard.registry.load import find_problems

from .test_plan import ENGINES, actions, model, settings

HUB = Source("hub", "org/a", None)


def named(container: str = "vllm-a", index: int = 0, **more: Any) -> Adoption:
    return Adoption("a", "vllm", "gpu01", container, index, **more)


def wish(*adopt: Adoption, replicas: int = 1, **more: Any) -> Model:
    return model(
        "a",
        replicas=replicas,
        **{"hosts": ("gpu01",), "pattern": "gpu01", "source": HUB, "adopt": adopt, **more},
    )


def running(container: str = "vllm-a", **more: Any) -> dict[str, Any]:
    found = {
        "container": container,
        "container_id": f"id-of-{container}",
        "state": "up",
        "status": "running",
        "gpus": ["0"],
        "bindings": [{"address": "192.0.2.11", "port": 9000, "container_port": 8000}],
        "host_network": False,
    }
    return {**found, **more}


def plan_for(
    models: Sequence[Model],
    adopted: Sequence[Mapping[str, Any]] = (),
    memory: Sequence[Mapping[str, Any]] = (),
    **facts: Any,
) -> Plan:
    seen = see(
        "gpu01",
        settings(),
        {"replicas": [], "docker": "up", "adopted": list(adopted), **facts}
        if facts.get("docker") != "gone"
        else None,
        memory,
        runtimes={"docker"},
        adoptions=[item for one in models for item in one.adopt],
    )
    return make_plan(models, [seen], ENGINES)


def remembered(plan: Plan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(json.dumps(redacted_plan(plan)["assignments"]))
    return found


def test_it_is_the_replica_with_its_own_port_and_gpus() -> None:
    plan = plan_for([wish(named(served_name="org/a"))], [running()])
    assert plan["problems"] == []
    assert actions(plan) == {"gpu01.a.0": "keep"}
    (item,) = plan["assignments"]
    assert item["adopted"] == {
        "container": "vllm-a", "id": "id-of-vllm-a", "served_name": "org/a", "accepted": True, "named": True,
    }  # fmt: skip
    assert (item["port"], item["gpus"]) == (9000, ["0"])
    assert weights_items([item]) == []
    endpoint = plan["registry"]["models"]["a"]["endpoints"][0]
    assert endpoint["url"] == "http://192.0.2.11:9000"
    assert endpoint["served_name"] == "org/a"
    assert (
        find_problems(json.dumps({"version": 1, "models": plan["registry"]["models"]}), "endpoints.yml") == []
    )


def test_its_gpu_and_port_are_given_to_nobody() -> None:
    other = model("b", replicas=3, hosts=("gpu01",), pattern="gpu01")
    plan = plan_for([wish(named()), other], [running(gpus=["0"])])
    given = [item["gpus"] for item in plan["assignments"] if item["model"] == "b"]
    assert given == [["1"], ["2"], ["3"]]


def test_two_that_share_their_gpus_both_stay() -> None:
    items = [running("x", gpus=["all"]), running("y", gpus=["all"], bindings=[{"address": "", "port": 9001}])]
    plan = plan_for([wish(named("x", 0), named("y", 1), replicas=2)], items)
    assert actions(plan) == {"gpu01.a.0": "keep", "gpu01.a.1": "keep"}
    assert {tuple(item["gpus"]) for item in plan["assignments"]} == {("0", "1", "2", "3")}


def test_a_second_run_keeps_it_and_so_does_silence() -> None:
    models = [wish(named())]
    first = plan_for(models, [running()])
    assert actions(plan_for(models, [running()], remembered(first))) == {"gpu01.a.0": "keep"}
    silent = plan_for(models, docker="gone", memory=remembered(first))
    assert actions(silent) == {"gpu01.a.0": "unknown"}
    assert silent["assignments"][0]["adopted"] == first["assignments"][0]["adopted"]
    assert silent["registry"] == first["registry"]


def test_a_changed_wish_replaces_it() -> None:
    pinned = Source("hub", "org/a", "a" * 40)
    plan = plan_for([wish(named(accepted=False), source=pinned)], [running()])
    (change,) = plan["changes"]
    assert (change["action"], change["replica"]) == ("replace", "gpu01.a.0")
    assert change["reason"] == "the wish has changed since container vllm-a was adopted"
    (item,) = plan["assignments"]
    assert item["replaces"] == "id-of-vllm-a"
    assert "adopted" not in item
    # the old one still has its port, which is none of ours
    assert (item["gpus"], item["port"]) == (["0"], 8100)


def test_a_replacement_that_cannot_be_fetched_is_a_problem_and_nothing_else() -> None:
    plan = plan_for([wish(named(accepted=False))], [running()])
    assert any("needs source.revision" in problem for problem in plan["problems"])


def test_one_that_ended_is_replaced_and_one_that_is_gone_is_started_anew() -> None:
    pinned = wish(named(), source=Source("path", "/srv/a"))
    ended = plan_for([pinned], [running(state="down", status="exited")])
    assert ended["changes"][0]["reason"] == "the adopted container vllm-a does not run"
    assert ended["assignments"][0]["replaces"] == "id-of-vllm-a"
    gone = plan_for([pinned])
    assert actions(gone) == {"gpu01.a.0": "start"}
    assert any("no container vllm-a to adopt" in note for note in gone["notes"])


def test_a_paused_one_is_left_alone() -> None:
    plan = plan_for([wish(named())], [running(state="unknown", status="paused")])
    assert actions(plan) == {"gpu01.a.0": "unknown"}
    assert plan["assignments"][0]["port"] == 9000


def test_its_successor_has_its_place_also_while_the_inventory_still_names_it() -> None:
    model_ = wish(named(accepted=False), source=Source("path", "/srv/a"))
    plan = plan_for([model_], [running()])
    item = plan["assignments"][0]
    ours = {
        **{key: item[key] for key in ("replica", "model", "runtime", "hash", "spec", "gpus", "port")},
        "state": "up",
    }
    after = plan_for([model_], [running(state="down", status="exited")], remembered(plan), replicas=[ours])
    assert actions(after) == {"gpu01.a.0": "keep"}
    assert after["notes"] == []
    # cut off before the old one was stopped: the next run does that first
    cut = plan_for([model_], [running()], remembered(plan), replicas=[{**ours, "state": "down"}])
    assert actions(cut) == {"gpu01.a.0": "replace"}
    assert cut["assignments"][0]["replaces"] == "id-of-vllm-a"
    beside = plan_for([model_], [running()], remembered(plan), replicas=[ours])
    assert actions(beside) == {"gpu01.a.0": "keep"}
    assert any("runs beside gpu01.a.0" in note for note in beside["notes"])


def test_one_that_is_named_no_more_is_stopped_or_replaced() -> None:
    first = plan_for([wish(named(), source=Source("path", "/srv/a"))], [running()])
    by_id = running("id-of-vllm-a", container_id="id-of-vllm-a")
    bare = plan_for([wish(source=Source("path", "/srv/a"))], [by_id], remembered(first))
    assert bare["changes"][0]["reason"] == "container vllm-a is no longer adopted"
    assert bare["assignments"][0]["replaces"] == "id-of-vllm-a"
    nothing = plan_for([], [by_id], remembered(first))
    assert actions(nothing) == {"gpu01.a.0": "stop"}
    assert nothing["hosts"]["gpu01"]["stops"] == [
        {"replica": "gpu01.a.0", "runtime": "docker", "container": "id-of-vllm-a"}
    ]


@pytest.mark.parametrize(
    ("item", "port", "says"),
    [
        ({"bindings": [{"address": "127.0.0.1", "port": 9000}]}, None, "proxies come to 192.0.2.11"),
        ({"bindings": []}, None, "publishes no port"),
        (
            {"bindings": [{"address": "", "port": 1}, {"address": "", "port": 2}]},
            None,
            "publishes ports 1, 2",
        ),
        ({"bindings": [{"address": "", "port": 1}]}, 5, "does not publish port 5"),
        ({"bindings": [], "host_network": True}, None, "give adopt[].port"),
    ],
)
def test_one_that_cannot_be_reached_is_a_problem(item: dict[str, Any], port: int | None, says: str) -> None:
    plan = plan_for([wish(named(port=port))], [running(**item)])
    assert any(says in problem for problem in plan["problems"])


@pytest.mark.parametrize(
    ("item", "port"),
    [
        ({"bindings": [{"address": "0.0.0.0", "port": 9000}, {"address": "::", "port": 9000}]}, None),
        ({"bindings": [{"address": "", "port": 1}, {"address": "192.0.2.11", "port": 9000}]}, 9000),
        ({"bindings": [], "host_network": True}, 9000),
    ],
)
def test_one_that_can_be_reached_is_taken(item: dict[str, Any], port: int | None) -> None:
    plan = plan_for([wish(named(port=port))], [running(**item)])
    assert plan["problems"] == []
    assert plan["assignments"][0]["spec"]["url"] == "http://192.0.2.11:9000"


def test_without_adoption_nothing_is_different() -> None:
    plain = replace(wish(), source=Source("path", "/srv/a"))
    assert "adopted" not in plan_for([plain])["assignments"][0]


def test_containers_are_found_by_name_or_id() -> None:
    item = {
        "Id": "0123456789abcdef",
        "Name": "/vllm-a",
        "Config": {"Image": "i"},
        "State": {"Status": "running", "StartedAt": "then"},
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "::1", "HostPort": "9"}], "9/udp": None}},
    }
    assert name_of(item, ["b", "vllm-a"]) == "vllm-a"
    assert name_of(item, ["0123456789ab"]) == "0123456789ab"
    assert name_of(item, ["0123", "vllm"]) is None
    told = described(item, "vllm-a", "up", ["0"])
    assert told["remarks"] == ["has capabilities", "its root is writable", "runs as root"]
    assert told["bindings"] == [{"address": "::1", "port": 9, "container_port": 8000}]
    assert (told["container_id"], told["started_at"], told["host_network"]) == (
        "0123456789abcdef",
        "then",
        False,
    )
