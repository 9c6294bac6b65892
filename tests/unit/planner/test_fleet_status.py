"""Status: three values, each with a reason that says what to do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import fleet_status

WISHED = {"replica": "h.m.0", "model": "m", "host": "h", "port": 8100, "gpus": ["0"], "hash": "one"}
SEEN = {"replica": "h.m.0", "model": "m", "state": "up", "hash": "one", "started_at": "2026-01-01T00:00:00Z"}
READY = {"replica": "h.m.0", "ready": True}


def row(
    wished: dict[str, Any] | None = WISHED,
    seen: dict[str, Any] | None = SEEN,
    probe: dict[str, Any] | None = READY,
    host: str = "up",
) -> dict[str, Any]:
    return fleet_status.replica_row(wished, seen, probe, "h", host)


def test_a_replica_that_runs_and_answers() -> None:
    found = row()
    assert (found["state"], found["health"], found["reason"]) == ("up", "ready", "")
    assert (found["since"], found["port"], found["gpus"]) == (SEEN["started_at"], 8100, ["0"])


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({"host": "unknown"}, "unknown", "the host does not answer"),
        ({"seen": None}, "down", "wished, but not on the host: run deploy"),
        ({"seen": SEEN | {"state": "down"}}, "down", "it stopped: run deploy to start it again"),
        ({"seen": SEEN | {"state": "unknown", "status": "paused"}}, "unknown", "its runtime says: paused"),
        ({"probe": {"ready": False, "error": "refused"}}, "up", "it runs, but does not answer as it should"),
        ({"wished": None}, "up", "not in the inventory: deploy would stop it"),
        ({"seen": SEEN | {"hash": "two"}}, "up", "runs with other settings than declared: see plan"),
    ],
)
def test_anything_else_says_why(changes: dict[str, Any], state: str, reason: str) -> None:
    found = row(**changes)
    assert (found["state"], found["reason"]) == (state, reason)


def test_a_host_that_did_not_answer_hides_nothing_and_promises_nothing() -> None:
    plan = {"assignments": [WISHED]}
    facts: dict[str, Any] = {"h": {"unreachable": True}, "quiet": {}}
    replicas = fleet_status.replica_rows(plan, facts, {})
    assert [(one["replica"], one["state"]) for one in replicas] == [("h.m.0", "unknown")]
    hosts = fleet_status.host_rows(facts, replicas, {})
    assert [(one["name"], one["state"], one["replicas_up"]) for one in hosts] == [
        ("h", "unknown", 0),
        ("quiet", "unknown", 0),
    ]


def test_endpoints_tell_what_is_behind_a_promise() -> None:
    registry = {"models": {"m": {"endpoints": [{"id": "h.m.0", "url": "u"}, {"id": "other", "url": "v"}]}}}
    slow = row(probe={"ready": False, "error": "no answer in time"})
    assert [one["state"] for one in fleet_status.endpoint_rows(registry, [slow])] == ["not ready", "unknown"]
    assert [one["state"] for one in fleet_status.endpoint_rows(registry, [row()])] == ["up", "unknown"]


@pytest.mark.parametrize(
    ("asked", "state", "ready"),
    [
        ({"unreachable": True}, "unknown", False),
        ({"live": False, "ready": False, "models": []}, "down", False),
        ({"live": True, "ready": False, "models": []}, "up", False),
        ({"live": True, "ready": True, "models": [], "registry": {"generation": 7}}, "up", True),
    ],
)
def test_a_proxy(asked: dict[str, Any], state: str, ready: bool) -> None:
    found = fleet_status.proxy_row("p", asked)
    assert (found["state"], found["ready"]) == (state, ready)


def test_what_is_kept_only_because_its_host_is_silent_is_not_wished() -> None:
    plan = {"assignments": [{"replica": "h.x.0", "model": "x", "host": "h", "port": 8100, "wished": False}]}
    (row,) = fleet_status.replica_rows(plan, {"h": {}}, {})
    assert (row["state"], row["wished"]) == ("unknown", False)
    assert fleet_status.host_rows({"h": {}}, [row], {})[0]["replicas_wished"] == 0


def test_gpus_are_used_blocked_unwell_or_free() -> None:
    plan = {
        "gpus": ["0", "1", "2", "3", "4"],
        "blocked_gpus": {"2": "trainer", "0": "seen twice"},
        "unwell_gpus": {"0": "hot, but used", "2": "hot, and used by others", "3": "hot"},
    }
    (host,) = fleet_status.host_rows({"h": {"replicas": []}}, [row()], {"h": plan})
    counts = [host[f"gpus_{name}"] for name in ("used", "free", "blocked", "unwell")]
    assert counts == [1, 2, 1, 1]


def test_a_proxy_tells_its_endpoints_by_their_state() -> None:
    entry = {"endpoints": [{"id": "a"}, {"id": "b", "state": "draining"}, {"id": "c", "state": "active"}]}
    found = fleet_status.proxy_row("p", {"live": True, "registry": {"models": {"m": entry}}, "generation": 4})
    assert (found["endpoints"], found["in_force"]) == ({"active": 2, "draining": 1}, 4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "up"),
        ({"replica": {"state": "down"}}, "down"),
        ({"replica": {"health": "refused"}}, "down"),
        ({"replica": {"state": "down", "wished": False}}, "up"),
        ({"replica": {"state": "unknown"}}, "unknown"),
        ({"proxy": {"state": "down"}, "replica": {"state": "unknown"}}, "down"),
        ({"host": {"state": "unknown"}}, "unknown"),
        ({"host": {"state": "unknown", "name": "not asked"}}, "up"),
    ],
)
def test_the_fleet_as_a_whole(changes: dict[str, dict[str, Any]], expected: str) -> None:
    status = {
        "hosts": [{"name": "h", "state": "up"} | changes.get("host", {})],
        "replicas": [row() | changes.get("replica", {})],
        "proxies": [{"host": "p", "state": "up"} | changes.get("proxy", {})],
    }
    assert fleet_status.overall(status, ["h", "p"]) == expected
