"""What ``modelyard fit`` is given: a path or an id, GPUs by name, and what an inventory says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modelyard.cli.check import resolved_problems
from modelyard.cli.console import fail
from modelyard.cli.tables import rows
from modelyard.cli.verbs import run_verb
from modelyard.errors import ConfigError
from modelyard.sizing import CONFIG, RULES, Gpus, Model

_GPU = re.compile(r"(?P<name>[A-Za-z0-9._-]+):(?P<gib>\d+(?:\.\d+)?)(?:x(?P<count>\d+))?")
_MOST_GPUS = 10_000


@dataclass(frozen=True, slots=True)
class Wished:
    """A model of an inventory: where its weights lie here, the hosts it may be placed on, its GPUs and arguments."""

    id: str
    engine: str
    weights: Path
    hosts: tuple[str, ...]
    gpus: int
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the playbook ``check`` says of an inventory: hosts with GPUs, and models."""

    hosts: Sequence[Mapping[str, Any]]
    models: Sequence[Mapping[str, Any]]

    def gpus(self, item: Wished | None) -> list[Gpus]:
        """The GPUs of every host that runs engines; those that ``item`` may not be placed on are barred."""
        return [
            Gpus(
                host=str(host["host"]),
                count=int(host["gpus"]),
                memory_gib=None if host.get("memory_gib") is None else float(host["memory_gib"]),
                barred=""
                if item is None or host["host"] in item.hosts
                else f"{item.id} may not be placed there",
            )
            for host in self.hosts
        ]


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
    source = model.get("source") or {}
    path = source.get("path")
    if not path:
        where = source.get("hub") or source.get("url") or "elsewhere"
        raise ConfigError(
            f"The weights of {name} come from {where}: put its {CONFIG} and model.safetensors.index.json into a directory "
            "here and name that."
        )
    weights = start / str(path)
    if not weights.exists():
        raise ConfigError(
            f"The weights of {name} lie at {path}, which is on the hosts and not on this machine."
        )
    return Wished(
        name, str(model["engine"]), weights, tuple(model["hosts"]), int(model["gpus"]), model["args"]
    )


def with_remark(model: Model, item: Wished | None) -> Model:
    """The model, with a remark where its engine is not the one whose rules the estimate follows."""
    if item is None or item.engine == RULES:
        return model
    told = f"{item.id} runs on {item.engine}; the figures follow {RULES}'s rules and are a hint for it."
    return replace(model, remarks=(*model.remarks, told))
