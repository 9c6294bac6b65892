"""The kinds of sources: the operator's schema and the hosts' table say the same, and each has a place of its own."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import listed, wiring
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import launch
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host, Model, Slot, Source
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS, list_text, pin_of

from modelyard.catalog import load_engines
from modelyard.inventory import models_schema

PIN = "0123456789abcdef" * 4


def test_schema_and_table_agree() -> None:
    rules = models_schema()["items"]["properties"]["source"]["properties"]
    known = {
        key: (rule["x-pin"], rule.get("x-listed", False)) for key, rule in rules.items() if "x-pin" in rule
    }
    assert known == {kind.key: (kind.pin, kind.listed) for kind in KINDS.values()}
    assert set(rules) - set(known) == {"revision", "sha256", "checksums"}
    assert {kind.key for kind in KINDS.values() if kind.listed} == set(listed.PLACES)


def test_checksums_pin_like_the_list_that_they_would_make() -> None:
    sums = {"b": "1" * 64, "a": "2" * 64}
    text = f"{'2' * 64}  a\n{'1' * 64}  b\n"
    assert list_text(sums) == text
    assert (
        pin_of(KINDS["s3"], {"s3": "s3://x", "checksums": sums}) == hashlib.sha256(text.encode()).hexdigest()
    )
    assert pin_of(KINDS["url"], {"url": "http://x", "checksums": sums}) is None


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        ("files", "https://files.example.com/models/qwen%20x/?a=b/c", "qwen-20x"),
        ("s3", "s3://bucket/models/qwen", "qwen"),
        ("s3", "s3://bucket", "bucket"),
        ("rsync", "user@files:/srv/qwen/", "qwen"),
        ("copy", "/mnt/nfs/..hidden", "hidden"),
        ("copy", "/", "weights"),
    ],
)
def test_each_has_a_directory_named_after_what_it_is(kind: str, value: str, name: str) -> None:
    source = Source(kind, value, PIN)
    assert launch.weights_path(source, "/w") == f"/w/{name}@{PIN[:12]}"
    assert launch.weights_name(source) == f"{name}@{PIN[:12]}"


def test_names_in_the_directory_of_weights() -> None:
    assert launch.weights_name(Source("hub", "a/b", "c" * 40)) == f"a--b@{'c' * 12}"
    assert launch.weights_name(Source("url", "http://x/y.gguf", PIN)) == f"y@{PIN[:12]}"
    for nothing in (None, Source("path", "/x"), Source("custom", "x"), Source("hub", "a/b")):
        assert launch.weights_name(nothing) == ""


def test_custom_weights_lie_in_the_models_volume_and_are_named_to_the_engine() -> None:
    model = Model(
        id="m", name="m", task="generate", engine="vllm", hosts=("h",), pattern="h", replicas=1, gpus=0,
        source=Source("custom", "my_weights"),
    )  # fmt: skip
    host = Host("h", volumes_dir="/v")
    engine = load_engines()["vllm"].data
    spec = launch.build(model, engine, host, Slot("m", "h", 0, (), 8100, "docker"))
    assert spec["mounts"][0] == {
        "source": "/v/volume_m/model_weights/my_weights", "target": "/weights", "read_only": True,
    }  # fmt: skip
    assert (spec["env"]["MODEL_WEIGHTS_ID"], spec["env"]["MODEL_WEIGHTS_PATH"]) == ("my_weights", "/weights")
    process = launch.build(model, engine, host, Slot("m", "h", 0, (), 8100, "process"))
    assert process["env"]["MODEL_WEIGHTS_PATH"] == "/v/volume_m/model_weights/my_weights"
    own = launch.build(
        replace(model, env={"MODEL_WEIGHTS_ID": "x"}), engine, host, Slot("m", "h", 0, (), 1, "docker")
    )
    assert own["env"]["MODEL_WEIGHTS_ID"] == "x"


def test_checksums_reach_the_host() -> None:
    item = {
        "replica": "h.m.0", "model": "m", "host": "h", "wished": True, "observed": "up", "weights": "/w/q@0",
        "source": {"kind": "copy", "value": "/mnt/q", "pin": PIN, "checksums": {"a": "1" * 64}},
        "spec": {"user": "1000:1000"},
    }  # fmt: skip
    (wanted,) = wiring.weights_items([item])
    assert wanted["source"] == {"copy": "/mnt/q", "checksums": {"a": "1" * 64}}


def test_what_replicas_use_is_known_from_what_is_seen_and_planned() -> None:
    plan = {"hosts": {"h": {"replicas": [{"weights": "/w/a"}, {"weights": None}]}}}
    facts = {
        "replicas": [
            {"spec": {"mounts": [{"source": "/w/b"}]}},
            {"spec": {"command": ["/w/c", "--port", "1"]}},
            {"spec": None},
        ]
    }
    assert wiring.weights_in_use(facts, plan, "h") == ["/w/a", "/w/b", "/w/c"]
    assert wiring.weights_in_use({}, plan, "h") == ["/w/a"]
