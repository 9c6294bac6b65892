"""Containers that were started by other means and are kept as replicas: what they fulfil, and what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from modelyard.inventory.problems import Problem, nearest
from modelyard.inventory.source import mapping

_SECRET = re.compile(r"(token|key|secret|passw(or)?d|credentials?)s?$", re.IGNORECASE)
# What decides how an engine is started; the rest of a model changes routing or the number of replicas.
_LAUNCH = ("engine", "source", "image", "runtime", "args", "env", "resources")


def is_secret_name(name: str) -> bool:
    """Whether a variable or argument of this name holds a secret, as its name tells."""
    return bool(_SECRET.search(name)) and not name.lower().endswith("tokenizer")


def wish_digest(model: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of everything in a rendered model that decides how its engines are started.

    It stands in the inventory, so nothing of a secret goes into it: of variables and arguments that are secrets by
    name only the name counts.
    """
    wish: dict[str, Any] = {key: model[key] for key in _LAUNCH if model.get(key) not in (None, {})}
    for part in ("args", "env"):
        if part in wish:
            wish[part] = {name: None if is_secret_name(name) else value for name, value in wish[part].items()}
    gpus = mapping(model.get("placement")).get("gpus")
    if gpus is not None:
        wish["gpus"] = gpus
    text = json.dumps(wish, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def adopted(model: Mapping[str, Any]) -> int:
    """How many of a model's wished replicas are adopted containers."""
    given = model.get("adopt")
    return len(given) if isinstance(given, list | tuple) else 0


def needs_pin(model: Mapping[str, Any]) -> bool:
    """Whether weights may have to be fetched: not for a model that runs nothing but adopted containers."""
    replicas = mapping(model.get("placement")).get("replicas", 1)
    return not isinstance(replicas, int) or replicas > adopted(model)


def check_adoption(models: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[Problem]:
    """What is wrong with the adopted containers among the models, without knowing the hosts."""
    owners: dict[tuple[str, str], str] = {}
    for at, model in models:
        given = model.get("adopt")
        entries = [mapping(item) for item in given] if isinstance(given, list | tuple) else []
        name = str(model.get("id"))
        for number, item in enumerate(entries):
            place = (str(item.get("host")), str(item.get("container")))
            if place in owners:
                yield Problem(
                    "adopted-twice",
                    f"container {place[1]} on {place[0]} is already adopted by model {owners[place]}.",
                    ("models", at, "adopt", number, "container"),
                    "A container is one replica of one model.",
                    model=name,
                )
            owners.setdefault(place, name)
        replicas = mapping(model.get("placement")).get("replicas", 1)
        if entries and isinstance(replicas, int) and len(entries) > replicas:
            yield Problem(
                "adopted-too-many",
                f"{len(entries)} containers are adopted, and {replicas} replicas are wished.",
                ("models", at, "adopt"),
                "Raise placement.replicas, or take containers out.",
                model=name,
            )
        if entries and model.get("runtime") == "process":
            yield Problem(
                "adopted-process",
                "containers are adopted, and the model's runtime is process.",
                ("models", at, "adopt"),
                "Remove runtime or adopt.",
                model=name,
            )


def check_adopting_hosts(
    at: int, model: Mapping[str, Any], matching: Collection[str], names: Collection[str]
) -> Iterator[Problem]:
    """Adopted containers on hosts that are not the model's."""
    for number, item in enumerate(model.get("adopt") or ()):
        if item["host"] not in matching:
            known = item["host"] in names
            yield Problem(
                "adopted-elsewhere",
                f"{item['host']} is {'not among the hosts of the model' if known else 'no host of the inventory'}.",
                ("models", at, "adopt", number, "host"),
                "Name it in placement.hosts too." if known else nearest(item["host"], names),
                model=model["id"],
            )
