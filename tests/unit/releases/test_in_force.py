"""The wish in force, read as a play reads it: an inventory of containers, one model of which is held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.modelyard.fleet.plugins.action.plan import _launches, entries_of
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import image_for
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host, Model
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import Wish

from modelyard.releases import append, write_holds
from modelyard.releases.holds import make_hold
from modelyard.releases.recording import candidate
from modelyard.releases.store import Store
from tests.unit.ansible_inventory import wish

HOSTS = """
all:
  children:
    engine_hosts:
      hosts:
        gpu01: {fleet_address: 10.0.0.1, fleet_accelerator: nvidia, fleet_gpus: ["0"]}
        amd01: {fleet_address: 10.0.0.2, fleet_accelerator: rocm, fleet_gpus: ["0"]}
    proxy_hosts: {hosts: {gpu01: }}
"""
OLD, NEW = "registry.example/vllm:1", "registry.example/vllm:2"


def inventory(directory: Path, image: str, length: int, aliases: list[str] | None = None) -> Wish:
    variables = directory / "group_vars" / "all"
    variables.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.yml").write_text(HOSTS, encoding="utf-8")
    (variables / "fleet.yml").write_text(f"fleet_images: {{vllm: {{nvidia: '{image}'}}}}\n", encoding="utf-8")
    model = {
        "id": "m", "engine": "vllm", "args": {"max_model_len": length}, "env": {"TOKEN": "secret"},
        "source": {"path": "/models/m"}, "placement": {"replicas": 2},
        "routing": {"aliases": aliases or []},
    }  # fmt: skip
    (variables / "models.yml").write_text(json.dumps({"models": [model]}), encoding="utf-8")
    found = wish(directory)
    assert not found.problems
    return found


def record(found: Wish) -> None:
    """What is wished now was applied, as the first release, and the digest of one image was seen."""
    plan: dict[str, Any] = {
        "launches": _launches(found, entries_of(found)),
        "assignments": [
            {"replica": f"{host}.m.0", "model": "m", "host": host, "wished": True}
            for host in ("gpu01", "amd01")
        ],
    }
    seen = {"gpu01.m.0": {"digest": "registry.example/vllm@sha256:abc"}}
    append(
        found.state_dir, candidate(Store("m"), plan, "applied", "", seen, at="t", who="ann@here", commits={})
    )


def hold(found: Wish) -> None:
    from modelyard.releases import read_releases

    first = read_releases(found.state_dir, "m").releases[0]
    write_holds(found.state_dir, {"m": make_hold(first, found.in_force.own["m"], "t", "ann@here")})


@pytest.fixture
def held(tmp_path: Path) -> Path:
    record(inventory(tmp_path, OLD, 4096))
    hold(inventory(tmp_path, NEW, 8192))
    return tmp_path


def test_a_held_model_is_wished_as_it_was(held: Path) -> None:
    found = inventory(held, NEW, 8192)
    (model,) = found.models
    assert model["args"] == {"max_model_len": 4096}
    assert model["env"] == {"TOKEN": "secret"}
    assert model["images"]["gpu01"] == "registry.example/vllm@sha256:abc"
    assert "vllm" in model["images"]["amd01"], "the catalog's, of then"
    (row,) = found.in_force.held
    assert row["release"] == 1
    assert "m is held at release 1 (by ann@here" in row["text"]
    assert len(row["notes"]) == 1, "the digest of one of two images is known"
    launches = _launches(found, entries_of(found))
    assert launches["m"]["rollback_of"] == 1
    assert launches["m"]["images"]["gpu01"]["digest"] == "registry.example/vllm@sha256:abc"
    assert "secret" not in json.dumps(launches)


def test_routing_does_not_end_it_another_image_does(held: Path) -> None:
    assert inventory(held, NEW, 8192, ["another-name"]).in_force.held
    found = inventory(held, "registry.example/vllm:3", 8192)
    assert not found.in_force.held
    assert found.in_force.ended == {
        "m": "m is held at release 1 no more: its wish in the inventory is another one."
    }
    assert found.models[0]["args"] == {"max_model_len": 8192}


def test_a_hold_whose_release_is_lost_is_a_problem_of_the_plan_and_can_be_ended(held: Path) -> None:
    found = inventory(held, NEW, 8192)
    (found.state_dir / "releases" / "m.json").unlink()
    found = inventory(held, NEW, 8192)
    assert len(found.in_force.problems) == 1
    assert "release=current with playbooks/rollback.yml ends the hold" in found.in_force.problems[0]
    assert "m" in found.in_force.own, "the task that ends holds still knows the model"


def test_holds_that_cannot_be_read_stop_everything(held: Path) -> None:
    (held / ".modelyard" / "holds.json").write_text("{", encoding="utf-8")
    with pytest.raises(AnsibleError, match=r"holds\.json says which models are held"):
        inventory(held, NEW, 8192)


def test_the_image_of_a_held_release_goes_before_all_others() -> None:
    model = Model(
        id="m", name="m", task="generate", engine="vllm", hosts=("a", "b"), pattern="all", replicas=1, gpus=1,
        image="own:1", images={"a": "held:1"},
    )  # fmt: skip
    engine = {"images": {"nvidia": "catalog:1"}}
    assert image_for(model, engine, Host("a", accelerator="nvidia")) == "held:1"
    assert image_for(model, engine, Host("b", accelerator="nvidia")) == "own:1"
