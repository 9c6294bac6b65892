"""The containers of a fleet as they are, through the engine's socket, against what each would be created from."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.compare import differences
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import (
    LABEL,
    NEXT,
    PREVIOUS,
    container_config,
    container_name,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.names import names_of
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.shown import (
    Difference,
    compared,
    difference,
    recorded_differences,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import from_flags
from ansible_collections.modelyard.fleet.plugins.module_utils.unix_http import get

Ask = Callable[[str], Any]
"""The engine's answer to a GET as data, None when it knows no such thing. Raises ``EngineError``."""


class EngineError(Exception):
    """The container engine did not answer as it should: nothing is known of its containers."""


def engine(socket: Path, timeout_s: float) -> Ask:
    """A way to ask the engine behind a socket."""

    def ask(path: str) -> Any:
        try:
            status, body = get(socket, path, timeout_s)
            if status == 404:
                return None
            if status != 200:
                raise EngineError(f"{path.partition('?')[0]} answered {status}")
            return json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"{socket}: {error}") from error

    return ask


def containers_of_fleet(ask: Ask, fleet: str) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """The inspected container of each replica, and what was left over: earlier ones and doubles."""
    query = urlencode({"all": "true", "filters": json.dumps({"label": [f"{LABEL}.fleet={fleet}"]})})
    running: dict[str, dict[str, Any]] = {}
    leftovers = []
    for listed in ask(f"/containers/json?{query}") or []:
        replica = str((listed.get("Labels") or {}).get(f"{LABEL}.replica") or "")
        inspected = ask(f"/containers/{quote(listed['Id'])}/json") if replica else None
        if not inspected:
            continue  # it went away while we looked
        name = str(inspected.get("Name", "")).lstrip("/")
        if name.endswith((PREVIOUS, NEXT)):
            leftovers.append(_leftover(name, replica, inspected))
        elif replica not in running:
            running[replica] = inspected
        else:
            # the one with the replica's own name is the replica
            other = running[replica]
            if name == container_name(fleet, replica):
                running[replica], inspected = inspected, other
                name = str(other.get("Name", "")).lstrip("/")
            leftovers.append(_leftover(name, replica, inspected))
    return running, leftovers


def container_differences(
    ask: Ask, fleet: str, assignment: Mapping[str, Any], inspected: Mapping[str, Any]
) -> list[Difference]:
    """Everything by which a container differs from its assignment (with secrets), argument by argument."""
    wanted = container_config(dict(assignment), fleet)
    asked = (ask(f"/images/{quote(one, safe='/:@')}/json") for one in names_of(str(wanted["Image"])))
    image = next((one for one in asked if one), None)
    running = inspected.get("Image")
    own = ask(f"/images/{quote(str(running), safe=':')}/json") if running else None
    name = str(inspected.get("Name", "")).lstrip("/")
    right = container_name(fleet, assignment["replica"])
    found = [] if name == right else [difference("name", right, name, "container", "settings")]
    for item in differences(wanted, inspected, image, own):
        if item["field"] in (f"labels.{LABEL}.hash", f"labels.{LABEL}.spec"):
            continue  # a record of the rest: read below, when nothing else says what differs
        if item["field"] == "command":
            found += _arguments(item["wanted"] or [], item["found"] or [])
        else:
            wanted_text, found_text = _text(item["wanted"]), _text(item["found"])
            found.append(difference(item["field"], wanted_text, found_text, "container", "settings"))
    if found:
        return found
    labels = (inspected.get("Config") or {}).get("Labels") or {}
    return recorded_differences(_record(labels), labels.get(f"{LABEL}.hash"), assignment)


def _arguments(wanted: list[str], found: list[str]) -> list[Difference]:
    by_flag = compared(from_flags(wanted), from_flags(found), "container")
    whole = {"command": " ".join(wanted)}, {"command": " ".join(found)}
    return by_flag or compared(*whole, "container")  # the order counts: a later flag may win


def _record(labels: Mapping[str, str]) -> Any:
    try:
        return json.loads(labels.get(f"{LABEL}.spec") or "{}")
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)


def _leftover(name: str, replica: str, inspected: Mapping[str, Any]) -> dict[str, Any]:
    """A container beside the replica's own; ``mended``: the next deploy stops or removes it by itself."""
    state = str((inspected.get("State") or {}).get("Status", "unknown"))
    kept = name.endswith((PREVIOUS, NEXT))
    runs = state in ("running", "restarting")
    return {
        "name": name,
        "replica": replica,
        "state": state,
        "why": "left by a change that did not end" if kept else f"a second container of {replica}",
        "mended": name.endswith(NEXT) or (kept and runs),
        "advice": "the next change of this replica removes it" if kept else "no run touches both: remove one",
    }
