"""The two levels of checking, and their union."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelyard.catalog import load_engines
from modelyard.inventory.defaults import with_defaults
from modelyard.inventory.fleet import Engines, check_setting
from modelyard.inventory.hosts import HostView, Resolved, check_hosts, check_placement
from modelyard.inventory.models import check_models
from modelyard.inventory.problems import Problem
from modelyard.inventory.schema import check_models_shape, label
from modelyard.inventory.source import Sources, Templated, Variables, read_sources


def engine_data() -> Engines:
    """The catalog as plain data by engine name."""
    return {name: engine.data for name, engine in load_engines().items()}


def check_files(
    inventory_dir: str | Path,
    *,
    shown_from: Path | None = None,
    engines: Engines | None = None,
    sources: Sources | None = None,
) -> list[Problem]:
    """What is wrong with the files of an inventory, as far as they say it without Ansible.

    Values that hold templates or are encrypted are taken as right. ``sources`` are those already read.
    """
    catalog = engines if engines is not None else engine_data()
    found = sources if sources is not None else read_sources(Path(inventory_dir), shown_from)
    problems: list[Problem] = []
    for variables in found.variables:
        problems += (_at(problem, variables) for problem in _variables(variables, catalog))
    models: Any = next((v.values["models"] for v in found.variables if "models" in v.values), [])
    problems += (named(problem, models) for problem in found.problems)
    return merge(problems)


def check(
    models: Any,
    hosts: Mapping[str, HostView],
    resolved: Resolved,
    *,
    sources: Sources | None = None,
    engines: Engines | None = None,
) -> list[Problem]:
    """What is wrong with rendered models on resolved hosts. Positions come from ``sources`` where they are
    known.

    ``hosts`` holds every host of the groups engine_hosts, proxy_hosts and edge.
    """
    catalog = engines if engines is not None else engine_data()
    problems = [*check_models_shape(models), *check_models(models, catalog)]
    broken = {problem.path[1] for problem in problems if len(problem.path) > 1 and _hides_placement(problem)}
    sound = True
    for host, name, value in _distinct_settings(hosts):
        for problem in check_setting(name, value, catalog):
            sound = sound and problem.code == "unknown-setting"
            problems.append(replace(problem, host=host))
    if sound:
        problems += check_hosts(hosts)
        if isinstance(models, list | tuple):
            whole = [
                (at, with_defaults(model, catalog[model["engine"]]))
                for at, model in enumerate(models)
                if at not in broken
            ]
            problems += check_placement(whole, hosts, resolved, catalog)
    return merge(locate(problem, sources) for problem in problems)


def merge(*levels: Iterable[Problem]) -> list[Problem]:
    """All problems once each, in order of file, line and field."""
    found: dict[tuple[Any, ...], Problem] = {}
    for level in levels:
        for problem in level:
            place = (problem.file, problem.line) if problem.file else problem.host
            key = (problem.code, problem.path, problem.message, place)
            if key not in found or (found[key].host is None and problem.host is not None):
                found[key] = problem
    return sorted(found.values(), key=lambda one: (one.file or "~", one.line or 0, one.field, one.message))


def named(problem: Problem, models: Any) -> Problem:
    """The problem with the name of the model that its path leads to."""
    if problem.path[:1] == ("models",) and len(problem.path) > 1:
        return replace(problem, model=label(models, problem.path[1]))
    return problem


def _hides_placement(problem: Problem) -> bool:
    """Whether a model with this problem cannot be looked at any further."""
    if problem.code in ("missing-key", "unknown-engine"):
        return True
    return problem.code.startswith("bad-") and problem.path[2:3] not in (
        ("args",),
        ("env",),
        ("smoke",),
        ("golden",),
        ("rollout",),
    )


def _variables(variables: Variables, engines: Engines) -> Iterator[Problem]:
    for name, value in variables.values.items():
        if name == "models" and not isinstance(value, Templated):
            yield from check_models_shape(value)
            yield from check_models(value, engines)
        elif name.startswith("fleet_"):
            for problem in check_setting(name, value, engines):
                host = variables.scope[1] if variables.scope[0] == "host" else None
                yield replace(problem, host=host)


def _at(problem: Problem, variables: Variables) -> Problem:
    for end in range(len(problem.path), 0, -1):
        position = variables.positions.get(problem.path[:end])
        if position is not None:
            return replace(problem, file=position.file, line=position.line, column=position.column)
    return problem


def locate(problem: Problem, sources: Sources | None) -> Problem:
    """The problem with its place in the files, if they hold it."""
    position = sources.find(problem.path, problem.host) if sources is not None else None
    if position is None:
        return problem
    return replace(problem, file=position.file, line=position.line, column=position.column)


def _distinct_settings(hosts: Mapping[str, HostView]) -> Iterator[tuple[str, str, Any]]:
    """Host, name and value of each given setting; a value that many hosts share once."""
    seen: set[tuple[str, str]] = set()
    for host in hosts.values():
        for name, value in host.given.items():
            key = (name, repr(value))
            if key not in seen:
                seen.add(key)
                yield host.name, name, value
