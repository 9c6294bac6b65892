"""What each GPU must have for a model of the inventory, and what is remembered of GPUs and models from run to run."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.footprints import DECLARED, ESTIMATE
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import weights_name
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import UP, Need, Source
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS, kinds_in, pin_of
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

Entry = Mapping[str, Any]
_GIB = 2**30
_KNOWN = ("footprints", "gpus", "weights")


def need_of(entry: Entry, configs: Mapping[str, Entry]) -> Need:
    """The need of a model with its defaults; one that says nothing where nobody can tell.

    ``configs``: see :func:`configs_in`. The model's configuration on this machine goes before that on a host.
    """
    from modelyard.errors import ModelyardError  # read_wish has made sure that it is there
    from modelyard.sizing import gpu_bytes

    placement = entry["placement"]
    if placement.get("gpu_memory_gib") is not None:
        return Need(int(float(placement["gpu_memory_gib"]) * _GIB) or None, DECLARED)
    if not is_estimated(entry):
        return Need()
    try:
        model = _model(entry, configs)
        if model is None:
            return Need()
        return Need(
            gpu_bytes(model, _args(entry), int(placement["gpus"]), int(placement["concurrency"])), ESTIMATE
        )
    except (ModelyardError, OSError):
        return Need()  # `modelyard fit` says why


def is_estimated(entry: Entry) -> bool:
    """Whether the estimate can say anything of a model, if its configuration is known."""
    from modelyard.sizing import RULES, untold

    return entry["engine"] == RULES and entry["placement"]["gpus"] > 0 and not untold(_args(entry))


def weights_at(entry: Entry, weights_dir: str) -> str | None:
    """The directory of a model's weights on a host, where it is known without asking the host."""
    source = source_of(entry["source"])
    if source is None or source.kind == "custom":
        return None
    if KINDS[source.kind].in_place:
        return source.value
    name = weights_name(source)
    return posixpath.join(weights_dir, name) if name else None


def configs_in(facts: Iterable[Any], before: Mapping[str, Entry]) -> dict[str, Entry]:
    """What hosts tell of weights, by :func:`config_name`; what was remembered ``before`` where none tells it now."""
    found: dict[str, Entry] = {}
    for said in facts:
        weights = (data(said) or {}).get("weights") if said else None
        for path, entry in sorted((weights or {}).items()):
            for name in (path, posixpath.basename(path)):
                found.setdefault(name, entry)
    return {**before, **found}


def config_name(entry: Entry) -> str:
    """What a model's configuration is known by: the path of weights that stay where they are, else the directory's name."""
    source = source_of(entry["source"])
    if source is None or source.kind == "custom":
        return ""
    return source.value if KINDS[source.kind].in_place else weights_name(source)


def configs_of(entries: Iterable[Entry], configs: Mapping[str, Entry]) -> dict[str, Entry]:
    """Those that the estimates of these models need, to be remembered."""
    names = {config_name(entry) for entry in entries if is_estimated(entry)}
    return {name: configs[name] for name in sorted(names) if name in configs}


def read_known(path: Path) -> dict[str, dict[str, Any]]:
    """What the last deploy saw of GPUs (``gpus``, by host), of the memory that replicas use (``footprints``) and of models
    (``weights``: configuration and size). What is not known, or not what it should be, is left out: the next run sees
    it anew.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: dict(found.get(name) or {}) for name in _KNOWN}
    except (OSError, ValueError, TypeError, AttributeError):
        return {name: {} for name in _KNOWN}
    return {
        "footprints": {key: one for key, one in parts["footprints"].items() if _is_footprint(one)},
        "gpus": {
            host: {gpu: one for gpu, one in gpus.items() if _is_gpu(one)}
            for host, gpus in parts["gpus"].items()
            if isinstance(gpus, dict)
        },
        "weights": {
            name: one
            for name, one in parts["weights"].items()
            if isinstance(one, dict) and {"config", "files_bytes"} <= one.keys()
        },
    }


def _is_footprint(given: Any) -> bool:
    return isinstance(given, dict) and all(isinstance(given.get(name), int) for name in ("used", "memory"))


def _is_gpu(given: Any) -> bool:
    return (
        isinstance(given, dict)
        and isinstance(given.get("unwell"), str)
        and isinstance(given.get("memory", ""), int | None)
    )


def gpus_seen(hosts: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """By host what is known of its GPUs: what was seen now, else what was remembered."""
    return {
        name: host["devices"] if host["state"] == UP else before.get(name, {})
        for name, host in hosts.items()
        if host["devices"] or name in before
    }


def source_of(given: Mapping[str, Any] | None) -> Source | None:
    """Where weights come from, as the planner has it."""
    for key in kinds_in(given or {}):
        kind, wish = KINDS[key], given or {}
        checksums = dict(wish.get("checksums") or {}) if kind.listed else {}
        return Source(key, wish[key], pin_of(kind, wish), tuple(sorted(checksums.items())))
    return None


def _model(entry: Entry, configs: Mapping[str, Entry]) -> Any:
    from modelyard.sizing import CONFIG, model_at, read_model

    source = source_of(entry["source"])
    if source is None:
        return None
    if source.kind == "path" and (Path(source.value) / CONFIG).is_file():
        return model_at(Path(source.value))
    known = configs.get(config_name(entry))
    return None if known is None else read_model(known["config"], files_bytes=known["files_bytes"])


def _args(entry: Entry) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in entry["args"].items()}
