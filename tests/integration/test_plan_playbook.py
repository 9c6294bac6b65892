"""The playbooks check and plan, run for real: a host that is there, one that does not answer, and what is remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tools import UNREACHABLE_SSH
from tests.tools.ports import free_range

ROOT = Path(__file__).resolve().parents[2]
SECRET = "correct-horse-battery"

HOSTS = """
all:
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    fleet_runtime: process
  children:
    engine_hosts:
      hosts:
        here: {ansible_connection: local, fleet_home: HOME/here, fleet_ports: HERE}
        dead: {ansible_host: 127.0.0.1, ansible_ssh_executable: SSH, fleet_home: HOME/dead, fleet_ports: DEAD}
    proxy_hosts:
      hosts:
        here:
"""
MODELS = f"""
secret: {SECRET}
models:
  - id: a
    engine: echo
    args: {{delay: 0}}
    env: {{TOKEN: "{{{{ secret }}}}"}}
    placement: {{hosts: engine_hosts, replicas: 2}}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    directory = tmp_path / "inventory"
    (directory / "group_vars" / "all").mkdir(parents=True)
    text = HOSTS
    for name in ("HERE", "DEAD"):
        text = text.replace(name, "{}-{}".format(*free_range(10)))
    text = text.replace("HOME", str(tmp_path)).replace("SSH", str(UNREACHABLE_SSH))
    (directory / "hosts.yml").write_text(text, encoding="utf-8")
    (directory / "group_vars" / "all" / "models.yml").write_text(MODELS, encoding="utf-8")
    return directory


def play(name: str, inventory: Path, *more: str) -> tuple[int, str, dict[str, Any]]:
    """Exit status, output and the result file of a playbook."""
    result = inventory.parent / "result.json"
    result.unlink(missing_ok=True)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(inventory), f"playbooks/{name}.yml"),
            *("-e", f"modelyard_result_file={result}", *more),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(inventory.parent),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr, json.loads(result.read_text(encoding="utf-8"))


def actions(result: dict[str, Any]) -> dict[str, str]:
    return {change["replica"]: change["action"] for change in result["changes"]}


def remember(inventory: Path, plan: dict[str, Any]) -> None:
    state = inventory / ".modelyard"
    state.mkdir(exist_ok=True)
    memory = {"version": 1, "assignments": plan["assignments"]}
    (state / "assignments.json").write_text(json.dumps(memory), encoding="utf-8")


def test_plan_leaves_out_a_host_that_does_not_answer(inventory: Path) -> None:
    code, output, plan = play("plan", inventory, "-v")
    assert code == 0, output
    assert actions(plan) == {"here.a.0": "start", "here.a.1": "start"}
    assert plan["hosts"]["dead"]["state"] == "unknown"
    assert "Plan: 2 to start, 0 to stop, 0 to replace, 0 stay, 0 unknown." in output
    assert "Not seen, left as they are: dead" in output
    assert SECRET not in output
    assert SECRET not in json.dumps(plan)
    assert not (inventory / ".modelyard").exists()


def test_what_was_applied_on_a_silent_host_stays(inventory: Path) -> None:
    _, _, plan = play("plan", inventory)
    moved = json.loads(json.dumps(plan).replace("here.a.1", "dead.a.1"))
    for item in moved["assignments"]:
        item["host"] = item["replica"].split(".")[0]
    remember(inventory, moved)
    code, output, again = play("plan", inventory, "--check", "-e", "plan_format=json")
    assert code == 0, output
    assert actions(again) == {"here.a.0": "start", "dead.a.1": "unknown"}
    assert [one["id"] for one in again["registry"]["models"]["a"]["endpoints"]] == ["dead.a.1", "here.a.0"]
    assert '"kind": "plan"' in output


def test_a_limit_makes_the_other_hosts_unknown_not_free(inventory: Path) -> None:
    _, _, plan = play("plan", inventory)
    remember(inventory, plan)
    code, output, limited = play("plan", inventory, "--limit", "dead")
    assert code == 0, output
    assert actions(limited) == {"here.a.0": "unknown", "here.a.1": "unknown"}


def test_a_wish_that_cannot_be_met_fails_the_plan_after_showing_it(inventory: Path) -> None:
    models = inventory / "group_vars" / "all" / "models.yml"
    models.write_text(MODELS.replace("replicas: 2", "replicas: 11"), encoding="utf-8")
    code, output, plan = play("plan", inventory)
    assert code == 2
    assert plan["ok"] is False
    assert len(plan["assignments"]) == 10
    assert "model a: 10 of 11 replicas placed, each needs a free port" in output
    assert "dead did not answer" in output


def test_a_memory_that_cannot_be_read_stops_the_plan(inventory: Path) -> None:
    (inventory / ".modelyard").mkdir()
    (inventory / ".modelyard" / "assignments.json").write_text("{", encoding="utf-8")
    code, output, _ = play("plan", inventory)
    assert code == 2
    assert "assignments.json remembers what the last deploy applied and cannot be read" in output


def test_a_broken_inventory_stops_before_any_host_is_touched(inventory: Path) -> None:
    models = inventory / "group_vars" / "all" / "models.yml"
    models.write_text(MODELS.replace("replicas: 2", "replcas: 2").replace("engine: echo", "engine: ecco"))
    code, output, result = play("plan", inventory)
    assert code == 2
    assert "The inventory has 2 problems; no host was touched." in output
    assert "Observe" not in output
    assert result["kind"] == "check"
    assert [(item["code"], item["line"], item["model"], item["field"]) for item in result["problems"]] == [
        ("unknown-engine", 5, "a", "engine"),
        ("unknown-key", 8, "a", "placement.replcas"),
    ]
