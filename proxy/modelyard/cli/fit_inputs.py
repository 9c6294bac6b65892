"""What ``modelyard fit`` is given: a path or an id, GPUs by name, and what an inventory says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modelyard.cli.check import resolved_problems
from modelyard.cli.console import fail
from modelyard.cli.tables import rows
from modelyard.cli.verbs import run_verb
from modelyard.errors import ConfigError
from modelyard.sizing import CONFIG, RULES, Gpus, Known, Model, model_at, read_model, untold

_GPU = re.compile(r"(?P<name>[A-Za-z0-9._-]+):(?P<gib>\d+(?:\.\d+)?)(?:x(?P<count>\d+))?")
_MOST_GPUS = 10_000
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Wished:
    """A model of an inventory: where its weights lie here, or else what a host told of them, the hosts it may be placed on,
    its GPUs and arguments, and what is known of its need.
    """

    id: str
    engine: str
    weights: Path | None
    hosts: tuple[str, ...]
    gpus: int
    args: Mapping[str, Any]
    config: Mapping[str, Any] | None = None
    concurrency: int = 1
    known: Known = field(default_factory=Known)

    def model(self) -> Model:
        """The model. SizingError for one of which nothing can be said."""
        if self.weights is not None:
            return model_at(self.weights)
        config = self.config or {}
        return read_model(config.get("config"), files_bytes=config.get("files_bytes"))


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the playbook ``check`` says of an inventory: hosts with GPUs, and models."""

    hosts: Sequence[Mapping[str, Any]]
    models: Sequence[Mapping[str, Any]]

    def gpus(self, item: Wished | None) -> list[Gpus]:
        """The GPUs of every host that runs engines; those that ``item`` may not be placed on are barred."""
        return [
            _gpus(host, item.gpus if item is not None else None, _barred(item, str(host["host"])))
            for host in self.hosts
        ]


def _barred(item: Wished | None, host: str) -> str:
    return "" if item is None or host in item.hosts else f"{item.id} may not be placed there"


def _gpus(host: Mapping[str, Any], shared: int | None, barred: str) -> Gpus:
    """A host's GPUs as the last deploy saw them, else as they are declared.

    Where they are not all alike, the memory is that of the smallest of the ``shared`` largest ones; None: of all.
    """
    declared = None if host.get("memory_gib") is None else float(host["memory_gib"])
    seen = list((host.get("seen") or {}).values())
    well = [one for one in seen if not one["unwell"]]
    memory = declared
    if well:
        sizes = [declared if one["memory"] is None else one["memory"] / GIB for one in well]
        known = sorted((size for size in sizes if size is not None), reverse=True)
        memory = known[min(shared or len(known), len(known)) - 1] if len(known) == len(sizes) else None
    unwell = len(seen) - len(well)
    return Gpus(str(host["host"]), int(host["gpus"]) - unwell, memory, barred, unwell)


def model_path(name: str) -> Path | None:
    """The path that MODEL is, None where it can only be an id. ConfigError for a path that is not there."""
    path = Path(name).expanduser()
    try:
        if path.is_file() or (path / CONFIG).is_file():
            return path
        named_as_path = "/" in name or name.endswith(".json") or name in (".", "..")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{name[:80]!r} is no path and no id of a model.") from exc
    if named_as_path:
        raise ConfigError(f"There is no {CONFIG} in {path}." if path.is_dir() else f"{path} is not there.")
    return None


def gpus_of(given: str) -> Gpus:
    """``h100:79.6x8``: eight GPUs of 79.6 GiB. ConfigError for what is not of this form."""
    match = _GPU.fullmatch(given)
    count = int((match["count"] or "1")[:6]) if match else 0
    if match is None or not 1 <= count <= _MOST_GPUS:
        raise ConfigError(f"--gpu {given[:60]!r} is not NAME:GIB or NAME:GIBxN, such as h100:79.6x8.")
    return Gpus(match["name"], count, float(match["gib"]))


def fleet(inventory: str, *, as_json: bool) -> Fleet:
    """Let Ansible resolve an inventory, without touching a host; ends the command where it has problems."""
    outcome = run_verb("check", inventory, None, as_json=as_json)
    found = (outcome.result or {}).get("capacity")
    if isinstance(found, Mapping):
        return Fleet(list(rows(found.get("hosts"))), list(rows(found.get("models"))))
    problems = resolved_problems(outcome)
    lines = [problem.line() for problem in problems] or ["the playbook check said nothing of GPUs"]
    return fail("\n  ".join([f"The inventory {inventory} cannot be used:", *lines]), as_json=as_json)


def wished(found: Fleet, name: str, start: Path) -> Wished:
    """The model of an inventory with this id. ConfigError when there is none, or its weights are not on this machine;
    a path is relative to ``start``.
    """
    model = next((one for one in found.models if one["id"] == name), None)
    if model is None:
        known = [str(one["id"]) for one in found.models]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}."
        raise ConfigError(f"{name} is neither a path with a {CONFIG} nor a model of the inventory; {hint}")
    if not model.get("loads_weights"):
        raise ConfigError(f"{name} runs on the engine {model['engine']}, which loads no weights.")
    if not model["gpus"]:
        raise ConfigError(
            f"{name} runs on the processor (placement.gpus is 0), so there is no GPU to fit on."
        )
    path = (model.get("source") or {}).get("path")
    weights = start / str(path) if path else None
    if (weights is None or not weights.exists()) and not model.get("config"):
        raise ConfigError(_nowhere(name, model))
    return Wished(
        name,
        str(model["engine"]),
        weights if weights is not None and weights.exists() else None,
        tuple(model["hosts"]),
        int(model["gpus"]),
        model["args"],
        model.get("config"),
        int(model.get("concurrency") or 1),
        _known(model),
    )


def _nowhere(name: str, model: Mapping[str, Any]) -> str:
    """Why nothing is known of a model's size."""
    source = model.get("source") or {}
    if source.get("path"):
        return (
            f"The weights of {name} lie at {source['path']}, which is on the hosts and not on this machine."
        )
    where = source.get("hub") or source.get("url") or "elsewhere"
    return (
        f"The weights of {name} come from {where}: put its {CONFIG} and model.safetensors.index.json into a directory "
        "here and name that. Once a deploy has seen them on a host, it is known without."
    )


def _known(model: Mapping[str, Any]) -> Known:
    """What goes before the estimate."""
    declared, measured = model.get("gpu_memory_gib"), model.get("measured")
    if declared is not None:
        return Known(declared=int(float(declared) * GIB))
    if not measured:
        return Known()
    if model.get("takes") == "need":
        return Known(measured=int(measured["used"]))
    return Known(proved=int(measured["memory"]))


def with_remark(model: Model, item: Wished | None) -> Model:
    """The model, with a remark where its engine is not the one whose rules the estimate follows."""
    if item is None:
        return model
    told = []
    if item.engine != RULES:
        told.append(
            f"{item.id} runs on {item.engine}; the figures follow {RULES}'s rules and are a hint for it."
        )
    odd = untold(item.args)
    if odd:
        told.append(
            f"{', '.join(odd)} of {item.id} change what it needs in a way that the figures do not know."
        )
    return replace(model, remarks=(*model.remarks, *told))
