"""Containers as ``docker inspect`` shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelyard.importing.box import Box, Gpus, ReadText, instance, pairs
from modelyard.importing.found import Found, Instance, UnreadableError, mapped, strings

_RUNS = ("running", "paused", "restarting")


def from_inspect(
    text: str, file: str, images: Mapping[str, Mapping[str, Any]] | None = None,
    read_text: ReadText = lambda _path: None,
) -> Found:  # fmt: skip
    """Engines among inspected containers, each to be adopted.

    ``images`` are inspected images by id, which tell what of the environment is the image's own. Raises
    ``UnreadableError``.
    """
    found = Found()
    for number, item in enumerate(_containers(text, file)):
        if not isinstance(item, Mapping) or not isinstance(item.get("Config"), Mapping):
            raise UnreadableError(f"{file}: entry {number + 1} is no container as `docker inspect` shows it.")
        _one(item, found, images or {}, read_text)
    return found


def _containers(text: str, file: str) -> list[Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        where = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UnreadableError(
            f"{file}{where}: is no JSON ({getattr(error, 'msg', error)}); give the output of "
            "`docker inspect $(docker ps -q)`."
        ) from error
    if not isinstance(data, list):
        raise UnreadableError(
            f"{file}: holds no list of containers; give the output of `docker inspect $(docker ps -q)`."
        )
    return data


def _one(
    item: Mapping[str, Any], found: Found, images: Mapping[str, Mapping[str, Any]], read_text: ReadText
) -> None:
    config, host = mapped(item["Config"]), mapped(item.get("HostConfig"))
    name = str(item.get("Name") or item.get("Id") or "?").lstrip("/")
    origin = f"container {name}"
    labels = mapped(config.get("Labels"))
    if labels.get("modelyard.replica"):
        found.skipped.append(f"{origin}: is a replica of the fleet {labels.get('modelyard.fleet')} already")
        return
    state = str(mapped(item.get("State")).get("Status") or "running")
    if state not in _RUNS:
        found.skipped.append(f"{origin}: does not run ({state})")
        return
    own = mapped(mapped(images.get(str(item.get("Image")))).get("Config"))
    env = pairs(config.get("Env"))
    if own:
        unchanged = pairs(own.get("Env"))
        env = {key: value for key, value in env.items() if unchanged.get(key) != value}
    box = Box(
        origin=origin,
        name=name,
        image=str(config.get("Image") or "") or None,
        words=[str(item.get("Path") or ""), *strings(item.get("Args"))] if item.get("Path")
        else [*strings(config.get("Entrypoint")), *strings(config.get("Cmd"))],
        env=env,
        env_is_exact=bool(own),
        mounts={str(mount["Destination"]): str(mount["Source"]) for mount in map(mapped, item.get("Mounts") or ())
                if mount.get("Source") and mount.get("Destination")},
        gpus=gpus_of(host, config),
        shm_bytes=host.get("ShmSize") if isinstance(host.get("ShmSize"), int) else None,
        memory_bytes=host.get("Memory") or None,
        cpus=(host.get("NanoCpus") or 0) / 1e9 or None,
        remarks=_remarks(host),
    )  # fmt: skip
    made = instance(box, found, read_text)
    if made is not None:
        made[0].alive = True
        _reachable(made[0], item, made[1])
        found.instances.append(made[0])


def gpus_of(host: Mapping[str, Any], config: Mapping[str, Any]) -> Gpus:
    """GPUs by device requests (CDI or not), by devices of ROCm, or by the environment of the older runtime."""
    ids: list[str] = []
    count = 0
    for request in map(mapped, host.get("DeviceRequests") or ()):
        groups = [group for group in request.get("Capabilities") or () if isinstance(group, list)]
        wanted = any("gpu" in group for group in groups)
        named = [str(one).rpartition("=")[2] for one in request.get("DeviceIDs") or ()]
        if named and (wanted or request.get("Driver") == "cdi"):
            ids += named
        elif wanted:
            count = int(request.get("Count") or 0)
    if "all" in ids:
        ids, count = [], -1
    if ids or count:
        return Gpus(count, tuple(dict.fromkeys(ids)), "nvidia")
    devices = [str(mapped(device).get("PathOnHost", "")) for device in host.get("Devices") or ()]
    if any(path.startswith(("/dev/kfd", "/dev/dri")) for path in devices):
        return Gpus(-1, (), "rocm")
    if host.get("Runtime") == "nvidia":
        visible = pairs(config.get("Env")).get("NVIDIA_VISIBLE_DEVICES", "all")
        if visible not in ("", "none", "void"):
            named = [] if visible == "all" else visible.split(",")
            return Gpus(0 if named else -1, tuple(named), "nvidia")
    return Gpus()


def _reachable(item: Instance, container: Mapping[str, Any], inside: int) -> None:
    """Fill in where the container listens on its host, and whether it can be adopted there."""
    name = item.name
    host = mapped(container.get("HostConfig"))
    if host.get("NetworkMode") == "host" and 1 <= inside <= 65535:
        item.container, item.port, item.address = name, inside, "0.0.0.0"  # noqa: S104 - what it was found with
        item.remarks.append("it uses the host's network: it may listen on every address of the host")
        return
    published = mapped(mapped(container.get("NetworkSettings")).get("Ports")) or mapped(
        host.get("PortBindings")
    )
    bindings = [mapped(one) for one in published.get(f"{inside}/tcp") or ()]
    bindings = [
        one
        for one in bindings
        if str(one.get("HostPort", "")).isdigit() and 1 <= int(one["HostPort"]) <= 65535
    ]
    if not bindings:
        item.remarks.append(
            f"its port {inside} is not published on the host, so proxies cannot reach it and it cannot be adopted"
        )
        return
    first = min(bindings, key=lambda one: ":" in str(one.get("HostIp", "")))
    item.container, item.port = name, int(first["HostPort"])
    item.address = str(first.get("HostIp") or "0.0.0.0")  # noqa: S104 - what it was found with
    if item.address in ("0.0.0.0", "::"):  # noqa: S104
        item.remarks.append(
            "it is published on every address of the host: whoever reaches the host reaches it"
        )


def _remarks(host: Mapping[str, Any]) -> list[str]:
    """What house rules would have been: none of it ends an adoption."""
    found = []
    if host.get("Privileged"):
        found.append("it runs privileged; a replica of ours would not")
    if host.get("IpcMode") == "host":
        found.append("it shares the host's IPC namespace; a replica of ours gets /dev/shm of its own instead")
    if str(mapped(host.get("RestartPolicy")).get("Name") or "no") in ("no", ""):
        found.append("it has no restart policy: it stays away when it ends or the host reboots")
    return found
