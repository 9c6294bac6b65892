"""How a container differs from what it should be created from: exact in both directions.

Both sides are brought to one form first, field by field: what the engine fills in by itself or takes from the image is
filled in on the wished side too, so that what is left over is a difference that somebody made. An environment
variable that is no longer wished, or a capability that was never asked for, is one.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import LABEL

Data = Mapping[str, Any]
Difference = dict[str, Any]

# Settings of `HostConfig` that none of our containers asks for: any value but nothing was put there by somebody.
_NEVER_SET = {
    "privileged": "Privileged",
    "cap_add": "CapAdd",
    "pid_mode": "PidMode",
    "uts_mode": "UTSMode",
    "userns_mode": "UsernsMode",
    "auto_remove": "AutoRemove",
    "publish_all_ports": "PublishAllPorts",
    "volumes_from": "VolumesFrom",
    "volume_driver": "VolumeDriver",
    "dns": "Dns",
    "dns_options": "DnsOptions",
    "dns_search": "DnsSearch",
    "extra_hosts": "ExtraHosts",
    "links": "Links",
    "sysctls": "Sysctls",
    "storage_options": "StorageOpt",
    "cgroup_parent": "CgroupParent",
    "device_cgroup_rules": "DeviceCgroupRules",
    "init": "Init",
    "cpu_shares": "CpuShares",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "memory_reservation": "MemoryReservation",
    "blkio_weight": "BlkioWeight",
    "pids_limit": "PidsLimit",
    "oom_score_adj": "OomScoreAdj",
    "oom_kill_disable": "OomKillDisable",
}
_BRIDGE = ("", "default", "bridge")
_MOST_REASONS = 6
_LONGEST_VALUE = 60


def differences(
    wanted: Data, inspected: Data, image: Data | None, running_image: Data | None = None
) -> list[Difference]:
    """Every difference as ``{"field", "wanted", "found"}``, sorted by field; None where a side has nothing.

    ``wanted`` is a create body (``config.container_config``), ``inspected`` the engine's inspect document of the
    container. ``image`` is that of the image which ``wanted`` names, None when this host does not have it;
    ``running_image`` that of the image which the container was made from, needed only when that is another one.
    Environment values come as ``sha256:`` and 12 digits.
    """
    config, host = inspected["Config"], inspected["HostConfig"]
    same_image = _same_image(wanted["Image"], inspected, image)
    base = running_image or (image if same_image else None)
    defaults: Data | None = None if base is None else base.get("Config") or {}
    wished = _with_image(wanted, defaults or {}, config if defaults is None else None)
    wanted_host: Data = wanted["HostConfig"]
    pairs: dict[str, tuple[Any, Any]] = {
        **_fields(_processes(wished), _processes(config)),
        **_fields(_limits(wanted_host), _limits(host)),
        **_fields(_access(wanted_host), _access(host)),
        **_fields(
            {name: wanted_host.get(key) for name, key in _NEVER_SET.items()},
            {name: _never(key, host.get(key)) for name, key in _NEVER_SET.items()},
        ),
        **_environment(wanted, config, defaults),
        **_labels(wanted, config),
        "networks": (_networks(wanted_host, {}), _networks(host, inspected)),
    }
    _forgive(pairs, wanted_host, host)
    found = [
        {"field": name, "wanted": _plain(want), "found": _plain(have)}
        for name, (want, have) in pairs.items()
        if _plain(want) != _plain(have)
    ]
    if not same_image:
        found.append(
            {
                "field": "image",
                "wanted": _image_text(wanted["Image"], (image or {}).get("Id")),
                "found": _image_text(config.get("Image") or "", inspected.get("Image")),
            }
        )
    return sorted(found, key=lambda item: str(item["field"]))


def reason(found: Iterable[Difference]) -> str:
    """Differences as one line: ``env.TOKEN changed; memory: 256 -> none``, read from what is to what is wished."""
    lines = []
    for item in found:
        name, wanted, have = item["field"], item["wanted"], item["found"]
        if name.startswith("env."):
            state = "changed" if wanted and have else "added" if wanted else "removed"
            lines.append(f"{name} {state}")
        else:
            lines.append(f"{name}: {_short(have)} -> {_short(wanted)}")
    more = f"; and {len(lines) - _MOST_REASONS} more" if len(lines) > _MOST_REASONS else ""
    return "; ".join(lines[:_MOST_REASONS]) + more


def _fields(wanted: Data, found: Data) -> dict[str, tuple[Any, Any]]:
    return {name: (wanted.get(name), found.get(name)) for name in (*wanted, *found)}


def _plain(value: Any) -> Any:
    """Nothing is nothing, however the engine writes it."""
    return None if value in (None, "", 0, False) or value == [] or value == {} else value


# --- the image ----------------------------------------------------------------------------------


def _same_image(reference: str, inspected: Data, image: Data | None) -> bool:
    """Whether the container runs what the reference names on this host now.

    Engines differ in which digest of an image they give a container (its configuration's, its manifest's, its
    index's), so any that both sides know will do; and what a digest names never changes.
    """
    if "@sha256:" in reference and inspected["Config"].get("Image") == reference:
        return True
    if image is None:
        return bool(inspected["Config"].get("Image") == reference)
    known = {image.get("Id"), (image.get("Descriptor") or {}).get("digest")}
    known.update(item.get("ID") for item in image.get("Manifests") or [])
    running = {inspected.get("Image"), (inspected.get("ImageManifestDescriptor") or {}).get("digest")}
    return bool((known & running) - {None, ""})


def _image_text(reference: str, identity: str | None) -> str:
    return f"{reference} ({identity[:19]})" if identity and identity != reference else reference


def _with_image(wanted: Data, defaults: Data, unknown: Data | None) -> dict[str, Any]:
    """A create body with what the engine takes from the image filled in.

    ``unknown``: the container's own configuration, in place of an image that is not there to be asked.
    """
    source = defaults if unknown is None else unknown
    merged = dict(wanted)
    if not merged.get("Entrypoint"):
        if not merged.get("Cmd"):
            merged["Cmd"] = source.get("Cmd")
        merged["Entrypoint"] = source.get("Entrypoint")
    for key in ("User", "WorkingDir", "StopSignal"):
        merged[key] = merged.get(key) or source.get(key)
    for key in ("ExposedPorts", "Volumes"):
        merged[key] = {**(source.get(key) or {}), **(merged.get(key) or {})}
    health = merged.get("Healthcheck") or {}
    base = source.get("Healthcheck") or {}
    merged["Healthcheck"] = {key: health.get(key) or base.get(key) for key in (*base, *health)}
    return merged


# --- fields of one side -------------------------------------------------------------------------


def _processes(config: Data) -> dict[str, Any]:
    """What is run, and how it is asked and stopped."""
    return {
        "command": list(config.get("Cmd") or []),
        "entrypoint": _words(config.get("Entrypoint")),
        "user": config.get("User"),
        "working_dir": config.get("WorkingDir"),
        "stop_signal": config.get("StopSignal") or "SIGTERM",
        "stop_timeout": config.get("StopTimeout"),
        "healthcheck": {key: value for key, value in (config.get("Healthcheck") or {}).items() if value},
        "exposed_ports": sorted(config.get("ExposedPorts") or {}),
        "volumes": sorted(config.get("Volumes") or {}),
        "tty": config.get("Tty"),
    }


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _limits(host: Data) -> dict[str, Any]:
    """What it may use."""
    return {
        "shm_size": host.get("ShmSize"),
        "cpus": (host.get("NanoCpus") or 0) / 10**9,
        "memory": host.get("Memory"),
        "memory_swap": host.get("MemorySwap"),
        "ulimits": sorted(
            f"{item['Name']}={item.get('Soft', 0)}:{item.get('Hard', 0)}"
            for item in host.get("Ulimits") or []
        ),
        "log": _log(host.get("LogConfig") or {}),
        "restart_policy": _restart(host.get("RestartPolicy") or {}),
    }


def _log(config: Data) -> str:
    options = ",".join(f"{key}={value}" for key, value in sorted((config.get("Config") or {}).items()))
    return f"{config.get('Type', '')} {options}".strip()


def _restart(policy: Data) -> str:
    count = policy.get("MaximumRetryCount")
    name = policy.get("Name") or "no"
    return f"{name}:{count}" if count else name


def _access(host: Data) -> dict[str, Any]:
    """What it reaches outside itself, and its powers."""
    return {
        "ports": sorted(
            f"{entry.get('HostIp', '')}:{entry.get('HostPort', '')}->{inner}"
            for inner, entries in (host.get("PortBindings") or {}).items()
            for entry in entries or []
        ),
        "mounts": sorted(
            [_mount(item) for item in host.get("Mounts") or []]
            + [_bind(item) for item in host.get("Binds") or []]
        ),
        "tmpfs": {
            path: ",".join(sorted(options.split(","))) for path, options in (host.get("Tmpfs") or {}).items()
        },
        "read_only": host.get("ReadonlyRootfs"),
        "ipc": host.get("IpcMode"),
        "devices": sorted(
            f"{item.get('PathOnHost')}:{item.get('PathInContainer')}:{item.get('CgroupPermissions') or 'rwm'}"
            for item in host.get("Devices") or []
        ),
        "device_requests": sorted(_device_request(item) for item in host.get("DeviceRequests") or []),
        "groups": sorted(str(group) for group in host.get("GroupAdd") or []),
        "cap_drop": _capabilities(host.get("CapDrop")),
        "security_opts": _security(host),
        "network_mode": _network_mode(host),
    }


def _mount(item: Data) -> str:
    """One entry of ``Mounts``: ``bind /source -> /target ro`` and whatever else was asked of it."""
    mode = "ro" if item.get("ReadOnly") else "rw"
    source = item.get("Source") or ""
    if item.get("Type") == "bind":
        source = posixpath.normpath(source)
    target = posixpath.normpath(item["Target"])
    known = ("Type", "Source", "Target", "ReadOnly")
    more = "".join(f" {key}={value}" for key, value in sorted(item.items()) if key not in known and value)
    return f"{item.get('Type')} {source} -> {target} {mode}{more}"


def _bind(text: str) -> str:
    """One entry of ``Binds``, as ``docker run -v`` leaves them."""
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    words = [word for word in options.split(",") if word]
    mode = "ro" if "ro" in words else "rw"
    more = "".join(f" {word}" for word in words if word not in ("ro", "rw"))
    kind = "bind" if source.startswith("/") else "volume"
    return f"{kind} {posixpath.normpath(source)} -> {posixpath.normpath(target)} {mode}{more}"


def _device_request(item: Data) -> str:
    """One entry of ``DeviceRequests``: ``nvidia 0,1 [gpu]``, ``cdi nvidia.com/gpu=0``, ``nvidia all [gpu]``."""
    ids = ",".join(sorted(str(one) for one in item.get("DeviceIDs") or []))
    count = item.get("Count") or 0
    asked = ids or ("all" if count == -1 else str(count))
    groups = "".join(f" [{','.join(sorted(group))}]" for group in item.get("Capabilities") or [])
    options = "".join(f" {key}={value}" for key, value in sorted((item.get("Options") or {}).items()))
    return f"{item.get('Driver') or 'any'} {asked}{groups}{options}"


def _capabilities(value: Any) -> list[str]:
    return sorted(
        name.upper()[4:] if name.upper().startswith("CAP_") else name.upper() for name in value or []
    )


def _security(host: Data) -> list[str]:
    found = [item if "=" in item else item.replace(":", "=", 1) for item in host.get("SecurityOpt") or []]
    if "host" in (host.get("IpcMode"), host.get("PidMode")) or host.get("Privileged"):
        found = [item for item in found if item != "label=disable"]  # the engine itself adds that then
    return sorted("no-new-privileges" if item == "no-new-privileges=true" else item for item in found)


def _never(key: str, value: Any) -> Any:
    return None if key == "PidsLimit" and value == -1 else value


def _networks(host: Data, inspected: Data) -> list[str]:
    """The networks that a container is in; of a wish the one that it would be in."""
    listed = (inspected.get("NetworkSettings") or {}).get("Networks")
    return sorted(listed) if listed is not None else [_network_mode(host)]


def _network_mode(host: Data) -> str:
    mode = str(host.get("NetworkMode") or "")
    return "bridge" if mode in _BRIDGE else mode


def _environment(wanted: Data, config: Data, defaults: Data | None) -> dict[str, tuple[Any, Any]]:
    """Variable by variable. What comes from the image is wished too; with no image to ask, extras are not judged."""
    wished = _variables((defaults or {}).get("Env"))
    wished.update(_variables(wanted.get("Env")))
    found = _variables(config.get("Env"))
    names = wished.keys() | found.keys() if defaults is not None else wished.keys()
    return {f"env.{name}": (_digest(wished.get(name)), _digest(found.get(name))) for name in names}


def _variables(entries: Any) -> dict[str, str]:
    split = (entry.partition("=") for entry in entries or [] if "=" in entry)
    return {name: value for name, _, value in split}


def _digest(value: str | None) -> str | None:
    return None if value is None else f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"


def _labels(wanted: Data, config: Data) -> dict[str, tuple[Any, Any]]:
    """Our own labels. The launch spec among them only repeats what the hash says, unless the hash is the same."""
    ours, found = wanted.get("Labels") or {}, config.get("Labels") or {}
    names = {name for name in (*ours, *found) if name.startswith(f"{LABEL}.")}
    if ours.get(f"{LABEL}.hash") != found.get(f"{LABEL}.hash"):
        names.discard(f"{LABEL}.spec")
    pairs: dict[str, tuple[Any, Any]] = {
        f"labels.{name}": (ours.get(name), found.get(name)) for name in names
    }
    spec = pairs.get(f"labels.{LABEL}.spec")
    if spec is not None:
        pairs[f"labels.{LABEL}.spec"] = (_digest(spec[0]), _digest(spec[1]))  # long, and says nothing new
    return pairs


def _forgive(pairs: dict[str, tuple[Any, Any]], wanted: Data, found: Data) -> None:
    """Take what the engine chooses when nobody asks for what it chose."""
    limits = [size for size in (wanted.get("Memory"), found.get("Memory")) if size]
    swap = [size * 2 for size in limits] + ([-1] if limits else [])  # -1: a kernel that does not count swap
    _accept(pairs, "memory_swap", swap, wanted.get("MemorySwap"))
    if "ShmSize" not in wanted:
        pairs["shm_size"] = (None, None)
    _accept(pairs, "ipc", ["private", "shareable"], wanted.get("IpcMode"))
    if pairs["network_mode"][0] != pairs["network_mode"][1]:
        del pairs["networks"]  # would only repeat it


def _accept(pairs: dict[str, tuple[Any, Any]], name: str, values: list[Any], asked: Any) -> None:
    if not asked and name in pairs and pairs[name][1] in values:
        pairs[name] = (None, None)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
