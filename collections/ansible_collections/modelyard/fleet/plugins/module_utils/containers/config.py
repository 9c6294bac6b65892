"""What one replica's container is created from: the body of the engine's ``POST /containers/create``."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import redacted
from ansible_collections.modelyard.fleet.plugins.module_utils.sizes import size_bytes

Spec = dict[str, Any]

LABEL = "modelyard"
"""Prefix of our labels."""

PREVIOUS = ".previous"
"""Ending of the name under which a replaced container is kept; no replica's name ends so (they end in a number)."""

NEXT = ".next"
"""Ending of the name of a container that is made while its predecessor still runs."""

_NANO = 10**9


def container_name(fleet: str, replica: str) -> str:
    """Name of a replica's container."""
    return f"{fleet}-{replica}"


def container_config(assignment: dict[str, Any], fleet: str) -> dict[str, Any]:
    """The create body for one assignment, with the environment in clear.

    Raises ``KeyError`` for an assignment that lacks something, ``ValueError`` for a size or limit that is none.
    """
    spec: Spec = assignment["spec"]
    publish = spec["publish"]
    port = f"{publish['container_port']}/tcp"
    environment = {name: str(value) for name, value in (spec.get("env") or {}).items()}
    host: dict[str, Any] = {
        "PortBindings": {
            port: [{"HostIp": str(publish["address"]).strip("[]"), "HostPort": str(publish["port"])}]
        },
        "Mounts": [
            {
                "Type": "bind",
                "Source": mount["source"],
                "Target": mount["target"],
                "ReadOnly": bool(mount["read_only"]),
            }
            for mount in spec.get("mounts") or []
        ],
        "ReadonlyRootfs": bool(spec.get("read_only")),
        "Tmpfs": dict(_tmpfs(str(item)) for item in spec.get("tmpfs") or []),
        "Ulimits": [_ulimit(name, value) for name, value in sorted((spec.get("ulimits") or {}).items())],
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(spec["log"]["max_size"]), "max-file": str(spec["log"]["max_files"])},
        },
        "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
    }
    if spec.get("ipc"):
        host["IpcMode"] = spec["ipc"]
    if spec.get("shm_mib") and spec.get("ipc") != "host":
        host["ShmSize"] = int(spec["shm_mib"]) << 20
    if spec.get("cpus"):
        host["NanoCpus"] = round(float(spec["cpus"]) * _NANO)
    if spec.get("memory"):
        host["Memory"] = size_bytes(str(spec["memory"]))
    host.update(_gpus(spec))
    if "Devices" in host:
        # the whole /dev/dri is passed in: this narrows it to the replica's own cards
        environment.setdefault("HIP_VISIBLE_DEVICES", ",".join(str(gpu) for gpu in spec["gpus"]))
    body: dict[str, Any] = {
        "Image": spec["image"],
        "Cmd": [str(word) for word in spec["command"]],
        "Env": [f"{name}={value}" for name, value in sorted(environment.items())],
        "Labels": {
            f"{LABEL}.fleet": fleet,
            f"{LABEL}.replica": assignment["replica"],
            f"{LABEL}.model": assignment["model"],
            f"{LABEL}.engine": assignment["engine"],
            f"{LABEL}.hash": assignment["hash"],
            f"{LABEL}.spec": json.dumps(redacted(spec), sort_keys=True, separators=(",", ":")),
        },
        "User": str(spec.get("user") or ""),
        "ExposedPorts": {port: {}},
        "StopTimeout": int(spec["stop_timeout_s"]),
        "HostConfig": host,
    }
    if spec.get("health_command"):
        body["Healthcheck"] = {
            "Test": ["CMD", *(str(word) for word in spec["health_command"])],
            "Interval": 10 * _NANO,
            "Timeout": 5 * _NANO,
            "Retries": 3,
            "StartPeriod": int(spec["start_period_s"]) * _NANO,
        }
    return body


def _gpus(spec: Spec) -> dict[str, Any]:
    gpus = [str(gpu) for gpu in spec.get("gpus") or []]
    accelerator = spec.get("accelerator")
    if not gpus or accelerator == "cpu":
        return {}
    if accelerator == "rocm":
        return {
            "Devices": [
                {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
                for path in ("/dev/kfd", "/dev/dri")
            ],
            "GroupAdd": ["video", "render"],
        }
    if spec.get("gpu_mode") == "device_request":
        return {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": gpus, "Capabilities": [["gpu"]]}]}
    names = [f"nvidia.com/gpu={gpu}" for gpu in gpus]
    return {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": names}]}


def _tmpfs(item: str) -> tuple[str, str]:
    path, _, options = item.partition(":")
    return path, options


def _ulimit(name: str, value: Any) -> dict[str, Any]:
    soft, _, hard = str(value).partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise ValueError(f"the limit {name} is {value!r}: write a number, or soft:hard") from None
