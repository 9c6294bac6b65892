"""The records on disk: one file of releases for each model, one file of holds. Written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from modelyard.errors import ConfigError
from modelyard.releases.holds import Hold
from modelyard.releases.holds import from_dict as hold_from
from modelyard.releases.records import APPLIED, Release, from_dict

MOST_KEPT = 50
DIRECTORY = "releases"
HOLDS = "holds.json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Store:
    """The releases of one model, oldest first."""

    model: str
    releases: tuple[Release, ...] = ()

    def find(self, number: int | None) -> Release | None:
        """The release with this number, if it is still kept."""
        return next((one for one in self.releases if one.number == number), None)

    @property
    def applied(self) -> Release | None:
        """The one that was applied last: what runs, unless something went wrong since."""
        return next((one for one in reversed(self.releases) if one.outcome == APPLIED), None)

    @property
    def next_number(self) -> int:
        """Numbers are never given twice, whatever was forgotten."""
        return max((one.number for one in self.releases), default=0) + 1


def releases_file(state_dir: Path, model: str) -> Path:
    """Where a model's releases are kept. ``model`` is an id that the inventory's check has passed."""
    return state_dir / DIRECTORY / f"{model}.json"


def read_releases(state_dir: Path, model: str) -> Store:
    """A model's releases; none before the first. ConfigError for a file that cannot be understood."""
    path = releases_file(state_dir, model)

    def parse(data: Any) -> Store:
        found = tuple(from_dict(one) for one in data["releases"])
        numbers = [one.number for one in found]
        if numbers != sorted(set(numbers)):
            raise ValueError("its numbers do not ascend")
        return Store(model, found)

    return _read(path, parse, Store(model), "holds the releases of a model")


def known_models(state_dir: Path) -> list[str]:
    """Models of which there are releases."""
    return sorted(
        path.stem for path in (state_dir / DIRECTORY).glob("*.json") if not path.name.startswith(".")
    )


def append(state_dir: Path, release: Release, protected: Collection[int] = ()) -> Store:
    """Add a release and write the file. ConfigError, and nothing written, when what is there cannot be understood.

    At most 50 are kept: attempts that failed go first, then the oldest. ``protected`` numbers stay.
    """
    store = read_releases(state_dir, release.model)
    kept = [*store.releases, replace(release, id=release.as_dict()["id"])]
    # what runs, and what it went back to
    current = next((one for one in reversed(kept) if one.outcome == APPLIED), kept[-1])
    needed = {*protected, kept[-1].number, current.number, current.rollback_of}
    for droppable in (lambda one: one.outcome != APPLIED, lambda one: True):
        for one in list(kept):
            if len(kept) > MOST_KEPT and one.number not in needed and droppable(one):
                kept.remove(one)
    data = {"version": 1, "model": release.model, "releases": [one.as_dict() for one in kept]}
    _write(releases_file(state_dir, release.model), data)
    return Store(release.model, tuple(kept))


def read_holds(state_dir: Path) -> dict[str, Hold]:
    """Which models are held at an earlier release. ConfigError for a file that cannot be understood."""

    def parse(data: Any) -> dict[str, Hold]:
        return {str(model): hold_from(one) for model, one in data["holds"].items()}

    return _read(state_dir / HOLDS, parse, {}, "says which models are held at an earlier release")


def write_holds(state_dir: Path, holds: Mapping[str, Hold]) -> None:
    """Replace the holds."""
    _write(state_dir / HOLDS, {"version": 1, "holds": {name: one.as_dict() for name, one in holds.items()}})


def _read(path: Path, parse: Callable[[Any], T], without: T, what: str) -> T:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != 1:
            raise ValueError(f"its version is {data['version']!r}, not 1")
        return parse(data)
    except FileNotFoundError:
        return without
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} {what} and cannot be read ({type(error).__name__}: {error}). It was left as it is: restore it from a "
            "backup, or move it away, and history begins anew."
        ) from error


def _write(path: Path, data: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            json.dump(data, file, indent=1, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise ConfigError(f"{path} cannot be written: {error}.") from error
