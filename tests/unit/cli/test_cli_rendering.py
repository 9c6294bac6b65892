"""Tables from the results that playbooks write; anything in them may be missing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from click.exceptions import Exit
from rich.console import Console

from modelyard.cli.plan import render_plan, summary
from modelyard.cli.playbooks import Outcome, TaskFailure
from modelyard.cli.problems import Problem, problem_of
from modelyard.cli.status import render_status as render_status_at
from modelyard.cli.tables import age
from modelyard.cli.verbs import show_outcome

PLAN: dict[str, Any] = {
    "assignments": [
        {"replica": "gpu01.m.0", "model": "m", "host": "gpu01", "gpus": ["GPU-1", "GPU-2"], "port": 8100},
        {"replica": "gpu01.m.1", "model": "m", "host": "gpu01", "gpus": [], "port": 8101},
    ],
    "changes": [
        {"action": "keep", "replica": "gpu02.m.0", "model": "m", "host": "gpu02", "reason": ""},
        {"action": "start", "replica": "gpu01.m.0", "model": "m", "host": "gpu01", "reason": "it is new"},
        {"action": "stop", "replica": "gpu01.old.0", "host": "gpu01", "reason": "not wished for [any] more"},
        {"action": "unknown", "replica": "gpu03.m.0", "host": "gpu03", "reason": "the host does not answer"},
        {
            "action": "replace",
            "replica": "gpu01.m.1",
            "host": "gpu01",
            "reason": "max_model_len 4096 -> 8192",
        },
    ],
    "problems": [],
}
STATUS: dict[str, Any] = {
    "hosts": [
        {"name": "gpu01", "state": "up", "docker": "up", "gpus": 8, "replicas_up": 2},
        {"name": "gpu02", "state": "unknown", "reason": "no answer"},
    ],
    "replicas": [
        {"replica": "gpu01.m.0", "model": "m", "host": "gpu01", "state": "up", "port": 8100, "gpus": [0]},
        {"replica": "gpu02.m.1", "model": "m", "host": "gpu02", "state": "unknown"},
    ],
    "proxies": [
        {
            "host": "edge",
            "url": "http://127.0.0.1:8000",
            "state": "up",
            "ready": True,
            "generation": 3,
            "models": ["m"],
        }
    ],
    "endpoints": [{"model": "m", "id": "gpu01.m.0", "url": "http://10.0.0.1:8100", "state": "active"}],
}


NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def render_status(console: Console, result: Mapping[str, Any]) -> None:
    render_status_at(console, result, now=NOW)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2026-11-21T11:59:30Z", "30 s"),
        ("2026-11-21T11:59:30", "30 s"),
        ("2026-11-21T13:58:00+02:00", "2 min"),
        ("2026-11-20T12:00:00Z", "24 h"),
        ("2026-11-01T12:00:00Z", "20 d"),
        ("2026-11-21T12:00:05Z", "0 s"),  # the host's clock is ahead
        ("yesterday", "yesterday"),
        (None, "–"),
    ],
)
def test_moments_are_shown_as_ages(moment: str | None, text: str) -> None:
    assert age(moment, NOW).plain == text


def test_models_of_a_proxy_are_named() -> None:
    models = [{"id": "a", "available": True}, {"id": "b", "available": False}, "c"]
    text = shown(render_status, {"proxies": [{"host": "edge", "models": models}]})
    assert "a, b (not available), c" in text


def test_replicas_keep_their_name_whole_on_a_narrow_terminal() -> None:
    replica = "gpu01.qwen2.5-7b-instruct.0"
    plan = {"changes": [{"action": "start", "replica": replica, "host": "gpu01", "reason": "new " * 30}]}
    status = {
        "replicas": [
            {"replica": replica, "state": "up", "since": "2026-11-21T11:00:00Z", "reason": "x " * 40}
        ]
    }
    assert replica in shown(render_plan, plan, 80)
    assert replica in shown(render_status, status, 80)


def shown(
    render: Callable[[Console, Mapping[str, Any]], None], result: Mapping[str, Any], width: int = 160
) -> str:
    buffer = io.StringIO()
    render(Console(file=buffer, width=width), result)
    return buffer.getvalue()


def test_a_plan_shows_disruption_first_and_sums_up() -> None:
    text = shown(render_plan, PLAN)
    actions = [word for line in text.splitlines() for word in line.split()[1:2] if line.startswith("│")]
    assert actions == ["replace", "stop", "start", "unknown", "keep"]
    assert "GPU-1, GPU-2" in text
    assert "8100" in text
    assert "not wished for [any] more" in text  # square brackets are text, not markup
    assert text.endswith("1 to start, 1 to stop, 1 to replace, 1 kept, 1 unknown, left alone.\n")


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "Nothing is wished for and nothing runs."),
        ({"keep": 3}, "Nothing to do: 3 kept."),
        ({"unknown": 1}, "Nothing to do: 1 unknown, left alone."),
        ({"start": 2, "keep": 0}, "2 to start."),
    ],
)
def test_the_line_under_a_plan(counts: dict[str, int], line: str) -> None:
    assert summary(counts) == line


def test_a_status_has_a_table_for_each_part() -> None:
    text = shown(render_status, STATUS)
    lines = [line.strip() for line in text.splitlines()]
    titles = ["Hosts", "Replicas", "Proxies", "Endpoints"]
    assert [line for line in lines if line in titles] == titles
    assert "http://10.0.0.1:8100" in text
    assert "unknown" in text
    assert text.endswith("Replicas: 1 unknown, 1 up.\n")


@pytest.mark.parametrize("width", [20, 80])
@pytest.mark.parametrize(
    "result",
    [
        {},
        {"changes": None, "hosts": None, "replicas": 5},
        {"changes": [{}], "hosts": [{}], "replicas": [{}, "x"], "proxies": {"edge": {"ready": False}}},
        {
            "changes": [{"action": "dance", "replica": None, "gpus": {"a": 1}}],
            "endpoints": [{"state": "[red]"}],
        },
    ],
)
def test_what_is_missing_or_odd_breaks_nothing(result: dict[str, Any], width: int) -> None:
    assert shown(render_plan, result, width)
    assert shown(render_status, result, width)


def test_an_unknown_state_is_never_shown_as_down() -> None:
    text = shown(render_status, {"replicas": [{"replica": "a.b.0", "host": "a"}]})
    assert "unknown" in text
    assert "down" not in text


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("a sentence", Problem("a sentence")),
        (
            {
                "file": "models.yml",
                "line": 3,
                "column": 7,
                "model": "m",
                "field": "args.x",
                "message": "no",
                "hint": "y",
            },
            Problem("no", "models.yml:3:7", "model m · args.x", "y"),
        ),
        ({"message": "no", "host": "gpu01", "line": None, "file": None}, Problem("no", "", "host gpu01")),
        ({"odd": 1}, Problem("{'odd': 1}")),
    ],
)
def test_problems_of_any_shape(value: object, problem: Problem) -> None:
    assert problem_of(value) == problem


FAILED = TaskFailure("gpu01", "Look at the containers", "no Docker here")


@pytest.mark.parametrize(
    ("outcome", "code", "parts"),
    [
        (Outcome("successful", PLAN, (), ""), 0, ["1 to start"]),
        (
            Outcome("successful", {"changes": [], "problems": ["8 GPUs wished for, 4 there"]}, (), ""),
            1,
            ["8 GPUs"],
        ),
        (
            Outcome("failed", None, (FAILED,), "x"),
            1,
            ['gpu01: failed at "Look at the containers": no Docker here'],
        ),
        (Outcome("failed", {"problems": [{"message": "bad", "file": "f"}]}, (FAILED,), ""), 1, ["bad"]),
        (Outcome("failed", PLAN, (FAILED,), ""), 1, ["1 to start", "no Docker here"]),
        (Outcome("failed", None, (), "[ERROR]: no such host"), 1, ["[ERROR]: no such host"]),
        (Outcome("failed", None, (), ""), 1, ["said nothing"]),
        (Outcome("successful", None, (), ""), 1, ["wrote no result"]),
        (
            Outcome("successful", PLAN, (FAILED,), ""),
            0,
            ["1 to start"],
        ),  # the playbook lived with that failure
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_outcomes_are_told_and_decide_the_exit_code(
    outcome: Outcome, code: int, parts: list[str], as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    found = 0
    try:
        show_outcome(outcome, render_plan, as_json=as_json)
    except Exit as exc:
        found = exc.exit_code
    assert found == code
    text = "".join(capsys.readouterr())
    if not as_json:
        assert all(part in text for part in parts)
        return
    told = json.loads(text)
    assert code == 0 or told.get("failures") or told.get("problems")
    told.pop("failures", None)
    assert told == (outcome.result or {})
