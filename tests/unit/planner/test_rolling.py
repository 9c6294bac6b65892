"""What a roll knows: what the registry says at each moment, and what a host's word or silence means."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import rolling
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import redacted_plan

from modelyard.registry.load import find_problems

from .test_plan import HOSTS, actions, facts_after, model, plan_for, settled


def endpoints(plan: Any, book: Any) -> dict[str, tuple[str, str]]:
    """State and port by replica."""
    return {
        one["id"]: (one["state"], one["url"].rpartition(":")[2])
        for entry in rolling.registry_at(plan, book).values()
        for one in entry["endpoints"]
    }


def changed_plan() -> Any:
    """Model a gets another argument and loses its third replica; b takes the place of c, which goes for good."""
    before = [model("a", replicas=3, hosts=("gpu01", "gpu02")), model("c", hosts=("gpu03",))]
    facts, memory = settled(before)
    after = [
        replace(model("a", replicas=2, hosts=("gpu01", "gpu02")), args={"max_model_len": 99}),
        model("b", hosts=("gpu03",)),
    ]
    return redacted_plan(plan_for(after, facts, memory))


def word(step: Any, **more: Any) -> dict[str, Any]:
    return {"step": step["number"], "done": [], "stopped": [], "put_back": [], "why": "", **more}


def test_the_steps_of_a_plan() -> None:
    plan = changed_plan()
    assert [
        (step["number"], step["kind"], step["replicas"], step["stops"]) for step in plan["rollout"]["steps"]
    ] == [
        (1, "canary and stop", ["gpu01.a.0"], ["gpu03.c.0"]),
        (2, "percent and start", ["gpu02.a.1", "gpu03.b.0"], []),
        (3, "stop", [], ["gpu01.a.2"]),
    ]
    assert plan["rollout"]["steps"][0]["hosts"] == ["gpu01", "gpu03"]
    assert plan["rollout"]["held"] == []


def test_the_registry_at_each_moment_lists_only_what_runs() -> None:
    plan = changed_plan()
    first, second, third = plan["rollout"]["steps"]
    book = rolling.empty_book()

    def at() -> dict[str, str]:
        return {name: state for name, (state, _) in endpoints(plan, book).items()}

    assert at() == dict.fromkeys(("gpu01.a.0", "gpu02.a.1", "gpu01.a.2", "gpu03.c.0"), "active")
    book = rolling.begin(book, first, plan)
    assert at() == {
        "gpu01.a.0": "draining",
        "gpu02.a.1": "active",
        "gpu01.a.2": "active",
        "gpu03.c.0": "draining",
    }
    text = json.dumps({"version": 1, "generation": 1, "models": rolling.registry_at(plan, book)})
    assert find_problems(text, "x") == []
    told = {
        "gpu01": word(first, done=["gpu01.a.0"]),
        "gpu03": word(first, stopped=["gpu03.c.0"]),
    }
    book = rolling.settle(book, first, told, plan)
    assert book["halt"] == []
    assert at() == dict.fromkeys(("gpu01.a.0", "gpu02.a.1", "gpu01.a.2"), "active")
    assert rolling.used_of_step(plan, book, first) == ["gpu01.a.0"]
    told = {"gpu02": word(second, done=["gpu02.a.1"]), "gpu03": word(second, done=["gpu03.b.0"])}
    book = rolling.settle(rolling.begin(book, second, plan), second, told, plan)
    assert at() == dict.fromkeys(("gpu01.a.0", "gpu02.a.1", "gpu01.a.2", "gpu03.b.0"), "active")
    book = rolling.settle(
        rolling.begin(book, third, plan), third, {"gpu01": word(third, stopped=["gpu01.a.2"])}, plan
    )
    assert rolling.registry_at(plan, book) == plan["registry"]["models"]


def test_a_host_that_is_silent_ends_the_roll_and_gets_no_requests() -> None:
    plan = changed_plan()
    first = plan["rollout"]["steps"][0]
    told = {"gpu01": None, "gpu03": word(first, stopped=["gpu03.c.0"])}
    book = rolling.settle(rolling.begin({}, first, plan), first, told, plan)
    assert "gpu01 was not heard of again" in book["halt"][0]
    assert {name: state for name, (state, _) in endpoints(plan, book).items()} == {
        "gpu01.a.0": "draining",
        "gpu02.a.1": "active",
        "gpu01.a.2": "active",
    }


@pytest.mark.parametrize(("put_back", "state"), [(["gpu01.a.0"], "active"), ([], "draining")])
def test_what_was_put_back_serves_again_and_nothing_else(put_back: list[str], state: str) -> None:
    plan = changed_plan()
    first = plan["rollout"]["steps"][0]
    told = {
        "gpu01": word(first, put_back=put_back, why="it failed"),
        "gpu03": word(first, stopped=["gpu03.c.0"]),
    }
    book = rolling.settle(rolling.begin({}, first, plan), first, told, plan)
    assert book["halt"] == ["gpu01: it failed"]
    found = {name: one for name, (one, _) in endpoints(plan, book).items()}
    assert found == {"gpu01.a.0": state, "gpu02.a.1": "active", "gpu01.a.2": "active"}


def test_a_start_that_failed_and_is_gone_is_listed_nowhere() -> None:
    plan = redacted_plan(plan_for([model("a")]))
    (step,) = plan["rollout"]["steps"]
    told = {"gpu01": word(step, put_back=["gpu01.a.0"], why="no")}
    book = rolling.settle(rolling.begin({}, step, plan), step, told, plan)
    assert endpoints(plan, book) == {}
    assert rolling.used_of_step(plan, book, step) == []


def test_a_failed_task_says_what_is_in_doubt() -> None:
    step = {"number": 4, "stops": ["h.s.0"]}
    ids = ["h.m.0", "h.m.1"]
    rows = [{"replica": "h.m.0", "ok": True, "error": None}, {"replica": "h.m.1", "ok": False, "error": "no"}]
    assert rolling.failed_word({"msg": "no", "replicas": rows}, step, ids) == {
        "step": 4,
        "done": ["h.m.0"],
        "stopped": ["h.s.0"],
        "failed": ["h.m.1"],
        "put_back": [],
        "why": "no",
    }
    changing = [{"replica": "h.s.0", "error": ""}, {"replica": "h.m.0", "error": "pull failed"}]
    found = rolling.failed_word({"msg": "pull failed", "replicas": changing}, step, ids)
    assert (found["failed"], found["stopped"]) == (ids, ["h.s.0"])
    found = rolling.failed_word({}, step, ids)
    assert (found["failed"], found["stopped"], found["why"]) == (ids, [], "failed")


def test_min_ready_holds_what_an_unknown_host_makes_scarce() -> None:
    wish = [model("a", replicas=2)]
    facts, memory = settled(wish)
    plan = plan_for([replace(wish[0], args={"max_model_len": 99})], {**facts, "gpu02": None}, memory)
    assert plan["rollout"]["steps"] == []
    assert plan["rollout"]["held"] == [
        {"replica": "gpu01.a.0", "reason": "1 of a serve now and rollout.min_ready is 1"}
    ]
    assert set(endpoints(redacted_plan(plan), {})) == {"gpu01.a.0", "gpu02.a.1"}


def test_what_a_run_started_and_did_not_prove_is_proved_before_it_is_used() -> None:
    wish = [model("a", replicas=2)]
    facts, memory = settled(wish)
    hashes = {item["replica"]: item["hash"] for item in memory}
    plan = plan_for(wish, facts, memory, unproved={"gpu01.a.0": hashes["gpu01.a.0"], "gpu02.a.1": "another"})
    plan = redacted_plan(plan)
    (step,) = plan["rollout"]["steps"]
    assert (step["kind"], step["replicas"], step["drain"]) == ("start", ["gpu01.a.0"], ["gpu01.a.0"])
    assert {name: state for name, (state, _) in endpoints(plan, {}).items()} == {
        "gpu01.a.0": "draining",
        "gpu02.a.1": "active",
    }
    book = rolling.begin({"unproved": plan["unproved"]}, step, plan)
    assert book["unproved"] == {**hashes, "gpu02.a.1": "another"}
    book = rolling.settle(book, step, {"gpu01": word(step, done=["gpu01.a.0"])}, plan)
    assert book["unproved"] == {"gpu02.a.1": "another"}
    assert {state for state, _ in endpoints(plan, book).values()} == {"active"}


def test_a_single_replica_is_said_to_pause() -> None:
    wish = [model("a")]
    facts, memory = settled(wish)
    full = [replace(wish[0], args={"max_model_len": 99}, rollout={"surge": False})]
    plan = plan_for(full, facts, memory)
    assert any("nothing serves it until the new one is ready" in note for note in plan["notes"])
    assert [step["kind"] for step in plan["rollout"]["steps"]] == ["canary"]


def test_a_single_replica_surges_where_there_is_room() -> None:
    wish = [model("a")]
    facts, memory = settled(wish)
    changed = [replace(wish[0], args={"max_model_len": 99})]
    plan = redacted_plan(plan_for(changed, facts, memory))
    assert actions(plan) == {"gpu01.a.0": "stop", "gpu01.a.1": "start"}
    stop = next(change for change in plan["changes"] if change["action"] == "stop")
    assert stop["reason"].startswith("gpu01.a.1 takes its place once it is ready: ")
    assert "max_model_len: none -> 99" in stop["reason"]
    assert [(step["kind"], step["replicas"], step["stops"]) for step in plan["rollout"]["steps"]] == [
        ("canary", ["gpu01.a.1"], []),
        ("stop", [], ["gpu01.a.0"]),
    ]
    assert [item["gpus"] for item in plan["assignments"]] == [["1"]]
    assert plan["notes"] == []
    # the new place is kept from then on
    after = {**facts, "gpu01": facts_after(plan, "gpu01")}
    assert actions(plan_for(changed, after, plan["assignments"])) == {"gpu01.a.1": "keep"}
    # with every GPU taken it is replaced in place
    full = [replace(changed[0], hosts=("gpu01",)), model("b", gpus=3, hosts=("gpu01",))]
    facts, memory = settled([replace(wish[0], hosts=("gpu01",)), full[1]])
    assert actions(plan_for(full, facts, memory)) == {"gpu01.a.0": "replace", "gpu01.b.0": "keep"}


def test_what_is_down_is_listed_once_it_runs() -> None:
    wish = [model("a", replicas=2)]
    facts, memory = settled(wish)
    down = facts_after(plan_for(wish), "gpu02")
    down["replicas"] = [{**one, "state": "down"} for one in down["replicas"]]
    plan = redacted_plan(plan_for(wish, {**facts, "gpu02": down}, memory))
    assert list(endpoints(plan, {})) == ["gpu01.a.0"]
    assert set(endpoints(plan, {"applied": ["gpu02.a.1"]})) == {"gpu01.a.0", "gpu02.a.1"}
    assert len(HOSTS) == 3


def test_what_differs_by_hand_is_replaced_in_steps() -> None:
    wish = [model("a", replicas=2)]
    facts, memory = settled(wish)
    plan = plan_for(
        wish, facts, memory, differs={"gpu02.a.1": "memory: 1 -> 2", "gpu09.other.0": "no matter"}
    )
    assert actions(plan) == {"gpu01.a.0": "keep", "gpu02.a.1": "replace"}
    assert [step["replicas"] for step in plan["rollout"]["steps"]] == [["gpu02.a.1"]]


def test_what_an_earlier_run_kept_is_discarded_too() -> None:
    wish = [model("a", replicas=2)]
    facts, memory = settled(wish)
    plan = plan_for(wish, facts, memory)
    left = {"replicas": [{"replica": "gpu01.a.0", "previous": {"state": "down"}}]}
    book = {"applied": ["gpu02.a.1"]}
    assert [one["replica"] for one in rolling.to_confirm(plan, "gpu01", book, left)] == ["gpu01.a.0"]
    assert rolling.to_confirm(plan, "gpu01", book, {}) == []
    assert [one["replica"] for one in rolling.to_confirm(plan, "gpu02", book, {})] == ["gpu02.a.1"]


def test_what_was_not_put_back_is_seen() -> None:
    plan = changed_plan()
    was = plan["rollout"]["before"]["gpu01.a.0"]["hash"]

    def look(state: str, value: str) -> list[str]:
        row = {"replica": "gpu01.a.0", "state": state, "hash": value}
        return rolling.not_back(plan, ["gpu01.a.0", "gpu03.b.0"], {"replicas": [row]})

    assert look("up", was) == []
    assert look("up", "another") == look("down", was) == ["gpu01.a.0: what ran before does not run"]


def test_a_book_remembers_which_images_were_started() -> None:
    done = {
        "replicas": [{"replica": "a", "image_id": "sha256:1", "image_digest": "x@sha256:2"}, {"replica": "b"}]
    }
    assert rolling.images_of(done) == {"a": {"image_id": "sha256:1", "digest": "x@sha256:2"}}
    assert rolling.images_of({}) == {}
