"""Read the engine files into frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Where an engine shows its load, and under which names.

    Each name list is ordered from the newest engine version to the oldest: the first name present in a
    scrape counts, none present means *unknown*, which is neutral and never zero.
    """

    path: str
    running: tuple[str, ...]
    waiting: tuple[str, ...]
    kv_usage: tuple[str, ...]
    progress: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """What the proxy and the planner must know of one kind of engine.

    ``dialect`` is ``openai``, ``tgi`` or ``both``.
    ``routes`` are the paths that it serves, by task. ``data`` is the whole file, for the launcher.
    """

    name: str
    title: str
    dialect: str
    live_path: str
    ready_path: str
    metrics: EngineMetrics
    routes: Mapping[str, frozenset[str]]
    data: dict[str, Any]

    def speaks(self, dialect: str) -> bool:
        """Whether the engine serves this dialect's routes itself."""
        return self.dialect in (dialect, "both")

    def serves(self, task: str, path: str) -> bool:
        """Whether the engine serves ``path`` itself for a model of this task."""
        return path in self.routes.get(task, ())


def _engine(data: dict[str, Any]) -> Engine:
    names = data["metrics"]
    return Engine(
        name=data["name"],
        title=data["title"],
        dialect=data["dialect"],
        live_path=data["health"]["live"],
        ready_path=data["health"]["ready"],
        metrics=EngineMetrics(
            path=names["path"],
            running=tuple(names["running"]),
            waiting=tuple(names["waiting"]),
            kv_usage=tuple(names["kv_usage"]),
            progress=tuple(names["progress"]),
        ),
        routes={task: frozenset(paths) for task, paths in data["routes"].items()},
        data=data,
    )


@cache
def load_engines() -> dict[str, Engine]:
    """All engines of the catalog by name."""
    found = {}
    for entry in sorted(files(__package__).joinpath("engines").iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yml"):
            engine = _engine(yaml.safe_load(entry.read_text(encoding="utf-8")))
            found[engine.name] = engine
    return found


def load_engine(name: str) -> Engine:
    """One engine by name; ``KeyError`` when the catalog has none of that name."""
    return load_engines()[name]


@cache
def tasks_of(path: str) -> tuple[str, ...]:
    """The tasks of the models that ``path`` may reach, sorted; of none when no engine serves it."""
    return tuple(
        sorted(
            {
                task
                for engine in load_engines().values()
                for task in engine.routes
                if engine.serves(task, path)
            }
        )
    )
