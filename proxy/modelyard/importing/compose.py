"""Services of a compose file."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.importing.box import Box, Gpus, in_bytes, instance, pairs
from modelyard.importing.found import Found, UnreadableError, mapped, strings
from modelyard.importing.reading import Document

_VARIABLE = re.compile(
    r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-?+])([^{}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))"
)


def from_compose(text: str, file: str, beside: Path | None = None) -> Found:
    """Engines among the services. ``beside`` is the directory whose ``.env`` fills in variables.

    Raises ``UnreadableError`` with file and line.
    """
    document = Document(text, file)
    services = document.mapping().get("services")
    if not isinstance(services, Mapping):
        raise UnreadableError(f"{document.at('services')}: a compose file has a mapping `services`.")
    variables = _dot_env(beside)
    found = Found()
    for name, given in services.items():
        where = document.at("services", str(name))
        if not isinstance(given, Mapping):
            raise UnreadableError(f"{where}: the service {name} is no mapping.")
        missing: set[str] = set()
        service = _filled(given, variables, missing)
        _service(str(name), service, f"service {name} ({where})", beside, missing, found)
    return found


def _service(
    name: str, service: Mapping[str, Any], origin: str, beside: Path | None, missing: set[str], found: Found
) -> None:
    remarks = [f"{variable} is not set; it counts as empty" for variable in sorted(missing)]
    for key in ("extends", "env_file", "profiles", "secrets", "configs"):
        if service.get(key):
            remarks.append(f"its `{key}` is not followed; see what it adds")
    try:
        words = [*_words(service.get("entrypoint")), *_words(service.get("command"))]
    except ValueError as error:
        found.skipped.append(f"{origin}: its command cannot be read: {error}")
        return
    deploy = mapped(service.get("deploy"))
    limits = mapped(mapped(deploy.get("resources")).get("limits"))
    box = Box(
        origin=origin,
        name=str(service.get("container_name") or name),
        image=str(service["image"]) if service.get("image") else None,
        words=words,
        env=pairs(service.get("environment")),
        mounts=_mounts(service.get("volumes"), beside),
        gpus=_gpus(service, deploy),
        shm_bytes=in_bytes(service.get("shm_size")),
        memory_bytes=in_bytes(service.get("mem_limit") or limits.get("memory")),
        cpus=_number(service.get("cpus") or limits.get("cpus")),
        remarks=remarks,
    )
    made = instance(box, found)
    if made is None:
        return
    item = made[0]
    replicas = deploy.get("replicas", service.get("scale", 1))
    item.replicas = replicas if isinstance(replicas, int) and not isinstance(replicas, bool) else 1
    if service.get("build") and not item.image:
        item.remarks.append("its image is built by compose: give the name of one that the hosts can pull")
    item.remarks.append("if it runs, `modelyard import docker` takes it over without a restart")
    found.instances.append(item)


def _words(value: Any) -> list[str]:
    return shlex.split(value, comments=True) if isinstance(value, str) else strings(value)


def _number(value: Any) -> float | None:
    try:
        return float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None


def _gpus(service: Mapping[str, Any], deploy: Mapping[str, Any]) -> Gpus:
    reserved = mapped(mapped(deploy.get("resources")).get("reservations")).get("devices")
    entries = [*(reserved if isinstance(reserved, list) else [])]
    if service.get("gpus") == "all":
        return Gpus(-1, (), "nvidia")
    if isinstance(service.get("gpus"), list):
        entries += service["gpus"]
    for entry in map(mapped, entries):
        if "gpu" in strings(entry.get("capabilities")) or entry.get("driver") == "nvidia":
            ids = tuple(strings(entry.get("device_ids")))
            count = entry.get("count", "all")
            return Gpus(count if isinstance(count, int) else -1, ids, "nvidia")
    if any(path.startswith(("/dev/kfd", "/dev/dri")) for path in strings(service.get("devices"))):
        return Gpus(-1, (), "rocm")
    if service.get("runtime") == "nvidia":
        visible = pairs(service.get("environment")).get("NVIDIA_VISIBLE_DEVICES", "all")
        return Gpus(-1, () if visible == "all" else tuple(visible.split(",")), "nvidia")
    return Gpus()


def _mounts(volumes: Any, beside: Path | None) -> dict[str, str]:
    """Directories of the host by where they are inside; named volumes are none."""
    found = {}
    for entry in volumes if isinstance(volumes, list) else ():
        if isinstance(entry, Mapping):
            source, target = str(entry.get("source") or ""), str(entry.get("target") or "")
        else:
            source, _, rest = str(entry).partition(":")
            target = rest.partition(":")[0]
        if source.startswith("~"):
            source = os.path.expanduser(source)  # noqa: PTH111 - text of a file, not a path of ours
        elif source.startswith(".") and beside is not None:
            source = posixpath.normpath(posixpath.join(str(beside.absolute()), source))
        if source.startswith("/") and target:
            found[target] = source
    return found


def _dot_env(directory: Path | None) -> dict[str, str]:
    """The variables of ``.env`` beside the file; the environment of this command is no part of a project."""
    try:
        text = (directory / ".env").read_text(encoding="utf-8") if directory else ""
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in text.splitlines():
        name, sign, value = line.strip().removeprefix("export ").partition("=")
        if sign and not name.startswith("#"):
            found[name.strip()] = value.strip().strip("'\"")
    return found


def _filled(value: Any, variables: Mapping[str, str], missing: set[str]) -> Any:
    """The value with ``$NAME`` and ``${NAME:-default}`` filled in; the names of those not known in ``missing``."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(4)
        if name is None:
            return "$"
        known, sign = variables.get(name), match.group(2) or ""
        if known is None or (not known and sign.startswith(":")):
            if sign.endswith("-"):
                return match.group(3)
            if not sign.endswith("+"):
                missing.add(name)
            return ""
        return match.group(3) if sign.endswith("+") else known

    if isinstance(value, str):
        return _VARIABLE.sub(fill, value)
    if isinstance(value, Mapping):
        return {key: _filled(item, variables, missing) for key, item in value.items()}
    return [_filled(item, variables, missing) for item in value] if isinstance(value, list) else value
