"""The launch spec: everything that a runtime needs to start one replica, and the hash of it."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import to_flags
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host, Model, Slot, Source
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

Spec = dict[str, Any]


def image_for(model: Model, engine: Mapping[str, Any], host: Host) -> str | None:
    """The image of this model on this host: its held release's, the model's, the fleet's, then the catalog's."""
    if host.name in model.images or model.image:
        return model.images.get(host.name) or model.image
    own = host.images.get(model.engine, {}).get(host.accelerator)
    return own or engine["images"].get(host.accelerator)


def refusal(model: Model, engine: Mapping[str, Any], host: Host) -> str | None:
    """Why this host cannot run this model whatever is free on it, as the end of a sentence about the host."""
    runtime = host.runtime_of(model)
    if runtime not in engine["runtimes"]:
        return (
            f"would run it as {runtime}, and {model.engine} runs only in {' and '.join(engine['runtimes'])}"
        )
    kind = KINDS[model.source.kind] if model.source is not None else None
    if kind is not None and model.source is not None and kind.pin and not model.source.pin:
        return f"needs source.{kind.pin} of the model to fetch its weights"
    if runtime == "docker":
        if image_for(model, engine, host) is None:
            return f"needs an image of {model.engine} for {host.accelerator}"
        if host.docker == "unknown":
            return "has a Docker daemon that does not answer"
        if host.docker == "absent":
            return "has no docker command: site.yml and hosts.yml install Docker"
    return None


def weights_path(source: Source | None, weights_dir: str) -> str | None:
    """Where a model's weights lie on a host: a directory, or the file itself for a url that is no archive.

    The name holds the revision or checksum, so that two models of one source share it and a new revision
    never overwrites what an engine has open.
    """
    if source is None:
        return None
    if KINDS[source.kind].in_place:
        return source.value
    pin = (source.pin or "")[:12]
    if source.kind == "hub":
        return posixpath.join(weights_dir, f"{source.value.replace('/', '--')}@{pin}")
    if KINDS[source.kind].listed:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", posixpath.basename(source.value.split("?")[0].rstrip("/")))
        return posixpath.join(weights_dir, f"{name.lstrip('.-') or 'weights'}@{pin}")
    name = posixpath.basename(urlsplit(source.value).path) or "file"
    for ending in sorted(_ARCHIVES, key=len, reverse=True):
        if name.lower().endswith(ending):
            return posixpath.join(weights_dir, f"{name[: -len(ending)]}@{pin}")
    return posixpath.join(weights_dir, f"{posixpath.splitext(name)[0]}@{pin}", name)


def weights_name(source: Source | None) -> str:
    """The name of a model's directory among the fetched weights, on whatever host; empty where nothing is fetched."""
    if source is None or KINDS[source.kind].in_place or not source.pin:
        return ""
    return (weights_path(source, "") or "").split("/")[0]


def weights_of(model: Model, host: Host) -> str | None:
    """Where a model's weights lie on a host; custom ones in the volume of the model, where somebody put them."""
    if model.source is not None and model.source.kind == "custom":
        return posixpath.join(host.volumes_dir, f"volume_{model.id}", "model_weights", model.source.value)
    return weights_path(model.source, host.weights_dir)


