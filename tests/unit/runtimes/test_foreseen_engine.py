"""A check on a host whose container engine the run would have installed by now: everything is yet to start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.engine import EngineError
from ansible_collections.modelyard.fleet.plugins.modules import replicas

from tests.unit.planner.test_plan import model, plan_for

NOBODY = {"gpu02": None, "gpu03": None}


def foreseen(tmp_path: Path, **facts: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan and the module's parameters for a host of this kind."""
    plan = plan_for([model("m", 2)], {"gpu01": {"replicas": [], **facts}, **NOBODY})
    host = json.loads(json.dumps(plan["hosts"]["gpu01"]))
    defaults = {name: option.get("default") for name, option in replicas.SPEC.items()}
    wish = {"home": str(tmp_path), "replicas": host["replicas"], "docker_socket": str(tmp_path / "no.sock")}
    return plan, {**defaults, **wish, "engine_foreseen": True}


def test_the_plan_counts_on_the_engine_and_says_so(tmp_path: Path) -> None:
    plan, params = foreseen(tmp_path, docker="foreseen")
    assert plan["problems"] == []
    assert [change["action"] for change in plan["changes"]] == ["start", "start"]
    assert [note for note in plan["notes"] if note.startswith("gpu01:")] == [
        "gpu01: gets its container engine by this run, and is planned as if it had it"
    ]
    results, _ = replicas.reconcile(params, True)
    assert [(one["action"], one["reason"], one["changed"], one["error"]) for one in results] == [
        ("start", "is not there yet", True, "")
    ] * 2
    assert list(tmp_path.iterdir()) == []


def test_without_the_run_there_is_no_engine_to_count_on() -> None:
    plan = plan_for([model("m")], {"gpu01": {"replicas": [], "docker": "absent"}, **NOBODY})
    (problem,) = plan["problems"]
    assert "gpu01 has no docker command: site.yml and hosts.yml install Docker" in problem


def test_out_of_check_mode_the_engine_is_asked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(socket: str) -> None:
        raise EngineError(f"nobody answers at {socket}")

    monkeypatch.setattr(replicas, "Engine", silent)
    _, params = foreseen(tmp_path, docker="foreseen")
    with pytest.raises(EngineError, match="nobody answers"):
        replicas.reconcile(params, False)
