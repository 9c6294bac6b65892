"""Checks of the list of models that need no host: ids, names, sources, engines, fallbacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelyard.inventory.adoption import check_adoption, needs_pin
from modelyard.inventory.defaults import needs_weights
from modelyard.inventory.pins import check_pins
from modelyard.inventory.problems import KeyPath, Problem, nearest
from modelyard.inventory.rollouts import check_rollout
from modelyard.inventory.schema import label, models_schema
from modelyard.inventory.source import Templated, is_known, mapping

Engines = Mapping[str, Mapping[str, Any]]

_WHY = {
    "hub": "the commit to fetch (40 hexadecimal digits), so that every host gets the same weights",
    "url": "the checksum of the file (64 hexadecimal digits), so that it can be trusted",
    "listed": "the checksum of its file SHA256SUMS (made by sha256sum), or checksums with that of each file",
}


def check_models(models: Any, engines: Engines) -> Iterator[Problem]:
    """Everything that is wrong among the models, whatever their shape."""
    if not isinstance(models, Sequence) or isinstance(models, str):
        return
    entries = [(at, mapping(item)) for at, item in enumerate(models)]
    yield from _duplicate_ids(entries)
    yield from _aliases(entries)
    for at, model in entries:
        yield from _engine(at, model, label(models, at), engines)
        yield from _source(at, model, label(models, at), engines)
        yield from check_rollout(at, model, label(models, at))
    yield from _fallbacks(entries)
    yield from _mirrors(entries)
    yield from check_adoption(entries)
    yield from check_pins(entries)


Entries = list[tuple[int, Mapping[str, Any]]]


def _id(model: Mapping[str, Any]) -> str | None:
    name = model.get("id")
    return name if isinstance(name, str) and is_known(name) else None


def _duplicate_ids(entries: Entries) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for at, model in entries:
        name = _id(model)
        if name is None:
            continue
        if name in first:
            yield Problem(
                "duplicate-id",
                f"the id {name} is already that of model #{first[name] + 1}.",
                ("models", at, "id"),
                "Give each model its own id; for more copies of one raise placement.replicas.",
                model=name,
            )
        first.setdefault(name, at)


def _names(value: Any) -> Iterator[tuple[int, str]]:
    if isinstance(value, list | tuple):
        for at, name in enumerate(value):
            if isinstance(name, str) and is_known(name):
                yield at, name


def _aliases(entries: Entries) -> Iterator[Problem]:
    ids = {name for _, model in entries if (name := _id(model)) is not None}
    owner: dict[str, str] = {}
    for at, model in entries:
        name = _id(model) or f"#{at + 1}"
        for position, alias in _names(mapping(model.get("routing")).get("aliases")):
            path: KeyPath = ("models", at, "routing", "aliases", position)
            if alias in ids:
                which = "its own id" if alias == name else "the id of another model"
                yield Problem(
                    "alias-is-id",
                    f"the alias {alias} is {which}.",
                    path,
                    "Remove it or choose another name.",
                    model=name,
                )
            elif alias in owner:
                other = owner[alias]
                taken = "given twice" if other == name else f"already an alias of model {other}"
                yield Problem(
                    "alias-taken",
                    f"the alias {alias} is {taken}.",
                    path,
                    "An alias can lead to one model only.",
                    model=name,
                )
            owner.setdefault(alias, name)


def _engine(at: int, model: Mapping[str, Any], name: str, engines: Engines) -> Iterator[Problem]:
    engine = model.get("engine")
    if not isinstance(engine, str) or isinstance(engine, Templated):
        return
    if engine not in engines:
        yield Problem(
            "unknown-engine",
            f"there is no engine {engine!r}.",
            ("models", at, "engine"),
            nearest(engine, engines),
            model=name,
        )
        return
    data = engines[engine]
    reserved = set(data["arguments"]["reserved"])
    for key in mapping(model.get("args")):
        if str(key).replace("-", "_") in reserved:
            yield Problem(
                "reserved-argument",
                f"{key} is set by Modelyard itself for {engine}.",
                ("models", at, "args", str(key)),
                "Remove it; see placement, source and the host's settings.",
                model=name,
            )
    runtime = model.get("runtime")
    if runtime in ("docker", "process") and runtime not in data["runtimes"]:
        yield Problem(
            "engine-runtime",
            f"{engine} runs only as {' or '.join(data['runtimes'])}, not as {runtime}.",
            ("models", at, "runtime"),
            "Remove the line, or place the model on hosts with another fleet_runtime.",
            model=name,
        )
    if runtime == "process" and model.get("image"):
        yield Problem(
            "image-without-container",
            "an image is named, but the process runtime has no containers.",
            ("models", at, "image"),
            "Remove image or runtime.",
            model=name,
        )


def _source(at: int, model: Mapping[str, Any], name: str, engines: Engines) -> Iterator[Problem]:
    engine = engines.get(model["engine"]) if isinstance(model.get("engine"), str) else None
    source = model.get("source")
    path: KeyPath = ("models", at, "source")
    if isinstance(source, Templated):
        return
    given = mapping(source)
    known = models_schema()["items"]["properties"]["source"]["properties"]
    kinds = [kind for kind, rule in known.items() if "x-pin" in rule and kind in given]
    if engine is not None and not needs_weights(engine):
        if kinds:
            yield Problem(
                "source-unused",
                f"{model['engine']} loads no weights, so it has no source.",
                path,
                "Remove source.",
                model=name,
            )
        return
    if not kinds and (engine is not None or given):
        yield Problem(
            "source-missing",
            "says nowhere where the weights come from.",
            path,
            "Give source.hub with a revision, source.path, source.url with its sha256, or one of the others: "
            f"{', '.join(kind for kind, rule in known.items() if 'x-pin' in rule)}.",
            model=name,
        )
    if len(kinds) > 1:
        yield Problem(
            "source-ambiguous",
            f"{' and '.join(kinds)} are given, but weights come from one place.",
            path,
            "Keep exactly one of them.",
            model=name,
        )
        return
    if not kinds:
        return
    (kind,) = kinds
    needed = known[kind]["x-pin"]
    listed = bool(known[kind].get("x-listed"))
    if needed and needed not in given and not (listed and "checksums" in given) and needs_pin(model):
        yield Problem(
            f"{needed}-missing",
            f"{kind} needs {needed} beside it.",
            (*path, needed),
            f"Add {needed}: {_WHY['listed' if listed else kind]}.",
            model=name,
        )
    if listed and needed in given and "checksums" in given:
        yield Problem(
            "checksums-twice",
            f"{needed} and checksums are given, but either is enough.",
            (*path, "checksums"),
            f"Keep {needed} where {kind} has a file SHA256SUMS, else checksums.",
            model=name,
        )
    for pin in ("revision", "sha256", "checksums"):
        if pin in given and pin != needed and not (pin == "checksums" and listed):
            yield Problem(
                f"{pin}-unused",
                f"{pin} is nothing that {kind} has.",
                (*path, pin),
                f"Remove {pin}.",
                model=name,
            )


def _mirrors(entries: Entries) -> Iterator[Problem]:
    names = {name for _, model in entries if (name := _id(model)) is not None}
    for at, model in entries:
        other = mapping(mapping(model.get("routing")).get("mirror")).get("model")
        if (
            isinstance(other, str)
            and not isinstance(other, Templated)
            and (other not in names or other == _id(model))
        ):
            yield Problem(
                "unknown-mirror",
                f"there is no other model {other!r} to mirror requests to.",
                ("models", at, "routing", "mirror", "model"),
                nearest(other, names),
                model=_id(model),
            )


def _fallbacks(entries: Entries) -> Iterator[Problem]:
    by_id = {name: (at, model) for at, model in reversed(entries) if (name := _id(model)) is not None}
    graph: dict[str, list[str]] = {}
    for name, (at, model) in by_id.items():
        graph[name] = []
        for position, other in _names(mapping(model.get("routing")).get("fallbacks")):
            path: KeyPath = ("models", at, "routing", "fallbacks", position)
            if other not in by_id:
                yield Problem(
                    "unknown-fallback",
                    f"there is no model {other!r} to fall back to.",
                    path,
                    nearest(other, by_id),
                    model=name,
                )
                continue
            graph[name].append(other)
            mine, theirs = model.get("task", "generate"), by_id[other][1].get("task", "generate")
            if mine != theirs and not isinstance(mine, Templated) and not isinstance(theirs, Templated):
                yield Problem(
                    "fallback-task",
                    f"{other} cannot stand in: its task is {theirs}, not {mine}.",
                    path,
                    "Choose a model with the same task.",
                    model=name,
                )
    yield from _circles(graph, {name: at for name, (at, _) in by_id.items()})


def _circles(graph: Mapping[str, list[str]], at: Mapping[str, int]) -> Iterator[Problem]:
    """One problem for each circle of fallbacks, at its model that comes first in the file."""
    reported: set[frozenset[str]] = set()
    for start in sorted(graph, key=lambda name: at[name]):
        trail = _way_back(graph, start)
        if trail is None or frozenset(trail) in reported:
            continue
        reported.add(frozenset(trail))
        yield Problem(
            "fallback-circle",
            f"the fallbacks go round in a circle: {' -> '.join([*trail, start])}.",
            ("models", at[start], "routing", "fallbacks"),
            "Remove one of them.",
            model=start,
        )


def _way_back(graph: Mapping[str, list[str]], start: str) -> list[str] | None:
    """The shortest way from a model through its fallbacks back to itself, without the return."""
    came_from: dict[str, str] = {}
    edge = [start]
    while edge:
        reached: list[str] = []
        for name in edge:
            for other in graph[name]:
                if other == start:
                    trail = [name]
                    while trail[-1] != start:
                        trail.append(came_from[trail[-1]])
                    return trail[::-1]
                if other not in came_from:
                    came_from[other] = name
                    reached.append(other)
        edge = reached
    return None
