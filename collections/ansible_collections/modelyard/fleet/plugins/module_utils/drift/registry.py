"""A proxy and its endpoint registry against what a deploy would write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.drift.words import (
    DEPLOY,
    DRIFT,
    LOOK,
    SITE,
    UNKNOWN,
    Finding,
    finding,
)

Models = Mapping[str, Mapping[str, Any]]


def proxy_findings(host: str, wanted: Models, seen: Mapping[str, Any]) -> list[Finding]:
    """What is not as it should be with one proxy. ``seen`` is a result of the module ``proxy_state``."""
    found: list[Finding] = []
    if not seen.get("live"):
        found.append(finding(DRIFT, host, "proxy", host, "state", "up", "down", SITE))
    problem = seen.get("registry_problem")
    registry = seen.get("registry") or {}
    if problem:
        what = f"{LOOK}: a deploy does not overwrite what it cannot read; mend the file or move it away"
        return [*found, finding(DRIFT, host, "registry", host, "file", "a registry", str(problem), what)]
    if not registry:
        return [*found, finding(DRIFT, host, "registry", host, "file", "a registry", "missing", DEPLOY)]
    found += registry_findings(host, wanted, registry.get("models") or {})
    return found + (_in_force(host, registry.get("generation"), seen) if seen.get("live") else [])


def registry_findings(host: str, wanted: Models, found: Models) -> list[Finding]:
    """Models and endpoints that are missing, too many or different in a proxy's file."""

    def one(subject: str, field: str, want: Any, have: Any) -> Finding:
        return finding(DRIFT, host, "registry", subject, field, _text(want), _text(have), DEPLOY)

    findings: list[Finding] = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            findings.append(one(f"model {name}", "model", "listed", "missing"))
        elif name not in wanted:
            findings.append(one(f"model {name}", "model", "not there", "listed"))
        else:
            findings += [
                one(f"model {name}", field, wanted[name].get(field), found[name].get(field))
                for field in _fields(wanted[name], found[name])
                if field != "endpoints"
            ]
    want, have = _endpoints(wanted), _endpoints(found)
    for endpoint in sorted(want.keys() | have.keys()):
        if endpoint not in have:
            findings.append(one(endpoint, "endpoint", "listed", "missing"))
        elif endpoint not in want:
            findings.append(one(endpoint, "endpoint", "not there", have[endpoint].get("url")))
        else:
            findings += [
                one(endpoint, field, want[endpoint].get(field), have[endpoint].get(field))
                for field in _fields(want[endpoint], have[endpoint])
            ]
    return findings


def _in_force(host: str, generation: Any, seen: Mapping[str, Any]) -> list[Finding]:
    """Whether the proxy serves by the file that it has."""
    in_force = seen.get("generation")
    if in_force is None:
        what = f"{LOOK}: its metrics could not be read"
        return [finding(UNKNOWN, host, "proxy", host, "generation", _text(generation), None, what)]
    if in_force != generation or seen.get("in_step") is False:
        what = f"{LOOK}: it refuses its file; its log and GET /admin/registry say why"
        return [finding(DRIFT, host, "proxy", host, "generation", _text(generation), _text(in_force), what)]
    return []


def _endpoints(models: Models) -> dict[str, dict[str, Any]]:
    """Every endpoint by its id, with the model that it serves. Hand-written files may hold anything."""
    return {
        str(entry.get("id")): {**entry, "model": name}
        for name, model in models.items()
        if isinstance(model, Mapping)
        for entry in model.get("endpoints") or []
        if isinstance(entry, Mapping)
    }


def _fields(wanted: Any, found: Any) -> list[str]:
    if not isinstance(found, Mapping):
        return ["entry"]
    return [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True)
