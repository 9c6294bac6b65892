"""What a launch spec becomes as a supervised process."""

from __future__ import annotations

import json
from typing import Any

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


def test_a_process_gets_its_own_gpus_and_an_environment_that_no_record_shows() -> None:
    program = launch.process_program(assignment())
    assert program["command"] == ["python3", "--port", "8100"]
    assert program["environment"] == {"TOKEN": "secret-value", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert "secret-value" not in json.dumps(program["spec"])
    chosen = launch.process_program(assignment(env={"CUDA_VISIBLE_DEVICES": "7"}))
    assert chosen["environment"] == {"CUDA_VISIBLE_DEVICES": "7"}
