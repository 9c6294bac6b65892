"""CDI specifications: which devices they name, and whether what they bring into a container is still on the host.

A specification is written for one driver. After an upgrade it names libraries that are gone, and containers that ask
for its devices are not created any more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
_LIMIT_BYTES = 4 * 1024 * 1024
_LINE = re.compile(r"^(?P<indent> *)(?P<item>- )?(?P<key>\w+):(?: +(?P<value>.*))?$")
Facts = dict[str, Any]


def look(host: Host, directories: Iterable[str]) -> Facts:
    """Every specification, and the version of NVIDIA's container toolkit where it is there."""
    specs = []
    unknown = []
    for directory in directories:
        try:
            files = sorted(
                file for file in Path(directory).iterdir() if file.suffix in (".json", ".yaml", ".yml")
            )
        except FileNotFoundError:
            continue
        except OSError as error:
            unknown.append(f"{directory}: {error.strerror}")
            continue
        specs += [_spec(file) for file in files]
    return {
        "state": "unknown" if unknown else "up",
        "reason": "; ".join(unknown),
        "specs": specs,
        "toolkit": _toolkit(host),
    }


def _spec(file: Path) -> Facts:
    nothing: Facts = {"file": str(file), "kind": None, "devices": [], "missing": []}
    try:
        with file.open("rb") as stream:
            text = stream.read(_LIMIT_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        return {**nothing, "reason": f"it cannot be read: {error.strerror}"}
    found = parse_json(text) if file.suffix == ".json" else parse_yaml(text)
    if found is None:
        return {**nothing, "reason": "it is no CDI specification that can be understood"}
    missing = [path for path in found.pop("paths") if not os.path.lexists(path)]
    return {**nothing, **found, "missing": missing, "reason": ""}


def parse_json(text: str) -> Facts | None:
    """Kind, names of devices and paths on the host, of a specification in JSON."""
    try:
        spec = json.loads(text)
        devices = spec["devices"]
        edits = [spec.get("containerEdits") or {}, *(one.get("containerEdits") or {} for one in devices)]
        paths = [
            str(item.get("hostPath") or item["path"])
            for edit in edits
            for key in ("deviceNodes", "mounts")
            for item in edit.get(key) or ()
        ]
        names = [str(one["name"]) for one in devices]
        return {"kind": str(spec["kind"]), "devices": names, "paths": _once(paths)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_yaml(text: str) -> Facts | None:
    """The same of YAML in block style, as nvidia-ctk and amd-ctk write it. Anything else is not understood.

    The standard library reads no YAML; these few keys can be told by their indentation.
    """
    kind, part, section, depth = "", "", "", -1
    names: list[str] = []
    mounts: list[str] = []
    nodes: list[dict[str, str]] = []
    for line in text.splitlines():
        found = _LINE.match(line.rstrip())
        if found is None:
            continue
        column = len(found["indent"]) + len(found["item"] or "")
        key, value = found["key"], _scalar(found["value"])
        if column == 0:
            part, section, depth = key, "", -1
            kind = value if key == "kind" else kind
            continue
        if part == "devices" and depth < 0:
            depth = column  # where the keys of a device stand
        if part == "devices" and column == depth and key == "name":
            names.append(value)
        if key in ("deviceNodes", "mounts", "hooks", "env"):
            section = key
        elif section == "deviceNodes":
            if found["item"] or not nodes:
                nodes.append({})
            nodes[-1].setdefault(key, value)
        elif section == "mounts" and key == "hostPath":
            mounts.append(value)
    if not kind or not names:
        return None
    paths = [*(node.get("hostPath") or node.get("path") or "" for node in nodes), *mounts]
    return {"kind": kind, "devices": names, "paths": _once(path for path in paths if path)}


def _scalar(text: str | None) -> str:
    return (text or "").strip().strip("\"'")


def _once(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def _toolkit(host: Host) -> Facts:
    """NVIDIA's container toolkit."""
    asked = host.run("nvidia-ctk", "--version")
    version = re.search(r"version (\d+\.\d+[\w.+~-]*)", asked.out)
    if version:
        return {"state": "up", "version": version.group(1), "reason": ""}
    state = "absent" if asked.state == "absent" else "unknown"
    return {"state": state, "version": None, "reason": asked.reason or "nvidia-ctk tells no version"}
