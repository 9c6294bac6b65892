"""What an inventory says of the memory that models may have: GPUs by host, and what each model asks of an engine.

Plain data without secrets, for ``modelyard fit``: of a model's arguments only those that decide how much memory it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.inventory.defaults import needs_weights, with_defaults
from modelyard.inventory.hosts import HostView


def capacity(
    models: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, HostView],
    patterns: Mapping[str, Sequence[str]],
    engines: Mapping[str, Mapping[str, Any]],
    gpus: Mapping[str, Mapping[str, Any]] | None = None,
    seen: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """``hosts`` that run engines, and ``models``; both sound, ``patterns`` resolved by Ansible.

    What the last deploy saw comes with them: ``gpus`` by host and name, and ``seen`` by model (``measured`` memory,
    ``config``).
    """
    return {
        "hosts": [
            {
                "host": host.name,
                "gpus": host.gpus,
                "memory_gib": host.settings.get("fleet_gpu_memory_gib"),
                "seen": _declared(host, (gpus or {}).get(host.name) or {}),
            }
            for host in hosts.values()
            if host.runs_engines
        ],
        "models": [
            _model(model, patterns, engines[model["engine"]]) | dict((seen or {}).get(model["id"]) or {})
            for model in models
        ],
    }


def _model(
    given: Mapping[str, Any], patterns: Mapping[str, Sequence[str]], engine: Mapping[str, Any]
) -> dict[str, Any]:
    model = with_defaults(given, engine)
    return {
        "id": model["id"],
        "engine": model["engine"],
        "loads_weights": needs_weights(engine),
        "source": model["source"],
        "hosts": list(patterns.get(model["placement"]["hosts"], ())),
        "gpus": model["placement"]["gpus"],
        "takes": engine["memory"]["takes"],
        "gpu_memory_gib": model["placement"].get("gpu_memory_gib"),
        "concurrency": model["placement"]["concurrency"],
        "args": memory_args(model, engine),
    }


def _declared(host: HostView, seen: Mapping[str, Any]) -> dict[str, Any]:
    """What was seen of the GPUs that are declared now."""
    given = host.settings["fleet_gpus"]
    names = [str(gpu) for gpu in (range(given) if isinstance(given, int) else given)]
    return {name: seen[name] for name in names if name in seen}


def memory_args(model: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of a model that decide how much memory a replica takes."""
    given = {name.replace("-", "_"): value for name, value in model["args"].items()}
    return {name: given[name] for name in engine["memory"]["arguments"] if name in given}