def endpoint_url(address: str, port: int) -> str:
    """The URL under which proxies reach a replica; brackets for IPv6."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def build(model: Model, engine: Mapping[str, Any], host: Host, slot: Slot) -> Spec:
    """The full launch spec of a slot. ``env`` holds secrets in clear; see :func:`redacted`."""
    docker = slot.runtime == "docker"
    container = engine["container"]
    container_port = container["port"] if docker else slot.port
    weights = weights_of(model, host)
    cache = posixpath.join(host.cache_dir, model.engine)
    values = {
        "model": (container["weights_mount"] if docker else weights) if weights else model.id,
        "served_name": model.id,
        "bind": "0.0.0.0" if docker else host.address,  # noqa: S104 - inside the container's own network
        "port": str(container_port),
        "gpus": str(max(1, len(slot.gpus))),
        "grace_s": str(engine["stop"]["grace_s"]),
        "python": host.python,
    }
    if docker and weights and model.source and _is_single_file(model.source):
        values["model"] = posixpath.join(container["weights_mount"], posixpath.basename(weights))
    command = _command(model, engine, values, many_gpus=len(slot.gpus) > 1)
    env = dict(engine["env"])
    if weights:
        env.update(engine["env_offline"])
    env.update(engine["env_accelerators"].get(host.accelerator, {}))
    if docker:
        env.update(container["env"])
    else:
        env = {key: _on_host(value, container["cache_mount"], cache) for key, value in env.items()}
    if model.source is not None and model.source.kind == "custom":
        # images with an implementation of their own find the weights by these
        env |= {"MODEL_WEIGHTS_ID": model.source.value, "MODEL_WEIGHTS_PATH": values["model"]}
    env.update({key: str(value) for key, value in model.env.items()})
    health = container["health_command"] if docker else None
    shm = model.resources.get("shm_mib") or container["shm_mib"] + container["shm_mib_per_gpu"] * len(
        slot.gpus
    )
    return {
        "replica": slot.replica,
        "model": model.id,
        "engine": model.engine,
        "runtime": slot.runtime,
        "image": image_for(model, engine, host) if docker else None,
        "executable": [] if docker else [_fill(word, values) for word in engine["executable"]],
        "command": command,
        "env": env,
        "user": (host.container_user or container["user"]) if docker else None,
        "gpus": list(slot.gpus),
        "gpu_mode": host.gpu_mode,
        "accelerator": host.accelerator,
        "shm_mib": shm,
        "ipc": container["ipc"],
        "read_only": bool(container["read_only"] and host.read_only),
        "tmpfs": list(container["tmpfs"]),
        "mounts": _mounts(model, container, weights, cache) if docker else [],
        "publish": {"address": host.address, "port": slot.port, "container_port": container_port},
        "health_command": [_fill(word, values) for word in health] if health else None,
        "start_period_s": engine["health"]["start_period_s"],
        "stop_timeout_s": engine["stop"]["timeout_s"],
        "ulimits": dict(host.ulimits) if docker else {},
        "cpus": model.resources.get("cpus"),
        "memory": model.resources.get("memory"),
        "log": {"max_size": host.log_max_size, "max_files": host.log_max_files},
        "live_path": engine["health"]["live"],
        "ready_path": engine["health"]["ready"],
        "url": endpoint_url(host.address, slot.port),
        "smoke": {
            "prompt": model.smoke.get("prompt", "Say hello."),
            "max_tokens": model.smoke.get("max_tokens", 8),
        },
        "served_name": model.id,
        "dialect": engine["dialect"],
        "task": model.task,
    }


def adopted_spec(spec: Mapping[str, Any], address: str, port: int, served_name: str | None) -> Spec:
    """The spec of a container that was started by other means: where it is, and how its engine calls the model."""
    return {
        **spec,
        "publish": {"address": address, "port": port, "container_port": spec["publish"]["container_port"]},
        "url": endpoint_url(address, port),
        "served_name": served_name or spec["served_name"],
    }


def spec_hash(spec: Mapping[str, Any]) -> str:
    """sha256 over the whole spec, secrets included, as canonical JSON."""
    return hashlib.sha256(_canonical(spec).encode()).hexdigest()


def redacted(spec: Mapping[str, Any]) -> Spec:
    """The spec with ``env`` values as ``sha256:`` and 12 digits, so that a change still shows."""
    out = dict(spec)
    out["env"] = {
        key: value if _is_redacted(value) else f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"
        for key, value in sorted(out.get("env", {}).items())
    }
    return out


def _is_redacted(value: str) -> bool:
    return value.startswith("sha256:") and len(value) == 19


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _command(
    model: Model,
    engine: Mapping[str, Any],
    values: Mapping[str, str],
    *,
    many_gpus: bool,
) -> list[str]:
    """What follows the entrypoint."""
    conditions = {"always": True, "many_gpus": many_gpus}
    words: list[str] = []
    for part in engine["command"]:
        if conditions[part.get("when", "always")]:
            words += [_fill(word, values) for word in part["args"]]
    return words + to_flags(model.args, engine["arguments"])


def _mounts(
    model: Model,
    container: Mapping[str, Any],
    weights: str | None,
    cache: str,
) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = []
    if weights and model.source:
        single = _is_single_file(model.source)
        source = posixpath.dirname(weights) if single else weights
        mounts.append({"source": source, "target": container["weights_mount"], "read_only": True})
        mounts.append({"source": cache, "target": container["cache_mount"], "read_only": False})
    return mounts


def _is_single_file(source: Source) -> bool:
    return source.kind == "url" and not urlsplit(source.value).path.lower().endswith(_ARCHIVES)


def _on_host(value: str, mount: str, directory: str) -> str:
    """A path inside the container's cache as the path of the same thing on the host."""
    if value == mount or value.startswith(mount + "/"):
        return directory + value[len(mount) :]
    return value


def _fill(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word
