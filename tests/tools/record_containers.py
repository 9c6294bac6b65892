"""Record what the container engine says of containers made from our create bodies, and of some changed by hand.

``python -m tests.tools.record_containers`` writes ``tests/unit/runtimes/containers/<name>.json`` anew: a list of the
wish (None: made by hand), the inspect document of the container and that of its image. Needs the test part "plain".
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import container_config

HERE = Path(__file__).resolve().parents[1] / "unit" / "runtimes" / "containers"
IMAGE = "modelyard-test/recorded:1"
DIRECTIVES = (
    "ENV PATH=/usr/local/bin:/usr/bin:/bin", "ENV BASE=from-the-image", 'ENTRYPOINT ["/bin/sleep"]', 'CMD ["1"]',
    "LABEL maker=somebody", "USER 5:5", "WORKDIR /srv", "EXPOSE 9", "VOLUME /data",
)  # fmt: skip
SPEC: dict[str, Any] = {
    "image": IMAGE, "command": ["600"], "env": {"TOKEN": "secret-value", "EMPTY": ""}, "user": "1000:1000",
    "gpus": ["0", "1"], "gpu_mode": "cdi", "accelerator": "cpu", "shm_mib": 64, "ipc": "private", "read_only": True,
    "tmpfs": ["/tmp:size=64m,mode=1777", "/run"], "ulimits": {"nofile": 1024}, "cpus": 1, "memory": "256m",
    "mounts": [{"source": "/usr/share", "target": "/models", "read_only": True},
               {"source": "/tmp", "target": "/cache", "read_only": False}],
    "publish": {"address": "127.0.0.1", "port": 18100, "container_port": 8000}, "health_command": ["true"],
    "start_period_s": 5, "stop_timeout_s": 30, "log": {"max_size": "1m", "max_files": 2},
}  # fmt: skip
WISHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bare": {"user": None, "shm_mib": None, "ipc": None, "read_only": False, "tmpfs": [], "ulimits": {}, "mounts": [],
             "cpus": None, "memory": None, "health_command": None, "env": {}, "command": []},
    "cdi": {"accelerator": "nvidia"},
    "device_request": {"accelerator": "nvidia", "gpu_mode": "device_request"},
    "rocm": {"accelerator": "rocm"},
    "ipc_host": {"ipc": "host"},
    "ipv6": {"publish": {"address": "::1", "port": 18100, "container_port": 8000}},
}  # fmt: skip
UPDATE = [
    "--cpus",
    "0.5",
    "--memory",
    "128m",
    "--memory-swap",
    "640m",
    "--restart",
    "always",
    "--pids-limit",
    "99",
]
BY_HAND = [
    "--publish", "0.0.0.0:18100:8000", "--volume", "/usr/share:/models", "--volume", "/var/tmp:/extra:ro,z",
    "--env", "TOKEN=another", "--env", "MORE=1", "--env", "BASE=changed", "--privileged", "--cap-add", "SYS_ADMIN",
    "--pid", "host", "--network", "host", "--user", "0", "--entrypoint", "/bin/echo", "--label", "modelyard.hash=new",
    "--device", "/dev/null:/dev/kfd", "--gpus", "all", "--group-add", "7", "--ulimit", "nofile=5:6",
    "--log-driver", "none", "--stop-timeout", "3", "--security-opt", "seccomp=unconfined", "--dns", "192.0.2.1",
    "--tmpfs", "/tmp:size=1m", "--shm-size", "1g", "--no-healthcheck", "--add-host", "a:192.0.2.2", "--init",
]  # fmt: skip


def assignment(**spec: Any) -> dict[str, Any]:
    """An assignment as the planner makes them, with this in its launch spec."""
    return {"replica": "h.m.0", "model": "m", "engine": "vllm", "hash": "new", "spec": {**SPEC, **spec}}


def _said(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def _record(api: Any, name: str, wish: dict[str, Any] | None, make: Callable[[], str]) -> None:
    identity = make()
    try:
        document = [wish, api.inspect_container(identity), api.inspect_image(IMAGE)]
    finally:
        api.remove_container(identity, force=True, v=True)
    (HERE / f"{name}.json").write_text(
        json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def main() -> None:
    """Record them all."""
    api = docker.APIClient()
    source = next(
        tag for tag in _said("images", "--format", "{{.Repository}}:{{.Tag}}").split() if "/plain:" in tag
    )
    base = _said("create", source, "true")
    changes = [word for line in DIRECTIVES for word in ("--change", line)]
    try:
        _said("commit", *changes, base, IMAGE)
    finally:
        _said("rm", base)

    def create(**spec: Any) -> str:
        return str(api.create_container_from_config(container_config(assignment(**spec), "f"))["Id"])

    def started() -> str:
        identity = create()
        api.start(identity)
        return identity

    def updated() -> str:
        identity = create()
        _said("update", *UPDATE, identity)
        return identity

    def connected() -> str:
        identity = create()
        _said("network", "connect", "recorded", identity)
        return identity

    _said("network", "create", "recorded")
    try:
        for name, spec in WISHES.items():
            _record(api, name, spec, lambda spec=spec: create(**spec))  # type: ignore[misc]
        _record(api, "started", {}, started)
        _record(api, "updated", {}, updated)
        _record(api, "connected", {}, connected)
        _record(api, "by_hand", None, lambda: _said("create", *BY_HAND, IMAGE, "601"))
    finally:
        _said("network", "rm", "recorded")
        _said("rmi", IMAGE)


if __name__ == "__main__":
    main()
