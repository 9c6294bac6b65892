"""Write down what a run has applied: one release for each model that is launched or placed in another way than before."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.plugin_utils.locking import who_am_i
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

from modelyard.errors import ConfigError
from modelyard.releases import APPLIED, Release, append, differences, read_holds, read_releases, write_holds
from modelyard.releases.commits import commit_of
from modelyard.releases.recording import candidate, is_due, outcome_of

_SHOWN = 6


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``plan`` (redacted) and ``book`` of the roll (empty: all went as planned).

    Runs on the controller and connects to nothing. Never reported as a change: the records are the controller's own.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the numbers of the new ``releases`` by model; in check mode nothing is written."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "plan": {"type": "dict", "required": True},
                "book": {"type": "dict", "default": {}},
            }
        )
        result.update(changed=False, releases={})
        if self._task.check_mode:
            return result
        variables = task_vars or {}
        plan, book = data(args["plan"]), data(args["book"]) or {}
        try:
            made = self._record(plan, book, book.get("images") or {}, variables)
        except ConfigError as error:
            raise AnsibleActionFail(error.message) from error
        return result | {"releases": {one.model: one.number for one in made}}

    def _record(self, plan: Any, book: Any, seen: Any, variables: dict[str, Any]) -> list[Release]:
        state_dir = Path(plan["state_dir"])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        commits: dict[str, Any] | None = None
        made, reached = [], set()
        for model in sorted(plan["launches"]):
            outcome, note = outcome_of(model, plan, book)
            if outcome is None:
                continue
            reached.add(model)
            store = read_releases(state_dir, model)
            release = candidate(store, plan, outcome, note, seen, at=now, who=who_am_i(), commits={})
            if not is_due(store, release):
                continue
            if commits is None:  # asked of Git only when there is something to record
                commits = self._commits(state_dir, variables)
            release = candidate(store, plan, outcome, note, seen, at=now, who=who_am_i(), commits=commits)
            held = read_holds(state_dir).get(model)
            append(state_dir, release, protected={held.release} if held else ())
            made.append(release)
            _show(release, store.applied)
        self._end_holds(state_dir, reached.intersection(plan["ended_holds"]) | _gone(plan))
        return made

    def _end_holds(self, state_dir: Path, ended: set[str]) -> None:
        holds = read_holds(state_dir)
        if ended & holds.keys():
            write_holds(state_dir, {name: one for name, one in holds.items() if name not in ended})

    def _commits(self, state_dir: Path, variables: dict[str, Any]) -> dict[str, Any]:
        places = {
            "inventory": variables.get("inventory_dir"),
            "project": Path(str(variables["playbook_dir"])).parent,
        }
        found = {}
        for name, place in places.items():
            directory = Path(str(place)).resolve() if place else None
            found[name] = (
                commit_of(directory, state_dir.resolve()) if directory and directory.is_dir() else None
            )
        return found


def _gone(plan: Any) -> set[str]:
    """Models whose hold has ended since they are no longer in the inventory."""
    return set(plan["ended_holds"]) - set(plan["launches"])


def _show(release: Release, before: Release | None) -> None:
    changed = [str(one) for one in differences(before, release)] if before else ["the first one recorded"]
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    how = "" if release.outcome == APPLIED else f", {release.outcome.replace('_', ' ')}"
    Display().display(
        f"Release {release.number} of {release.model}{how}: {'; '.join(changed[:_SHOWN])}{more}",
        color="green" if release.outcome == APPLIED else "bright red",
    )
