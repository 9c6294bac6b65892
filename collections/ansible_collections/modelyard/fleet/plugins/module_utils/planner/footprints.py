"""How much GPU memory replicas were seen to use, and what that says of the next one. Pure.

Engines such as vLLM take their share of a GPU whatever the model needs, so what one uses says that it runs on a GPU of that
size, not that it would not run on a smaller one. Of an engine that takes what it needs, the use is the need.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import from_flags, to_flags
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import weights_path
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    UP,
    Current,
    Host,
    Model,
    Need,
)

Engine = Mapping[str, Any]
Footprints = Mapping[str, Mapping[str, Any]]
ESTIMATE, MEASURED, DECLARED = "the estimate", "what was measured", "placement.gpu_memory_gib"


def key_of_model(model: Model, engine: Engine) -> str:
    """What a footprint is known by: model, weights, engine, number of GPUs, and the arguments that decide about memory."""
    weights = weights_path(model.source, "") or ""
    flags = from_flags(to_flags(model.args, engine["arguments"]))
    return _key(model.id, weights, model.engine, model.gpus, flags, engine)


def key_of_replica(item: Current, engine: Engine) -> str | None:
    """The same of what runs, by the spec that it was started with; None where that is not known."""
    if not item.spec or item.adopted is not None:
        return None
    spec = item.spec
    flags = from_flags(spec.get("command") or ())
    mount = engine["container"]["weights_mount"]
    mounted = [one["source"] for one in spec.get("mounts") or () if one.get("target") == mount]
    weights = mounted[0] if mounted else flags.get("command", "").split(" ")[0]
    return _key(item.model, weights, str(spec.get("engine", "")), len(item.gpus), flags, engine)


def _key(model: str, weights: str, engine: str, gpus: int, flags: Mapping[str, str], rules: Engine) -> str:
    counted = {name: flags[name] for name in rules["memory"]["arguments"] if name in flags}
    about = [model, posixpath.basename(weights.rstrip("/")), engine, gpus, counted]
    return json.dumps(about, sort_keys=True, separators=(",", ":"))


def measured(
    hosts: Mapping[str, Host],
    current: Iterable[Current],
    engines: Mapping[str, Engine],
    unproved: Mapping[str, str],
    before: Footprints,
) -> dict[str, dict[str, Any]]:
    """What was remembered, and what is seen now: ``used`` bytes on a GPU of ``memory`` bytes, the smallest that it ran on.

    A replica counts that runs, is proved, and is seen on every one of its GPUs.
    """
    found = {key: dict(entry) for key, entry in before.items()}
    for item in sorted(current, key=lambda one: one.replica):
        host, engine = hosts.get(item.host), engines.get(item.engine)
        if host is None or engine is None or item.state != UP or not item.gpus:
            continue
        if item.hash is None or unproved.get(item.replica) == item.hash:
            continue
        devices = [host.devices[gpu] for gpu in item.gpus if gpu in host.devices]
        used = [gpu.used.get(item.replica, 0) for gpu in devices]
        memories = [gpu.memory for gpu in devices if gpu.memory is not None]
        key = key_of_replica(item, engine)
        if key is None or len(memories) < len(item.gpus) or not all(used):
            continue
        entry = {"model": item.model, "used": max(used), "memory": min(memories)}
        if key not in found or entry["memory"] <= found[key]["memory"]:
            found[key] = entry
    return found


def with_need(model: Model, engine: Engine, footprints: Footprints) -> Model:
    """The model with what is known by measure; what the operator declares stays as it is."""
    entry = footprints.get(key_of_model(model, engine)) if model.gpus else None
    if entry is None or model.need.source == DECLARED:
        return model
    if engine["memory"]["takes"] == "need":
        return replace(model, need=Need(int(entry["used"]), MEASURED))
    return replace(model, need=replace(model.need, proved=int(entry["memory"])))
