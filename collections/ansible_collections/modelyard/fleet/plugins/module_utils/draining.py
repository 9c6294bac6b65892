"""Looking at a proxy from outside, and judging whether what is waited for has come."""

from __future__ import annotations

import http.client
import re
import urllib.error
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.probe import PROBE_TIMEOUT_S, request

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_IN_FLIGHT = "modelyard_replica_in_flight"
_STATE = "modelyard_replica_state"
_GENERATION = "modelyard_registry_generation"
USED = ("ready", "busy")


def look(url: str, replicas: list[str]) -> dict[str, Any]:
    """One look: ``state`` (up, down, unknown), ``why``, ``generation``; of the named replicas ``in_flight`` and ``states``.

    Down is only who refuses the connection; whoever is merely silent may have requests.
    """
    nothing: dict[str, Any] = {"generation": 0, "in_flight": {}, "states": {}}
    try:
        status, body = request(f"{url}/metrics", None, PROBE_TIMEOUT_S)
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        return {"state": "down" if refused else "unknown", "why": str(error.reason), **nothing}
    except (OSError, http.client.HTTPException) as error:
        return {"state": "unknown", "why": str(error) or type(error).__name__, **nothing}
    if status != 200:
        return {"state": "unknown", "why": f"/metrics answered {status}", **nothing}
    return {"state": "up", "why": "", **read_metrics(body.decode("utf-8", "replace"), replicas)}


def read_metrics(page: str, replicas: list[str]) -> dict[str, Any]:
    """What a proxy's metrics say about the named replicas, and the generation in force."""
    wanted = set(replicas)
    generation = 0
    in_flight: dict[str, int] = {}
    states: dict[str, str] = {}
    for line in page.splitlines():
        if not line.startswith((_IN_FLIGHT, _STATE, _GENERATION)):
            continue
        match = _LINE.match(line)
        if match is None:
            continue
        name, labels, value = match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])
        replica = labels.get("replica", "")
        if name == _GENERATION:
            generation = int(value)
        elif replica in wanted and name == _IN_FLIGHT:
            in_flight[replica] = int(value)
        elif replica in wanted and name == _STATE and value:
            states[replica] = labels.get("state", "")
    return {"generation": generation, "in_flight": in_flight, "states": states}


def lacks(seen: dict[str, Any], wish: dict[str, Any], waited_s: float) -> str | None:
    """What is still to be waited for, as a part of a sentence; None when all of it has come.

    ``wish`` has the arguments of the module ``proxy_drain``. A replica whose own ``drain_s`` is over is waited for no
    longer.
    """
    if seen["state"] == "down" or (seen["state"] == "up" and wish["until"] == "answering"):
        return None
    if seen["state"] != "up":
        return f"it does not answer ({seen['why']})"
    if seen["generation"] < wish["generation"]:
        return f"it has generation {seen['generation']} of the registry, not yet {wish['generation']}"
    if wish["until"] == "active":
        late = {one: seen["states"].get(one, "not listed") for one in wish["replicas"]}
        late = {one: state for one, state in late.items() if state not in (*USED, "draining", "disabled")}
        return ", ".join(f"{one} is {state}" for one, state in late.items()) or None
    busy = {
        one: number
        for one, number in seen["in_flight"].items()
        if number and waited_s < float(wish["drain_s"].get(one, 0))
    }
    return ", ".join(f"{number} in flight on {one}" for one, number in sorted(busy.items())) or None
