"""Defaults: what a model and a host have when the inventory does not say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.inventory.schema import fleet_schema, models_schema

_DOCKER_HOME = "/var/lib/modelyard"


def needs_weights(engine: Mapping[str, Any]) -> bool:
    """Whether an engine's command line names a model to load."""
    return any("{model}" in word for part in engine["command"] for word in part["args"])


def with_defaults(model: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """A model with every default filled in; ``source``, ``image`` and ``runtime`` are None when not given."""
    properties = models_schema()["items"]["properties"]
    placement = _filled(properties["placement"], model.get("placement"))
    placement.setdefault("gpus", 1 if needs_weights(engine) else 0)
    routing = _filled(properties["routing"], model.get("routing"))
    timeouts = _filled(properties["routing"]["properties"]["timeouts"], routing["timeouts"])
    return {
        "id": model["id"],
        "name": model.get("name", model["id"]),
        "task": model.get("task", properties["task"]["default"]),
        "source": model.get("source"),
        "engine": model["engine"],
        "image": model.get("image"),
        "runtime": model.get("runtime"),
        "placement": placement,
        "adopt": [dict(item) for item in model.get("adopt") or ()],
        "args": dict(model.get("args") or {}),
        "env": dict(model.get("env") or {}),
        "resources": dict(model.get("resources") or {}),
        "routing": {**routing, "timeouts": timeouts},
        "smoke": _filled(properties["smoke"], model.get("smoke")),
        "rollout": _filled(properties["rollout"], model.get("rollout")),
        "golden": _filled(properties["golden"], model["golden"]) if model.get("golden") else {},
    }


def _filled(schema: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    out = {name: rule["default"] for name, rule in schema["properties"].items() if "default" in rule}
    return {**out, **(given or {})}


def host_settings(
    given: Mapping[str, Any],
    *,
    name: str,
    ansible_host: str | None,
    local: bool,
    inventory_dir: str | None,
    python: str,
) -> dict[str, Any]:
    """Every ``fleet_*`` setting of one host.

    ``given`` are its variables, ``local`` says that it is reached without a connection, ``python`` is the
    controller's own interpreter. Paths may still begin with ``~/``, which only the host can resolve.
    """
    properties = fleet_schema()["properties"]
    out: dict[str, Any] = {key: rule.get("default") for key, rule in properties.items()}
    out.update({key: value for key, value in given.items() if key in properties})
    if out["fleet_address"] is None:
        out["fleet_address"] = "127.0.0.1" if local else (ansible_host or name)
    if out["fleet_home"] is None:
        process = out["fleet_runtime"] == "process"
        out["fleet_home"] = f"~/.local/state/modelyard/{out['fleet_name']}" if process else _DOCKER_HOME
    out["fleet_doctor_limits"] = _filled(properties["fleet_doctor_limits"], out["fleet_doctor_limits"])
    home = str(out["fleet_home"]).rstrip("/")
    out["fleet_home"] = home
    if out["fleet_weights_dir"] is None:
        out["fleet_weights_dir"] = f"{home}/weights"
    if out["fleet_cache_dir"] is None:
        out["fleet_cache_dir"] = f"{home}/cache"
    if out["fleet_volumes_dir"] is None:
        out["fleet_volumes_dir"] = f"{home}/volumes"
    if out["fleet_weights_address"] is None:
        out["fleet_weights_address"] = out["fleet_address"]
    if out["fleet_python"] is None:
        out["fleet_python"] = python if local else f"{home}/venv/bin/python"
    state_dir = Path(out["fleet_state_dir"] or ".modelyard").expanduser()
    out["fleet_state_dir"] = str(Path(inventory_dir or ".") / state_dir)
    return out
