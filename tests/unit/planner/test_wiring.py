"""From the plan to the roles: what each of them is given."""

from __future__ import annotations

from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import wiring


def assignment(model: str = "m", **more: Any) -> dict[str, Any]:
    return {
        "replica": f"h.{model}.0",
        "model": model,
        "host": "h",
        "wished": True,
        "observed": "up",
        "weights": f"/w/{model}@abc",
        "source": {"kind": "hub", "value": f"org/{model}", "pin": "abc"},
        "spec": {"user": "1000:1001", "task": "generate", "smoke": {"prompt": "hi", "max_tokens": 2}},
    } | more


def test_weights_belong_to_the_user_of_the_container() -> None:
    (item,) = wiring.weights_items([assignment()])
    assert item == {
        "model": "m",
        "source": {"hub": "org/m", "revision": "abc"},
        "destination": "/w/m@abc",
        "owner": 1000,
        "group": 1001,
    }


def test_weights_of_a_process_keep_their_owner() -> None:
    (item,) = wiring.weights_items([assignment(spec={"user": None})])
    assert (item["owner"], item["group"]) == (-1, -1)


def test_replicas_and_models_that_share_weights_fetch_them_once() -> None:
    shared = {"weights": "/w/shared", "source": {"kind": "path", "value": "/w/shared", "pin": None}}
    items = wiring.weights_items(
        [assignment("a", **shared), assignment("b", **shared), assignment("a", **shared)]
    )
    assert [(item["model"], item["source"]) for item in items] == [("a", {"path": "/w/shared"})]


def test_a_single_file_lies_in_a_directory_of_its_own() -> None:
    source = {"kind": "url", "value": "https://example.org/tiny.gguf", "pin": "0" * 64}
    (item,) = wiring.weights_items([assignment(weights="/w/tiny@000/tiny.gguf", source=source)])
    assert item["destination"] == "/w/tiny@000"
    assert item["source"] == {"url": source["value"], "sha256": "0" * 64}


def test_nothing_is_fetched_for_what_nobody_wishes_or_needs() -> None:
    given = [assignment(wished=False), assignment(source=None, weights=None), assignment(observed="unknown")]
    assert wiring.weights_items(given) == []


def test_what_is_unknown_is_never_run_from_the_redacted_spec_it_was_seen_with() -> None:
    given = [assignment("a"), assignment("b", observed="unknown"), assignment("c", wished=False)]
    assert [item["model"] for item in wiring.to_run(given)] == ["a"]


def test_who_answered_before_is_not_asked_again_where_nothing_was_moved_since() -> None:
    replicas = [assignment("a"), assignment("b"), assignment("c", wished=False)]
    names = [item["replica"] for item in replicas]
    plan = {"hosts": {"h": {"replicas": replicas}}, "rollout": {"steps": []}}
    compared = {"replicas": [{"replica": names[0], "proved": True}, {"replica": names[1], "proved": False}]}
    assert [item["model"] for item in wiring.to_prove(plan, "h", compared)] == ["b"]
    for nothing in (
        {},
        {"skipped": True},
        {"failed": True, "replicas": []},
        {"replicas": [{"replica": names[0]}]},
    ):
        assert [item["model"] for item in wiring.to_prove(plan, "h", nothing)] == ["a", "b"]
    plan["rollout"] = {"steps": [{"number": 1}]}
    assert [item["model"] for item in wiring.to_prove(plan, "h", compared)] == ["a", "b"]


def test_a_wrong_name_of_a_model_is_told_with_the_nearest() -> None:
    assert wiring.unknown_model("echo", ["echo", "other"]) == ""
    assert wiring.unknown_model("ecko", ["echo", "other"]).endswith("did you mean echo?")
    assert wiring.unknown_model("zzz", ["echo", "other"]).endswith("known are echo, other.")


MODELS = {"a": {"endpoints": [{"id": "h.a.0"}, {"id": "h.a.1"}]}, "b": {"endpoints": [{"id": "h.b.0"}]}}


def test_a_wrong_place_has_a_near_name() -> None:
    plan = {
        "hosts": {"gpu01": {}},
        "registry": {"models": {"a": {}}},
        "assignments": [{"replica": "gpu01.a.0"}],
    }
    assert wiring.unknown_place("host", "gpu01", plan) == ""
    assert wiring.unknown_place("host", "gpu1", plan) == "There is no host gpu1; did you mean gpu01?"
    assert wiring.unknown_place("replica", "zzz", plan) == "There is no replica zzz; known are gpu01.a.0"


def test_a_registry_without_one_model_or_all() -> None:
    assert wiring.without_model(MODELS, "b") == {"a": MODELS["a"], "b": {"endpoints": []}}
    assert wiring.without_model(MODELS, "") == {"a": {"endpoints": []}, "b": {"endpoints": []}}


def test_stops_name_what_is_seen_but_never_what_is_unknown() -> None:
    seen = [
        {"replica": "h.a.0", "model": "a", "runtime": "docker", "state": "up"},
        {"replica": "h.a.1", "model": "a", "runtime": "docker", "state": "unknown"},
        {"replica": "h.b.0", "model": "b", "runtime": "process", "state": "down"},
    ]
    assert wiring.stops(seen, "a") == [{"replica": "h.a.0", "runtime": "docker"}]
    assert [item["replica"] for item in wiring.stops(seen, "")] == ["h.a.0", "h.b.0"]


def test_a_proxy_is_asked_for_each_model_that_seen_host_serves() -> None:
    plan = {
        "proxies": {"p": {"url": "http://192.0.2.1:8000"}},
        "assignments": [
            assignment("b"),
            assignment("a"),
            assignment("b"),
            assignment("c", observed="unknown"),
        ],
    }
    targets = wiring.proxy_targets(plan, "p")
    assert [target["spec"]["served_name"] for target in targets] == ["a", "b"]
    assert {target["spec"]["url"] for target in targets} == {"http://192.0.2.1:8000"}


def test_whose_a_port_is_is_told_without_anything_else() -> None:
    facts = {
        "replicas": [
            {"replica": "h.m.0", "state": "up", "port": 8100, "pid": 7, "spec": {"env": {"TOKEN": "secret"}}},
            {"replica": "h.m.1", "state": "down", "port": 8101, "pid": None},
        ],
        "adopted": [
            {"container": "vllm-qwen", "container_id": "c1", "bindings": [{"port": 9000}]},
            {"container": "other", "container_id": "c2", "bindings": []},
        ],
    }
    planned = [{"replica": "h.m.2", "adopted": {"id": "c1"}}, {"replica": "h.m.0"}]
    assert wiring.holders(facts, planned) == [
        {"replica": "h.m.0", "port": 8100, "pid": 7},
        {"replica": "h.m.2", "container_id": "c1"},
        {"replica": "h.m.2", "container_id": "c1", "port": 9000},
        {"replica": "other", "container_id": "c2"},
    ]
    assert wiring.holders({}, []) == []
