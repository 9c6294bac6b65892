"""What a launch spec means to the runtimes: why one is replaced, how docker and processes take it."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.changes import difference
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import redacted

Spec = dict[str, Any]

LABEL = "modelyard"


def changed_fields(recorded: str | None, new_spec: Spec) -> str:
    """Why a replica is replaced, in words: what differs between two redacted launch specs.

    ``recorded`` is the JSON text of a redacted spec, or of an object with it under ``spec``.
    """
    try:
        old = json.loads(recorded or "{}")
        return difference(old.get("spec", old), new_spec)
    except (ValueError, AttributeError):
        return "its record cannot be read"


def container_work(
    replicas: list[dict[str, Any]], containers: list[dict[str, Any]], fleet: str, strict: bool = False
) -> dict[str, Any]:
    """Compare wished replicas with the engine's list of containers.

    ``containers`` are entries of the engine's ``/containers/json`` (all of them, stopped ones too). Gives
    ``{"work": [{"replica", "action", "reason", "assignment"}], "conflicts": [sentence]}``; action is start, replace,
    keep, or with ``strict`` check in place of keep.
    """
    ours: dict[str, dict[str, Any]] = {}
    foreign: dict[str, dict[str, Any]] = {}
    for container in containers:
        labels = container.get("Labels") or {}
        if labels.get(f"{LABEL}.fleet") == fleet and f"{LABEL}.replica" in labels:
            ours[labels[f"{LABEL}.replica"]] = container
        else:
            for name in container.get("Names") or []:
                foreign[name.lstrip("/")] = container
    work, conflicts = [], []
    for assignment in replicas:
        replica = assignment["replica"]
        name = container_name(fleet, replica)
        if name in foreign:
            conflicts.append(
                f"a container named {name} (image {foreign[name].get('Image')}) exists and is not ours: "
                "remove or rename it"
            )
            continue
        action, reason = _container_action(assignment, ours.get(replica))
        if action == "keep" and strict:
            action, reason = "check", "looks unchanged; compared in full"
        work.append({"replica": replica, "action": action, "reason": reason, "assignment": assignment})
    return {"work": work, "conflicts": conflicts}


def _container_action(assignment: dict[str, Any], container: dict[str, Any] | None) -> tuple[str, str]:
    if container is None:
        return "start", "is not there yet"
    labels = container["Labels"]
    if labels.get(f"{LABEL}.hash") != assignment["hash"]:
        recorded = labels.get(f"{LABEL}.spec")
        return "replace", changed_fields(recorded, redacted(assignment["spec"]))
    if container.get("State") not in ("running", "restarting"):
        return "start", f"was {container.get('State')} ({container.get('Status', '').strip()})"
    return "keep", "runs as wished"


def container_name(fleet: str, replica: str) -> str:
    """Name of a replica's container."""
    return f"{fleet}-{replica}"


def containers_of(containers: list[dict[str, Any]], fleet: str, replicas: list[str]) -> list[dict[str, Any]]:
    """Id, replica and stop timeout (0: unknown) of exactly the containers that carry these replica ids, found by label."""
    found = []
    for container in containers:
        labels = container.get("Labels") or {}
        if labels.get(f"{LABEL}.fleet") == fleet and labels.get(f"{LABEL}.replica") in replicas:
            found.append(
                {
                    "id": container["Id"],
                    "replica": labels[f"{LABEL}.replica"],
                    "stop_timeout_s": _recorded_stop_timeout(labels.get(f"{LABEL}.spec")),
                }
            )
    return found


def _recorded_stop_timeout(text: str | None) -> int:
    """Seconds of grace that the container was started with; 0 when its label does not say."""
    try:
        return int(json.loads(text or "{}")["stop_timeout_s"])
    except (ValueError, KeyError, TypeError):
        return 0


def container_options(assignment: dict[str, Any], fleet: str) -> dict[str, Any]:
    """The options of ``community.docker.docker_container`` for one assignment; absent keys are to be omitted."""
    spec: Spec = assignment["spec"]
    publish = spec["publish"]
    options: dict[str, Any] = {
        "name": container_name(fleet, assignment["replica"]),
        "image": spec["image"],
        "command": [str(part) for part in spec["command"]],
        "env": {name: str(value) for name, value in (spec.get("env") or {}).items()},
        "labels": {
            f"{LABEL}.fleet": fleet,
            f"{LABEL}.replica": assignment["replica"],
            f"{LABEL}.model": assignment["model"],
            f"{LABEL}.engine": assignment["engine"],
            f"{LABEL}.hash": assignment["hash"],
            f"{LABEL}.spec": json.dumps(redacted(spec), sort_keys=True, separators=(",", ":")),
        },
        "user": spec.get("user") or None,
        "published_ports": [
            f"{_bracketed(publish['address'])}:{publish['port']}:{publish['container_port']}"
        ],
        "mounts": [
            {"type": "bind", "source": m["source"], "target": m["target"], "read_only": bool(m["read_only"])}
            for m in spec.get("mounts") or []
        ],
        "shm_size": f"{spec['shm_mib']}M" if spec.get("shm_mib") and spec.get("ipc") != "host" else None,
        "ipc_mode": spec.get("ipc") or None,
        "read_only": bool(spec.get("read_only")),
        "tmpfs": list(spec.get("tmpfs") or []),
        "ulimits": [_ulimit(name, value) for name, value in sorted((spec.get("ulimits") or {}).items())],
        "cpus": float(spec["cpus"]) if spec.get("cpus") else None,
        "memory": str(spec["memory"]) if spec.get("memory") else None,
        "stop_timeout": int(spec["stop_timeout_s"]),
        "log_options": {"max-size": str(spec["log"]["max_size"]), "max-file": str(spec["log"]["max_files"])},
    }
    if spec.get("health_command"):
        options["healthcheck"] = {
            "test": ["CMD", *spec["health_command"]],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{int(spec['start_period_s'])}s",
        }
    options.update(_gpu_options(spec))
    if "devices" in options:
        # the whole /dev/dri is passed in: this narrows it to the replica's own cards
        options["env"].setdefault("HIP_VISIBLE_DEVICES", ",".join(str(gpu) for gpu in spec["gpus"]))
    return {name: value for name, value in options.items() if value is not None}


def _gpu_options(spec: Spec) -> dict[str, Any]:
    gpus = [str(gpu) for gpu in spec.get("gpus") or []]
    accelerator = spec.get("accelerator")
    if not gpus or accelerator == "cpu":
        return {}
    if accelerator == "rocm":
        return {
            "devices": ["/dev/kfd:/dev/kfd:rwm", "/dev/dri:/dev/dri:rwm"],
            "groups": ["video", "render"],
        }
    if spec.get("gpu_mode") == "device_request":
        return {"device_requests": [{"driver": "nvidia", "device_ids": gpus, "capabilities": [["gpu"]]}]}
    return {"device_requests": [{"driver": "cdi", "device_ids": [f"nvidia.com/gpu={gpu}" for gpu in gpus]}]}


def _ulimit(name: str, value: Any) -> str:
    return f"{name}:{value}" if ":" in str(value) else f"{name}:{value}:{value}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def process_program(assignment: dict[str, Any]) -> dict[str, Any]:
    """One program of the module ``supervised_program`` for one assignment."""
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
