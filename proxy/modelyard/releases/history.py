"""The history of models as data, for a table or for programs. Reads the state directory only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.errors import ConfigError
from modelyard.inventory.source import Templated, read_sources
from modelyard.releases.differences import differences
from modelyard.releases.records import APPLIED, Release
from modelyard.releases.store import Store, known_models, read_holds, read_releases

SETTING = "fleet_state_dir"
DEFAULT = ".modelyard"


def state_directory(inventory: Path) -> Path:
    """The state directory of an inventory, as its files say. ConfigError when only Ansible could tell."""
    directory = inventory if inventory.is_dir() else inventory.parent
    given = [one.values[SETTING] for one in read_sources(directory).variables if one.values.get(SETTING)]
    if any(isinstance(one, Templated) for one in given) or len({str(one) for one in given}) > 1:
        raise ConfigError(
            f"{SETTING} of {inventory} is known to Ansible only (a template, or several values): give --state-dir."
        )
    return directory / Path(str(given[0]) if given else DEFAULT).expanduser()


def history(state_dir: Path, model: str | None = None) -> list[dict[str, Any]]:
    """For each model (or one) its releases, newest first, each with what it ``changed`` against the one before it.

    ``current`` is the number of the release applied last, ``held`` the one that the model is held at, or None.
    """
    holds = read_holds(state_dir)
    models = known_models(state_dir) if model is None else [model]
    found = []
    for name in models:
        store = read_releases(state_dir, name)
        hold = holds.get(name)
        found.append(
            {
                "model": name,
                "current": store.applied.number if store.applied else None,
                "held": hold.release if hold else None,
                "releases": _rows(store),
            }
        )
    return found


def _rows(store: Store) -> list[dict[str, Any]]:
    rows = []
    before: Release | None = None  # the last one that was applied: what an attempt was made against
    for one in store.releases:
        changed = differences(before, one) if before else []
        rows.append({**one.as_dict(), "changed": [str(each) for each in changed], "first": before is None})
        if one.outcome == APPLIED:
            before = one
    return rows[::-1]
