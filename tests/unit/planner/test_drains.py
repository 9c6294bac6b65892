"""What is drained until further notice: said, taken back, and kept where something else still asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.modelyard.fleet.plugins.action.plan import (
    _of_this_run,
    _with_image,
    read_drained,
    read_unproved,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import drains
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.plan import redacted_plan

from .test_plan import model, plan_for, settled

HOST = {"kind": "host", "name": "gpu01", "since": 5}


def test_rules_are_added_once_and_taken_back_by_name() -> None:
    rules = drains.added([HOST], {"host": "gpu01", "model": "a"}, 9.0)
    assert rules == [HOST, {"kind": "model", "name": "a", "since": 9}]
    assert drains.taken_back(rules, {"model": "a"}) == [HOST]
    assert drains.taken_back(rules, {"host": "another"}) == rules
    assert drains.taken_back(rules, {"all": "all"}) == []


def test_what_another_rule_keeps_out_is_said() -> None:
    replicas = [{"replica": "gpu01.a.0", "model": "a", "host": "gpu01"}]
    said = drains.still_drained([HOST], {"replica": "gpu01.a.0"}, replicas)
    assert said == ["gpu01.a.0 stays drained, for its host gpu01 is: undrain that"]
    assert drains.still_drained([], {"replica": "gpu01.a.0"}, replicas) == []


def test_a_drained_host_gets_no_requests_and_may_be_changed_at_once() -> None:
    wish = [model("a", replicas=2)]
    facts, memory = settled(wish)
    plan = redacted_plan(plan_for(wish, facts, memory, drained=[HOST]))
    states = {one["id"]: one["state"] for one in plan["registry"]["models"]["a"]["endpoints"]}
    assert states == {"gpu01.a.0": "draining", "gpu02.a.1": "active"}
    assert "host gpu01 is drained: no requests until undrain" in plan["notes"]
    changed = [model("a", replicas=2, args={"max_model_len": 9}, rollout={"min_ready": 1})]
    plan = redacted_plan(plan_for(changed, facts, memory, drained=[HOST]))
    # the other one is all that serves, so it stays; this one takes nothing away
    assert [step["replicas"] for step in plan["rollout"]["steps"]] == [["gpu01.a.0"]]
    assert [one["replica"] for one in plan["rollout"]["held"]] == ["gpu02.a.1"]
    assert plan["rollout"]["before"]["gpu01.a.0"]["endpoint"]["state"] == "draining"


def test_what_is_remembered_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "drained.json"
    assert read_drained(path) == []
    path.write_text(
        '{"version": 1, "drained": [{"kind": "host", "name": "h", "since": 1}]}', encoding="utf-8"
    )
    assert read_drained(path) == [{"kind": "host", "name": "h", "since": 1}]
    for broken in ("[]", "{", '{"version": 1, "drained": [{"kind": "rack", "name": "h"}]}'):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(AnsibleActionFail, match="says what is drained and cannot be read"):
            read_drained(path)
        assert read_unproved(path) == {}


@pytest.mark.parametrize(
    ("args", "hosts", "min_ready"),
    [
        ({}, ("gpu01", "gpu02", "gpu03"), None),
        ({"without_host": "gpu02", "fewer": True}, ("gpu01", "gpu03"), 0),
    ],
)
def test_what_only_one_run_wants(args: dict[str, Any], hosts: tuple[str, ...], min_ready: int | None) -> None:
    found = _of_this_run(model("a"), {"without_host": "", "fewer": False, **args})
    assert (found.hosts, found.rollout.get("min_ready")) == (hosts, min_ready)


def test_another_image_for_one_run_is_that_of_every_host() -> None:
    entry = {"engine": "vllm", "image": "old", "images": {"gpu01": "older"}}
    assert _with_image(entry, {"vllm": "new"}) == {"engine": "vllm", "image": "new", "images": {}}
    assert _with_image(entry, {"tgi": "new"}) == entry
