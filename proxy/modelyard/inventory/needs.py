"""What an inventory needs from outside: images, weights and Python packages, for ``modelyard bundle``.

Plain data. A model's environment and arguments are not in it; the address of a ``source.url`` is, and may hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.inventory.defaults import needs_weights, with_defaults
from modelyard.inventory.hosts import HostView


def needs(
    models: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, HostView],
    patterns: Mapping[str, Sequence[str]],
    engines: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """``images``, ``weights``, ``python`` and ``hub_endpoint`` of a sound wish, ``patterns`` resolved by Ansible.

    Counted are all hosts that a model may be placed on: where it will be placed is known only on the closed side. A model
    that wishes no replica needs nothing.
    """
    images: dict[str, dict[str, Any]] = {}
    weights: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for given in models:
        engine = engines[given["engine"]]
        model = with_defaults(given, engine)
        if not model["placement"]["replicas"]:
            continue
        places = [hosts[name] for name in patterns.get(model["placement"]["hosts"], ()) if name in hosts]
        for host in places:
            if (model["runtime"] or host.settings["fleet_runtime"]) != "docker":
                continue
            for reference in _images(given, model, engine, host):
                entry = images.setdefault(reference, {"reference": reference, "models": [], "hosts": []})
                _add(entry["models"], model["id"])
                _add(entry["hosts"], host.name)
        source = {key: str(value) for key, value in (model["source"] or {}).items() if value is not None}
        if source and needs_weights(engine):
            entry = weights.setdefault(
                tuple(sorted(source.items())), {"source": source, "models": [], "hosts": []}
            )
            _add(entry["models"], model["id"])
            for host in places:
                _add(entry["hosts"], host.name)
    some = next(iter(hosts.values()), None)
    return {
        "images": list(images.values()),
        "weights": list(weights.values()),
        "python": {
            "proxies": [host.name for host in hosts.values() if host.runs_proxy],
            "processes": [
                host.name for host in hosts.values() if host.runs_engines and own_environment(host.settings)
            ],
        },
        "hub_endpoint": some.settings["fleet_hub_endpoint"] if some else None,
    }


def own_environment(settings: Mapping[str, Any]) -> bool:
    """Whether engines of the ``process`` runtime use the environment below ``fleet_home``, and no other Python."""
    return bool(
        settings["fleet_runtime"] == "process"
        and settings["fleet_python"] == f"{settings['fleet_home']}/venv/bin/python"
    )


def _images(
    given: Mapping[str, Any], model: Mapping[str, Any], engine: Mapping[str, Any], host: HostView
) -> list[str]:
    """The image of a model on a host, chosen as the planner does it; none where there is none."""
    accelerator = host.settings["fleet_accelerator"]
    own = (host.settings["fleet_images"] or {}).get(model["engine"], {})
    chosen = (
        (given.get("images") or {}).get(host.name)
        or model["image"]
        or own.get(accelerator)
        or engine["images"].get(accelerator)
    )
    return [str(chosen)] if chosen else []


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)
