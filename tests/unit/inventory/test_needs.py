"""What an inventory needs from outside, for `modelyard bundle`: the planner's images, every source of weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import image_for

from modelyard.catalog import load_engines
from tests.unit.ansible_inventory import wish

EXAMPLE = Path(__file__).parents[3] / "inventories" / "example"


def test_the_example_needs_its_images_weights_and_packages() -> None:
    found = wish(EXAMPLE).needs()
    assert [item["reference"] for item in found["images"]] == [
        "docker.io/vllm/vllm-openai:v0.32.0",
        "ghcr.io/huggingface/text-generation-inference:3.3.7",
    ]
    assert found["images"][0]["hosts"] == ["gpu01", "gpu02", "gpu03"]
    assert [sorted(item["source"]) for item in found["weights"]] == [
        ["hub", "revision"], ["hub", "revision"], ["path"], ["sha256", "url"],
    ]  # fmt: skip
    assert found["python"] == {"proxies": ["proxy01", "proxy02"], "processes": []}
    text = json.dumps(found)
    assert "VLLM_LOGGING_LEVEL" not in text


def inventory(place: Path, models: list[dict[str, Any]], hosts: dict[str, dict[str, Any]]) -> Path:
    (place / "group_vars" / "all").mkdir(parents=True)
    group = {"engine_hosts": {"hosts": hosts}, "proxy_hosts": {"hosts": {}}}
    (place / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": group}}))
    (place / "group_vars" / "all" / "models.yml").write_text(yaml.safe_dump({"models": models}))
    return place


def test_hosts_that_differ_need_different_images_and_processes_none(tmp_path: Path) -> None:
    model = {
        "id": "m",
        "engine": "vllm",
        "source": {"path": "/srv/m"},
        "placement": {"replicas": 1, "gpus": 1},
    }
    idle = {**model, "id": "idle", "image": "x:1", "placement": {"replicas": 0, "gpus": 1}}
    hosts = {
        "a": {"fleet_accelerator": "nvidia", "fleet_gpus": 1, "ansible_host": "192.0.2.1"},
        "b": {"fleet_accelerator": "rocm", "fleet_gpus": 1, "ansible_host": "192.0.2.2"},
        "c": {"fleet_accelerator": "rocm", "fleet_gpus": 1, "ansible_host": "192.0.2.3", "fleet_runtime": "process"},
        "d": {"fleet_accelerator": "nvidia", "fleet_gpus": 1, "ansible_host": "192.0.2.4",
              "fleet_images": {"vllm": {"nvidia": "own:2"}}},
    }  # fmt: skip
    found = wish(inventory(tmp_path, [model, idle], hosts)).needs()
    engine = load_engines()["vllm"].data
    planned = {
        image_for(
            SimpleNamespace(images={}, image=None, engine="vllm"),  # type: ignore[arg-type]
            engine,
            SimpleNamespace(
                name=name, images=given.get("fleet_images", {}), accelerator=given["fleet_accelerator"]
            ),  # type: ignore[arg-type]
        )
        for name, given in hosts.items()
        if name != "c"
    }
    assert {item["reference"] for item in found["images"]} == planned
    assert "x:1" not in planned
    assert found["python"] == {"proxies": [], "processes": ["c"]}
    assert found["weights"] == [
        {"source": {"path": "/srv/m"}, "models": ["m"], "hosts": ["a", "b", "c", "d"]}
    ]


@pytest.mark.parametrize(("given", "own"), [({}, True), ({"fleet_python": "/opt/py/bin/python"}, False)])
def test_an_environment_of_its_own_is_only_needed_where_none_is_named(
    tmp_path: Path, given: dict[str, Any], own: bool
) -> None:
    model = {"id": "m", "engine": "echo", "placement": {"replicas": 1, "gpus": 0}}
    hosts = {"a": {"fleet_runtime": "process", "ansible_host": "192.0.2.1", **given}}
    found = wish(inventory(tmp_path, [model], hosts)).needs()
    assert found["python"]["processes"] == (["a"] if own else [])
