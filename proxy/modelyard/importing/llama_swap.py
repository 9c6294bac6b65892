"""Models of llama-swap's configuration: those whose command starts an engine of the catalog."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from modelyard.importing import docker_run
from modelyard.importing.box import Box, Gpus, instance, pairs
from modelyard.importing.found import Found, UnreadableError, mapped, strings
from modelyard.importing.reading import Document

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")


def from_config(text: str, file: str) -> Found:
    """Engines among the models. Raises ``UnreadableError`` with file and line."""
    document = Document(text, file)
    top = document.mapping()
    models = top.get("models")
    if not isinstance(models, Mapping):
        raise UnreadableError(f"{document.at('models')}: llama-swap's configuration has a mapping `models`.")
    found = Found()
    for name, given in models.items():
        where = document.at("models", str(name))
        if not isinstance(given, Mapping) or not given.get("cmd"):
            raise UnreadableError(f"{where}: the model {name} has no cmd.")
        macros = {
            **mapped(top.get("macros")),
            **mapped(given.get("macros")),
            "MODEL_ID": name,
            "PORT": "8000",
        }
        _model(str(name), given, f"model {name} ({where})", macros, found)
    for key in ("peers", "hooks", "matrix"):
        if top.get(key):
            found.remarks.append(f"{document.at(key)}: {key} is not taken over")
    if found.instances:
        found.remarks.append(
            "llama-swap starts models when they are asked for, and they take turns on the GPUs. Here every replica "
            "runs all the time: as many models as the GPUs hold are wished, the others have placement.replicas 0"
        )
    return found


def _model(name: str, given: Mapping[str, Any], origin: str, macros: Mapping[str, Any], found: Found) -> None:
    remarks = []
    line = _expanded(str(given["cmd"]), macros)
    for unknown in sorted(set(_MACRO.findall(line))):
        remarks.append(f"the macro {unknown} is not declared")
    try:
        lines = [part.split(" #")[0] for part in line.splitlines() if not part.strip().startswith("#")]
        words = shlex.split(" ".join(part.rstrip("\\") for part in lines))
    except ValueError as error:
        found.skipped.append(f"{origin}: its cmd cannot be read: {error}")
        return
    env = pairs(given.get("env"))
    if docker_run.is_docker_run(words):
        box = docker_run.from_words(words, origin, name)
        if box is None:
            found.skipped.append(f"{origin}: its docker run names no image")
            return
    else:
        visible = env.get("CUDA_VISIBLE_DEVICES", "")
        ids = tuple(one for one in visible.split(",") if one)
        uses_cpu = "CUDA_VISIBLE_DEVICES" in env and not ids
        box = Box(origin, name, None, words, env, gpus=Gpus() if uses_cpu else Gpus(-1, ids, "nvidia"))
        remarks.append("it was started as a process; here it runs in the engine's container")
    box.remarks += remarks
    made = instance(box, found)
    if made is None:
        return
    item = made[0]
    # clients ask llama-swap for its own name of a model, whatever the engine calls it
    item.served = (name, *(one for one in item.served if one != name))
    item.aliases = tuple(strings(given.get("aliases")))
    item.at_once = False
    if given.get("ttl"):
        item.remarks.append("its ttl is not taken over: a replica is not unloaded when it is idle")
    if given.get("filters"):
        item.remarks.append("its filters of requests are not taken over")
    limit = given.get("concurrencyLimit")
    if isinstance(limit, int) and limit > 0:
        item.remarks.append(f"its concurrencyLimit is routing.max_in_flight: {limit} here; add it by hand")
    found.instances.append(item)


def _expanded(text: str, macros: Mapping[str, Any]) -> str:
    """Macros may stand within macros; one that contains itself stays as it is."""
    for _ in range(10):
        grown = _MACRO.sub(lambda one: str(macros.get(one.group(1), one.group(0))), text)
        if grown == text or len(grown) > 100_000:
            break
        text = grown
    return text
