"""What a launch spec means to the runtimes: why one is replaced, and how a supervised process takes it."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.changes import difference
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import redacted

Spec = dict[str, Any]


def changed_fields(recorded: str | None, new_spec: Spec) -> str:
    """Why a replica is replaced, in words: what differs between two redacted launch specs.

    ``recorded`` is the JSON text of a redacted spec, or of an object with it under ``spec``.
    """
    try:
        old = json.loads(recorded or "{}")
        return difference(old.get("spec", old), new_spec)
    except (ValueError, AttributeError):
        return "its record cannot be read"


def process_program(assignment: dict[str, Any]) -> dict[str, Any]:
    """One program under the supervisor for one assignment, as the module ``supervised_program`` describes one."""
    spec: Spec = assignment["spec"]
    environment = {name: str(value) for name, value in (spec.get("env") or {}).items()}
    gpus = ",".join(str(gpu) for gpu in spec.get("gpus") or [])
    variable = {"nvidia": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}.get(
        str(spec.get("accelerator"))
    )
    if variable and gpus:
        environment.setdefault(variable, gpus)
    words = [*(spec.get("executable") or []), *spec["command"]]
    return {
        "name": assignment["replica"],
        "command": [str(word) for word in words],
        "environment": environment,
        "hash": assignment["hash"],
        "spec": redacted(spec),
        "stop_timeout_s": int(spec["stop_timeout_s"]),
        "log_max_size": str(spec["log"]["max_size"]),
        "log_max_files": int(spec["log"]["max_files"]),
    }
