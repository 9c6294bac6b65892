"""What `modelyard fit` is told of an inventory: GPUs and wishes, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.modelyard.fleet.plugins.action.plan import entries_of
from ansible_collections.modelyard.fleet.plugins.action.validate import weights_to_size, with_gpus
from ansible_collections.modelyard.fleet.plugins.plugin_utils import memory

from modelyard.inventory import check_files
from tests.unit.ansible_inventory import wish

EXAMPLE = Path(__file__).parents[3] / "inventories" / "example"


def test_the_example_says_how_much_memory_its_gpus_have() -> None:
    found = wish(EXAMPLE).capacity()
    assert found["hosts"] == [
        {"host": "gpu01", "gpus": 8, "memory_gib": 79.6, "seen": {}},
        {"host": "gpu02", "gpus": 4, "memory_gib": 44.5, "seen": {}},
        {"host": "gpu03", "gpus": 3, "memory_gib": None, "seen": {}},
    ]
    first = found["models"][0]
    assert first["args"] == {"max_model_len": 8192, "gpu_memory_utilization": 0.9}
    assert (first["gpus"], first["hosts"], first["loads_weights"]) == (2, ["gpu01", "gpu02", "gpu03"], True)
    assert "env" not in first
    json.dumps(found)


@pytest.mark.parametrize("value", ["80", "0", "-1", "81559", "true", "[80]"])
def test_a_memory_that_is_none(tmp_path: Path, value: str) -> None:
    given = '"80"' if value == "80" else value
    (tmp_path / "hosts.yml").write_text(
        f"all:\n  hosts:\n    gpu01:\n      fleet_gpu_memory_gib: {given}\n", encoding="utf-8"
    )
    (problem,) = [one for one in check_files(tmp_path) if one.field == "fleet_gpu_memory_gib"]
    assert problem.line == 4


def test_hosts_with_gpus_are_asked_for_the_weights_of_models_that_may_come() -> None:
    found = wish(EXAMPLE)
    hosts = with_gpus(found.hosts)
    assert hosts == {"gpu01": "nvidia", "gpu02": "nvidia", "gpu03": "nvidia"}
    asked = weights_to_size(found, hosts)
    names = [path.rpartition("/")[2] for path in asked["gpu01"]]
    # neither what runs on another engine, nor what may not be placed there
    assert names == ["Qwen--Qwen2.5-0.5B-Instruct@7ae557604adf", "Qwen--Qwen2.5-7B-Instruct@a09a35458c70"]
    directory = found.hosts["gpu01"].settings["fleet_weights_dir"]
    assert all(path.startswith(f"{directory}/") for path in asked["gpu01"])
    assert len(asked["gpu03"]) == 3


def test_what_hosts_tell_of_weights_is_found_by_the_model() -> None:
    found = wish(EXAMPLE)
    entries = entries_of(found)
    told = {"config": {"model_type": "x"}, "files_bytes": 4}
    facts = [
        None,
        {"msg": "unreachable"},
        {"weights": {"/other/Qwen--Qwen2.5-7B-Instruct@a09a35458c70": told}},
    ]
    configs = memory.configs_in(facts, {"gone": told})
    assert memory.configs_of(entries, configs) == {"Qwen--Qwen2.5-7B-Instruct@a09a35458c70": told}
