"""What the controller remembers of the last run, and what a damaged memory does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.modelyard.fleet.plugins.action.plan import (
    read_generation,
    read_memory,
)
from ansible_collections.modelyard.fleet.plugins.plugin_utils.memory import read_known


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


def test_what_was_seen_of_gpus_is_read_as_far_as_it_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "assignments.json"
    nothing: dict[str, Any] = {"footprints": {}, "gpus": {}, "weights": {}}
    assert read_known(path) == nothing
    for text in ("{", "[]", "{}", '{"gpus": [1], "footprints": {}}'):
        path.write_text(text, encoding="utf-8")
        assert read_known(path) == nothing
    sound: dict[str, Any] = {
        "footprints": {"key": {"model": "m", "used": 1, "memory": 2}},
        "gpus": {"h": {"0": {"memory": 2, "unwell": ""}, "1": {"memory": None, "unwell": "hot"}}},
        "weights": {"m@1": {"config": {}, "files_bytes": None}},
    }
    odd = {
        "footprints": {"a": None, "b": {"used": 1}, "c": {"used": "1", "memory": 2}},
        "gpus": {"i": None, "h": {"2": {"memory": 2}, "3": {"unwell": ""}, "4": 1}},
        "weights": {"x": {"config": {}}, "y": []},
    }
    mixed = {name: {**odd[name], **sound[name]} for name in sound}
    mixed["gpus"]["h"] = {**odd["gpus"]["h"], **sound["gpus"]["h"]}  # type: ignore[dict-item]
    path.write_text(json.dumps(mixed), encoding="utf-8")
    assert read_known(path) == sound
