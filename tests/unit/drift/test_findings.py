"""Plan and observations -> findings: each difference once, the unknown as unknown, others' things as notes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.findings import compose
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.words import KINDS

ENDPOINT = {"id": "h.m.0", "url": "http://10.0.0.1:8100", "state": "active"}
MODELS = {"m": {"aliases": ["a"], "endpoints": [ENDPOINT]}}
PLAN: dict[str, Any] = {
    "hosts": {"h": {"state": "up", "blocked_gpus": {}, "replicas": [{"replica": "h.m.0"}], "stops": []}},
    "changes": [{"action": "keep", "replica": "h.m.0", "host": "h", "reason": "up"}],
    "registry": {"models": MODELS},
    "problems": [],
}
REPLICA = {"replica": "h.m.0", "state": "up", "status": "running"}
FACTS: dict[str, Any] = {"h": {"replicas": [REPLICA], "foreign": []}}
SAME: dict[str, Any] = {"h": {"replicas": [{"replica": "h.m.0", "differences": []}]}}
PROXIES: dict[str, Any] = {
    "p": {
        "live": True,
        "registry": {"generation": 7, "models": MODELS},
        "registry_problem": "",
        "generation": 7,
        "in_step": True,
    }
}


def found(
    plan: Any = PLAN,
    facts: Any = FACTS,
    compared: Any = SAME,
    proxies: Any = PROXIES,
    asked: Any = ("h", "p"),
) -> list[tuple[str, str, str, str, str]]:
    """Severity, host, kind, subject and field of every finding, with the rest checked for its shape."""
    findings = compose(plan, facts, compared, proxies, asked)
    for item in findings:
        assert item["kind"] in KINDS
        assert item["what"].startswith(("deploy mends it", "site mends it", "look", "nothing"))
    return [tuple(item[key] for key in ("severity", "host", "kind", "subject", "field")) for item in findings]  # type: ignore[misc]


def changed(data: Any, *path: Any, to: Any) -> Any:
    """A copy with one value replaced."""
    copied = copy.deepcopy(data)
    place = copied
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return copied


def action(name: str, reason: str = "because") -> Any:
    return changed(PLAN, "changes", 0, to={"action": name, "replica": "h.m.0", "host": "h", "reason": reason})


def test_what_is_as_declared_gives_nothing() -> None:
    assert found() == []


def seen(**more: Any) -> Any:
    return {"h": {"replicas": [REPLICA | more]}}


def beside(key: str, item: dict[str, Any]) -> Any:
    return {"h": {**SAME["h"], key: [item]}}


MOUNTS = {"kind": "mounts", "field": "mounts", "wanted": "a", "found": "b", "seen_in": "container"}
WEIGHTS = {"model": "m", "destination": "/w", "field": "marker", "wanted": "x", "found": "y"}
KEPT = {
    "name": "f-h.m.0.previous",
    "replica": "h.m.0",
    "state": "exited",
    "why": "old",
    "mended": False,
    "advice": "wait",
}
STATE = ("replica", "h.m.0", "state")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"plan": action("start"), "facts": {"h": {"replicas": []}}, "compared": {}}, STATE),
        ({"plan": action("start"), "facts": seen(state="down")}, STATE),
        ({"plan": action("stop")}, STATE),
        ({"plan": action("replace"), "facts": seen(lost="an orphan")}, STATE),
        ({"plan": action("replace")}, ("settings", "h.m.0", "launch spec")),
        (
            {"compared": {"h": {"replicas": [{"replica": "h.m.0", "differences": [MOUNTS]}]}}},
            ("mounts", "h.m.0", "mounts"),
        ),
        ({"compared": beside("weights", WEIGHTS)}, ("weights", "m in /w", "marker")),
        ({"compared": beside("leftovers", KEPT)}, ("leftover", "f-h.m.0.previous", "state")),
        ({"facts": seen(runtime="process", previous={})}, None),
        (
            {"facts": seen(runtime="process", previous={"name": "x"})},
            ("leftover", "h.m.0 (previous)", "state"),
        ),
        ({"plan": changed(PLAN, "hosts", "h", "blocked_gpus", to={"0": "x"})}, ("gpus", "GPU 0", "used by")),
    ],
)
def test_a_difference_on_an_engine_host(
    changes: dict[str, Any], expected: tuple[str, str, str] | None
) -> None:
    assert found(**changes) == ([("drift", "h", *expected)] if expected else [])


@pytest.mark.parametrize(
    ("path", "to", "expected"),
    [
        (("live",), False, [("proxy", "p", "state")]),
        (("registry",), {}, [("registry", "p", "file")]),
        (("registry_problem",), "no JSON", [("registry", "p", "file")]),
        (("registry", "models", "m", "endpoints"), [], [("registry", "h.m.0", "endpoint")]),
        (("registry", "models", "m", "endpoints"), [ENDPOINT, {"id": "x"}], [("registry", "x", "endpoint")]),
        (("registry", "models", "m", "endpoints", 0, "state"), "draining", [("registry", "h.m.0", "state")]),
        (("registry", "models", "m", "endpoints", 0, "url"), "http://else", [("registry", "h.m.0", "url")]),
        (("registry", "models", "m", "aliases"), [], [("registry", "model m", "aliases")]),
        (("registry", "models"), {}, [("registry", "h.m.0", "endpoint"), ("registry", "model m", "model")]),
        (("generation",), 6, [("proxy", "p", "generation")]),
        (("in_step",), False, [("proxy", "p", "generation")]),
    ],
)
def test_a_difference_of_a_proxy(path: tuple[Any, ...], to: Any, expected: list[Any]) -> None:
    assert found(proxies=changed(PROXIES, "p", *path, to=to)) == [("drift", "p", *one) for one in expected]


@pytest.mark.parametrize(
    "facts", [{"unreachable": True, "msg": "no route"}, {"failed": True, "msg": "Python 2"}, {}]
)
def test_a_host_that_does_not_answer_is_unknown_and_nothing_else(facts: dict[str, Any]) -> None:
    assert found(facts={"h": facts}, compared={}) == [("unknown", "h", "host", "h", "state")]
    told = compose(PLAN, {"h": facts}, {}, PROXIES, ["h"])[0]["found"]
    assert "not seen: h.m.0" in told
    assert told.startswith(str(facts.get("msg", "it did not answer")))


def test_what_else_is_unknown() -> None:
    silent = changed(PLAN, "hosts", "h", "state", to="unknown")
    assert found(plan=silent) == [("unknown", "h", "host", "h", "state")]
    paused = {"h": {"replicas": [REPLICA | {"state": "unknown", "status": "paused"}]}}
    assert found(plan=action("unknown"), facts=paused) == [("unknown", "h", "replica", "h.m.0", "state")]
    not_compared = [("unknown", "h", "replica", "h", "comparison")]
    assert found(compared={"h": {**SAME["h"], "problems": ["h.m.0: no"]}}) == not_compared
    assert found(compared={"h": {"msg": "MODULE FAILURE"}}) == not_compared
    assert found(proxies={"p": {"unreachable": True}}) == [("unknown", "p", "host", "p", "state")]
    assert found(proxies=changed(PROXIES, "p", "generation", to=None)) == [
        ("unknown", "p", "proxy", "p", "generation")
    ]


def test_a_host_that_is_engine_and_proxy_is_unknown_once() -> None:
    gone = {"h": {"unreachable": True}}
    assert found(facts=gone, compared={}, proxies=gone) == [("unknown", "h", "host", "h", "state")]


def test_containers_of_others_are_notes_that_nobody_mends() -> None:
    foreign = [{"name": "node-exporter", "image": "prom", "ports": [9100], "gpus": []}]
    facts = changed(FACTS, "h", "foreign", to=foreign)
    assert found(facts=facts) == [("note", "h", "foreign", "node-exporter", "container")]
    assert compose(PLAN, facts, SAME, PROXIES, ["h"])[0]["what"].startswith("nothing")


def test_hosts_that_were_not_asked_are_left_out() -> None:
    assert found(facts={"h": {}, "other": {}}, compared={}, proxies={"p": {}, "q": {}}, asked=["p"]) == [
        ("unknown", "p", "host", "p", "state")
    ]


def test_a_wish_that_cannot_be_met_is_told() -> None:
    assert found(plan=changed(PLAN, "problems", to=["8 GPUs are wished for"])) == [
        ("drift", "fleet", "plan", "wish", "placement")
    ]


def test_an_adopted_container_that_stays_is_as_declared() -> None:
    kept = changed(
        PLAN, "hosts", "h", "replicas", 0, to={"replica": "h.m.0", "adopted": {"container": "own"}}
    )
    assert found(plan=kept, facts={"h": {"replicas": []}}, compared={}) == []
    replaced = action("replace", "its image is no longer wished")
    assert found(plan=replaced, facts={"h": {"replicas": []}}, compared={}) == [
        ("drift", "h", "settings", "h.m.0", "launch spec")
    ]
