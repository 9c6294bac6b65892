"""What the controller remembers of the last run, and what a damaged memory does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.modelyard.fleet.plugins.action.plan import read_generation, read_memory


def test_nothing_is_remembered_before_the_first_run(tmp_path: Path) -> None:
    assert read_memory(tmp_path / "assignments.json") == []
    assert read_generation(tmp_path / "registry.json") == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"version": 1, "assignm',
        "[]",
        '{"version": 1, "assignments": null}',
        '{"version": 1, "assignments": [{}]}',
        '{"version": 1, "assignments": ["x"]}',
        '{"version": 2, "assignments": []}',
    ],
)
def test_a_damaged_memory_stops_the_plan_and_says_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "assignments.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AnsibleActionFail, match="Restore it from a backup"):
        read_memory(path)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(("text", "generation"), [('{"generation": 7}', 7), ('{"gener', 0), ("[]", 0)])
def test_the_generation_of_the_registry(tmp_path: Path, text: str, generation: int) -> None:
    path = tmp_path / "registry.json"
    path.write_text(text, encoding="utf-8")
    assert read_generation(path) == generation


def test_the_memory_holds_what_an_unknown_host_needs(tmp_path: Path) -> None:
    path = tmp_path / "assignments.json"
    item = dict.fromkeys(
        ("replica", "model", "host", "index", "gpus", "port", "runtime", "engine", "hash", "spec"), 0
    )
    path.write_text(json.dumps({"version": 1, "assignments": [item]}), encoding="utf-8")
    assert read_memory(path) == [item]
