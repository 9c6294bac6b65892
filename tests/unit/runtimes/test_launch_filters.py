"""What a launch spec becomes: a container, or a supervised process; and why one is replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import launch

SPEC: dict[str, Any] = {
    "image": "vllm:1", "executable": ["python3"], "command": ["--port", 8100], "env": {"TOKEN": "secret-value"},
    "user": "1000:1000", "gpus": ["0", "1"], "gpu_mode": "cdi", "accelerator": "nvidia", "shm_mib": 64, "ipc": None,
    "read_only": True, "tmpfs": ["/tmp"], "ulimits": {"memlock": -1}, "cpus": 2, "memory": "4g",
    "mounts": [{"source": "/w", "target": "/models", "read_only": True}],
    "publish": {"address": "::1", "port": 8100, "container_port": 8000},
    "health_command": ["true"], "start_period_s": 5, "stop_timeout_s": 30,
    "log": {"max_size": "1m", "max_files": 2},
}  # fmt: skip


def assignment(**spec: Any) -> dict[str, Any]:
    return {"replica": "h.m.0", "model": "m", "engine": "vllm", "hash": "new", "spec": {**SPEC, **spec}}


def container(state: str = "running", **labels: str) -> dict[str, Any]:
    base = {"modelyard.fleet": "f", "modelyard.replica": "h.m.0", "modelyard.hash": "new"}
    return {
        "Id": "id",
        "Names": ["/f-h.m.0"],
        "State": state,
        "Status": "Exited (1)",
        "Labels": base | labels,
    }


@pytest.mark.parametrize(
    ("found", "action", "reason"),
    [
        ([], "start", "is not there yet"),
        ([container()], "keep", "runs as wished"),
        ([container("exited")], "start", "was exited (Exited (1))"),
        ([container(**{"modelyard.hash": "old", "modelyard.spec": "{"})], "replace", "its record cannot be read"),
        ([container(**{"modelyard.fleet": "g"}) | {"Names": ["/g-h.m.0"]}], "start", "is not there yet"),
    ],
)  # fmt: skip
def test_what_happens_to_a_container(found: list[dict[str, Any]], action: str, reason: str) -> None:
    (work,) = launch.container_work([assignment()], found, "f")["work"]
    assert (work["action"], work["reason"]) == (action, reason)


def test_a_container_of_somebody_else_is_never_taken_over() -> None:
    stranger = container() | {"Labels": {}, "Image": "nginx"}
    compared = launch.container_work([assignment()], [stranger], "f")
    assert compared["work"] == []
    assert "f-h.m.0 (image nginx) exists and is not ours" in compared["conflicts"][0]


def test_containers_are_found_by_label_with_the_grace_they_were_started_with() -> None:
    ours = container(**{"modelyard.spec": json.dumps({"stop_timeout_s": 90})})
    others = [container(**{"modelyard.fleet": "g"}), container(**{"modelyard.replica": "h.x.0"})]
    assert launch.containers_of([ours, *others], "f", ["h.m.0"]) == [
        {"id": "id", "replica": "h.m.0", "stop_timeout_s": 90}
    ]


def test_container_options_publish_one_address_and_label_no_secret() -> None:
    options = launch.container_options(assignment(), "f")
    assert options["published_ports"] == ["[::1]:8100:8000"]
    assert options["env"] == {"TOKEN": "secret-value"}
    assert "secret-value" not in json.dumps(options["labels"])
    assert options["device_requests"] == [
        {"driver": "cdi", "device_ids": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]}
    ]
    assert options["ulimits"] == ["memlock:-1:-1"]
    assert options["shm_size"] == "64M"


@pytest.mark.parametrize(
    ("more", "key", "value"),
    [
        ({"gpu_mode": "device_request"}, "device_requests",
         [{"driver": "nvidia", "device_ids": ["0", "1"], "capabilities": [["gpu"]]}]),
        ({"accelerator": "cpu"}, "device_requests", None),
        ({"accelerator": "rocm"}, "groups", ["video", "render"]),
        ({"ipc": "host"}, "shm_size", None),
        ({"health_command": None}, "healthcheck", None),
    ],
)  # fmt: skip
def test_container_options_follow_the_host(more: dict[str, Any], key: str, value: Any) -> None:
    assert launch.container_options(assignment(**more), "f").get(key) == value


def test_a_process_gets_its_own_gpus_and_an_environment_that_no_record_shows() -> None:
    program = launch.process_program(assignment())
    assert program["command"] == ["python3", "--port", "8100"]
    assert program["environment"] == {"TOKEN": "secret-value", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert "secret-value" not in json.dumps(program["spec"])
    chosen = launch.process_program(assignment(env={"CUDA_VISIBLE_DEVICES": "7"}))
    assert chosen["environment"] == {"CUDA_VISIBLE_DEVICES": "7"}
