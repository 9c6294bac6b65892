"""A process, its launch file and its record against the wish."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.drift import processes
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.shown import digest, shown
from ansible_collections.modelyard.fleet.plugins.module_utils.launch import process_program
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import redacted, spec_hash
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import MARK, Home

SECRET = "correct-horse-battery"


def assignment(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "executable": ["/opt/venv/bin/engine"],
        "command": ["serve", "--port", "8100", "--max-model-len", "4096"],
        "env": {"TOKEN": SECRET, "LEVEL": "1"},
        "gpus": ["0"],
        "accelerator": "nvidia",
        "publish": {"address": "127.0.0.1", "port": 8100, "container_port": 8100},
        "stop_timeout_s": 5,
        "log": {"max_size": "1m", "max_files": 1},
        **changes,
    }
    return {"replica": "h.m.0", "runtime": "process", "spec": spec, "hash": spec_hash(spec)}


PROGRAM = process_program(assignment())
WORDS = ["/opt/venv/bin/engine", "serve", "--port", "8100", "--max-model-len", "4096"]
ENVIRONMENT = {"TOKEN": SECRET, "LEVEL": "1", "CUDA_VISIBLE_DEVICES": "0", "PATH": "/bin"}


def fields(differences: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["kind"], item["field"]) for item in differences]


@pytest.mark.parametrize(
    "words",
    [WORDS, ["/usr/bin/python3", *WORDS], ["/usr/bin/python3", "-P", *WORDS], ["engine: worker"], None],
)
def test_a_process_as_wished_or_one_that_cannot_be_judged(words: list[str] | None) -> None:
    assert processes.process_differences(PROGRAM, 1, words, ENVIRONMENT) == []
    assert processes.process_differences(PROGRAM, 1, words, None) == []


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ([*WORDS[:-1], "8192"], ENVIRONMENT, [("arguments", "max_model_len")]),
        ([*WORDS, "--trust-remote-code"], ENVIRONMENT, [("arguments", "trust_remote_code")]),
        (WORDS[:-2], ENVIRONMENT, [("arguments", "max_model_len")]),
        ([*WORDS[:3], "8101", *WORDS[4:]], ENVIRONMENT, [("ports", "port")]),
        (WORDS, ENVIRONMENT | {"TOKEN": "other"}, [("environment", "env.TOKEN")]),
        (WORDS, {"TOKEN": SECRET, "LEVEL": "1"}, [("gpus", "env.CUDA_VISIBLE_DEVICES")]),
    ],
)
def test_a_process_that_differs(words: list[str], environment: dict[str, str], expected: list[Any]) -> None:
    found = processes.process_differences(PROGRAM, 1, words, environment)
    assert fields(found) == expected
    assert SECRET not in json.dumps(found)


@pytest.mark.parametrize(
    ("launch", "expected"),
    [
        ({"command": WORDS, "environment": PROGRAM["environment"]}, []),
        (None, [("settings", "launch file")]),
        ({"command": "engine", "environment": {}}, [("settings", "launch file")]),
        (
            {"command": ["/bin/other", *WORDS[1:]], "environment": PROGRAM["environment"]},
            [("arguments", "executable")],
        ),
        (
            {"command": [*WORDS, "--api-key", SECRET], "environment": PROGRAM["environment"]},
            [("arguments", "api_key")],
        ),
        (
            {"command": [*WORDS[:2], *WORDS[4:], *WORDS[2:4]], "environment": PROGRAM["environment"]},
            [("arguments", "command")],
        ),
        (
            {"command": WORDS, "environment": PROGRAM["environment"] | {"ADDED": SECRET}},
            [("environment", "env.ADDED")],
        ),
    ],
)
def test_the_launch_file(launch: dict[str, Any] | None, expected: list[Any]) -> None:
    found = processes.launch_differences(PROGRAM, 1, launch)
    assert fields(found) == expected
    assert SECRET not in json.dumps(found)


def recorded(home: Home, wish: dict[str, Any]) -> None:
    """What a deploy of this wish leaves."""
    program = process_program(wish)
    folder = home.program_folder("h.m.0")
    folder.mkdir(parents=True, exist_ok=True)
    launch = {"command": program["command"], "environment": program["environment"], "directory": None}
    (folder / "launch.json").write_text(json.dumps(launch), encoding="utf-8")
    (folder / "spec.json").write_text(
        json.dumps({"replica": "h.m.0", "hash": wish["hash"], "spec": redacted(wish["spec"])}),
        encoding="utf-8",
    )


def test_the_record_tells_what_neither_process_nor_launch_file_shows(tmp_path: Path) -> None:
    home = Home(tmp_path)
    recorded(home, assignment())
    assert processes.differences(home, assignment()) == []
    changed = assignment(stop_timeout_s=60)
    found = processes.differences(home, changed)
    assert [(item["field"], item["wanted"], item["found"]) for item in found] == [
        ("stop_timeout_s", "60", "5")
    ]
    (home.program_folder("h.m.0") / "spec.json").write_text("{", encoding="utf-8")
    assert fields(processes.differences(home, assignment())) == [("settings", "record")]


def test_a_real_process_is_read_by_its_own_word(tmp_path: Path) -> None:
    home = Home(tmp_path)
    sleep = [sys.executable, "-c", "import sys; sys.stdin.read()", "--port", "8100"]
    wish = assignment(executable=sleep[:1], command=sleep[1:])
    recorded(home, wish)
    folder = home.program_folder("h.m.0")
    environment = {"TOKEN": "another", "LEVEL": "1", "CUDA_VISIBLE_DEVICES": "0", MARK: str(folder.resolve())}
    with subprocess.Popen([*sleep, "--slow"], stdin=subprocess.PIPE, env=environment) as process:
        (folder / "pid").write_text(str(process.pid), encoding="utf-8")
        found = processes.differences(home, wish)
        assert process.stdin is not None
        process.stdin.close()
    assert [(item["field"], item["seen_in"]) for item in found] == [
        ("slow", "process"),
        ("env.TOKEN", "process"),
    ]


def test_values_are_cut_short_and_secrets_are_digests() -> None:
    assert shown("env.X", "v") == digest("v") == shown("api_key", "v")
    assert shown("max_num_batched_tokens", "2048") == "2048"
    assert len(str(shown("command", "x" * 500))) == 120
    assert shown("image", None) is None
