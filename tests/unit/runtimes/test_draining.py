"""Looking at a proxy from outside: what its metrics say, and what is still to be waited for."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import draining
from ansible_collections.modelyard.fleet.plugins.plugin_utils.progress import EVERY_S, Progress

PAGE = r"""
# HELP modelyard_replica_in_flight Requests on a replica now.
modelyard_replica_in_flight{model="m",replica="h.m.0"} 3.0
modelyard_replica_in_flight{model="m",replica="h.m.1"} 0.0
modelyard_replica_in_flight{model="m",replica="other"} 7.0
modelyard_replica_state{model="m",replica="h.m.0",state="draining"} 1.0
modelyard_replica_state{model="a \"quoted\" one",replica="h.m.1",state="ready"} 1.0
modelyard_registry_generation 42.0
modelyard_registry_models 1.0
"""
WISH: dict[str, Any] = {
    "replicas": ["h.m.0", "h.m.1"],
    "drain_s": {"h.m.0": 60},
    "generation": 42,
    "until": "drained",
}


def seen(**more: Any) -> dict[str, Any]:
    page = draining.read_metrics(PAGE, WISH["replicas"])
    return {"state": "up", "why": "", **page, **more}


def test_what_the_metrics_say() -> None:
    assert draining.read_metrics(PAGE, ["h.m.0", "h.m.1"]) == {
        "generation": 42,
        "in_flight": {"h.m.0": 3, "h.m.1": 0},
        "states": {"h.m.0": "draining", "h.m.1": "ready"},
    }


@pytest.mark.parametrize(
    ("look", "wish", "waited_s", "lacking"),
    [
        (seen(), {}, 59.0, "3 in flight on h.m.0"),
        (seen(), {}, 60.0, None),  # its time is over
        (seen(in_flight={"h.m.0": 0}), {}, 0.0, None),
        (seen(in_flight={}), {}, 0.0, None),
        (seen(), {"generation": 43}, 99.0, "it has generation 42 of the registry, not yet 43"),
        (seen(), {"until": "active"}, 0.0, None),  # drained by the registry for another reason
        (
            seen(states={"h.m.0": "failing"}),
            {"until": "active"},
            0.0,
            "h.m.0 is failing, h.m.1 is not listed",
        ),
        (seen(), {"until": "answering", "generation": 99}, 0.0, None),
        ({**seen(), "state": "down"}, {"generation": 99}, 0.0, None),
        ({**seen(), "state": "unknown", "why": "timed out"}, {}, 0.0, "it does not answer (timed out)"),
        ({**seen(), "state": "unknown", "why": "?"}, {"until": "answering"}, 0.0, "it does not answer (?)"),
    ],
)
def test_what_is_waited_for(
    look: dict[str, Any], wish: dict[str, Any], waited_s: float, lacking: str | None
) -> None:
    assert draining.lacks(look, {**WISH, **wish}, waited_s) == lacking


def test_only_who_refuses_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "PROBE_TIMEOUT_S", 0.2)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert draining.look(url, [])["state"] == "down"
        held.listen()  # takes connections and never answers
        assert draining.look(url, [])["state"] == "unknown"


def test_lines_come_when_something_changes_or_time_passes() -> None:
    now, lines = [0.0], []
    progress = Progress("p1", lines.append, lambda: now[0])
    for _ in range(3):
        progress.tell("3 in flight")
    progress.tell("2 in flight")
    now[0] = EVERY_S - 1
    progress.tell("2 in flight")
    now[0] = EVERY_S + 1
    progress.tell("2 in flight")
    assert lines == ["  p1: 3 in flight (0 s)", "  p1: 2 in flight (0 s)", "  p1: 2 in flight (11 s)"]
