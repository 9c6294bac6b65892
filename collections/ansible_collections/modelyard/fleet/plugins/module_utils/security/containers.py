"""What of an inspected container matters for security, without any value that may be secret. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import LABEL
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.adopted import EVERYWHERE, name_of
from ansible_collections.modelyard.fleet.plugins.module_utils.security.secrets import pairs, secret_arguments

FLEET, ADOPTED, FOREIGN = "fleet", "adopted", "foreign"
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")
_RUNS = ("running", "restarting", "paused")
# a directory that holds the socket gives it away as well
_AROUND = ("/", "/run", "/var/run")


def described(
    item: Mapping[str, Any], fleet: str, adopt: Collection[str], socket: str, defaults: Collection[str]
) -> dict[str, Any]:
    """One container. ``defaults`` are the security options that the engine gives to all of them."""
    config, host = item.get("Config") or {}, item.get("HostConfig") or {}
    labels = config.get("Labels") or {}
    ours = labels.get(f"{LABEL}.fleet") == fleet and labels.get(f"{LABEL}.replica")
    adopted = None if ours else name_of(dict(item), adopt)
    options = [str(one).replace("=", ":") for one in (*(host.get("SecurityOpt") or []), *defaults)]
    words = [*_words(config.get("Entrypoint")), *_words(config.get("Cmd"))]
    return {
        "name": str(item.get("Name", "")).lstrip("/") or str(item.get("Id", ""))[:12],
        "kind": FLEET if ours else ADOPTED if adopted else FOREIGN,
        "adopted": adopted,
        "engine": labels.get(f"{LABEL}.engine"),
        "runs": (item.get("State") or {}).get("Status") in _RUNS,
        "privileged": bool(host.get("Privileged")),
        "capabilities": sorted(str(one).upper().removeprefix("CAP_") for one in host.get("CapAdd") or []),
        "socket": _has_socket(item, socket),
        "root": str(config.get("User") or "0").partition(":")[0] in ("0", "root"),
        "writable": not host.get("ReadonlyRootfs"),
        "new_privileges": not {"no-new-privileges", "no-new-privileges:true"} & set(options),
        "host_network": host.get("NetworkMode") == "host",
        "published": _published(item),
        "secret_arguments": secret_arguments(words, pairs(config.get("Env") or [])),
    }


def everywhere(container: Mapping[str, Any]) -> list[int]:
    """The ports of a container that are published on every address of the host."""
    return sorted({one["port"] for one in container["published"] if one["address"] in EVERYWHERE})


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(word) for word in value or []]


def _has_socket(item: Mapping[str, Any], socket: str) -> bool:
    host = item.get("HostConfig") or {}
    sources = {
        str(mount.get("Source", "")) for mount in item.get("Mounts") or [] if mount.get("Type") == "bind"
    }
    sources |= {
        str(mount.get("Source", "")) for mount in host.get("Mounts") or [] if mount.get("Type") == "bind"
    }
    sources |= {str(bind).partition(":")[0] for bind in host.get("Binds") or []}
    return any((source.rstrip("/") or "/") in (socket, *SOCKETS, *_AROUND) for source in sources)


def _published(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    live = (item.get("NetworkSettings") or {}).get("Ports") or {}
    wished = (item.get("HostConfig") or {}).get("PortBindings") or {}
    return [
        {"address": str(entry.get("HostIp") or ""), "port": int(entry["HostPort"])}
        for inside, entries in sorted((live or wished).items())
        for entry in entries or []
        if inside.endswith("/tcp") and str(entry.get("HostPort", "")).isdigit() and int(entry["HostPort"]) > 0
    ]
