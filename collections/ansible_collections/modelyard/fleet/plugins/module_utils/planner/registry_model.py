"""Assignments to the ``models`` of the endpoint registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.drains import Rule, is_drained
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import endpoint_url
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Model

TIMEOUTS = {"connect_s": 5, "first_byte_s": 120, "idle_s": 60, "total_s": 0}


def registry_models(
    models: Iterable[Model], assignments: Iterable[Mapping[str, Any]], drained: Sequence[Rule] = ()
) -> dict[str, Any]:
    """Every wished model with every wished replica, those on hosts that did not answer included.

    A model without replicas is listed too: the proxy then knows it, and can use its fallbacks.
    """
    endpoints: dict[str, list[dict[str, Any]]] = {}
    for item in assignments:
        if item["wished"]:
            endpoints.setdefault(item["model"], []).append(_endpoint(item, drained))
    return {
        model.id: _entry(model, endpoints.get(model.id, []))
        for model in sorted(models, key=lambda model: model.id)
    }


def _entry(model: Model, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    routing = model.routing
    of_each = {"weight": routing.get("weight", 1)}
    if routing.get("max_in_flight"):
        of_each["max_in_flight"] = routing["max_in_flight"]
    entry: dict[str, Any] = {"name": model.name}
    if model.source is not None and model.source.kind == "hub":
        entry["hf_name"] = model.source.value
    entry.update(
        task=model.task,
        aliases=list(routing.get("aliases", [])),
        fallbacks=list(routing.get("fallbacks", [])),
        policy=routing.get("policy", "least_loaded"),
        timeouts={**TIMEOUTS, **routing.get("timeouts", {})},
        limits=dict(routing.get("limits", {})),
        clients=list(routing.get("clients", [])),
        endpoints=[{**endpoint, **of_each} for endpoint in endpoints],
    )
    entry.update({name: dict(routing[name]) for name in ("queue", "mirror") if routing.get(name)})
    return entry


def _endpoint(item: Mapping[str, Any], drained: Sequence[Rule]) -> dict[str, Any]:
    spec = item["spec"]
    out = is_drained(drained, item["replica"], item["model"], item["host"])
    return {
        "id": item["replica"],
        "url": spec["url"],
        "engine": item["engine"],
        "served_name": spec["served_name"],
        "state": "draining" if out else "active",
        "host": item["host"],
        "expires_at": None,
    }


def proxy_entry(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a proxy host needs to know of itself.

    ``url`` is where the host itself reaches its proxy, ``home`` where it is installed: as a service of the
    system in a place of the system, else in the fleet's own directory, apart from the engines' supervisor.
    """
    service = settings["fleet_proxy_service"]
    listen = str(settings["fleet_proxy_listen"])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)  # noqa: S104 - a look-up, nothing binds
    return {
        "listen": listen,
        "port": settings["fleet_proxy_port"],
        "url": endpoint_url(host, settings["fleet_proxy_port"]),
        "service": service,
        "allowed_origins": list(settings["fleet_proxy_allowed_origins"]),
        "home": "/opt/modelyard" if service == "systemd" else f"{settings['fleet_home']}/proxy",
    }
