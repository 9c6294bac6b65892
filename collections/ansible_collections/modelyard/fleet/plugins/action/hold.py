"""Hold a model at an earlier release, or end that. Says what a plan takes for the wish; touches no host."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils.wiring import unknown_model
from ansible_collections.modelyard.fleet.plugins.plugin_utils.locking import who_am_i
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import Wish, read_wish

from modelyard.errors import ConfigError
from modelyard.releases import Hold, Release, differences, named, previous, read_releases, write_holds
from modelyard.releases.holds import is_wished, make_hold

_MODEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_NUMBER = re.compile(r"[0-9]{1,9}")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``model``, and ``release``: ``previous``, ``current`` (what the inventory wishes) or a number.

    Runs on the controller. In check mode nothing is written; the plan of the same run takes the hold from the
    registered result, ``__fleet_hold``.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return all ``holds`` as they are from now on."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "model": {"type": "str", "default": ""},
                "release": {"type": "str", "default": "previous"},
            }
        )
        model, asked = str(args["model"]), str(args["release"])
        if not model:
            raise AnsibleActionFail(
                "Say which model goes back: -e model=ID, and -e release=N for another than the one before."
            )
        if not _MODEL.fullmatch(model):
            raise AnsibleActionFail(
                "model is the id of a model: lower-case letters, digits, dot, dash and underscore."
            )
        if asked not in ("previous", "current") and not _NUMBER.fullmatch(asked):
            raise AnsibleActionFail(
                "release is previous, current or the number of a release, as `modelyard history` shows it."
            )
        wish = read_wish(task_vars or {}, self._loader)
        if wish.problems:
            raise AnsibleActionFail(
                "\n".join(["The inventory has problems; nothing was changed.", *map(str, wish.problems)])
            )
        wrong = unknown_model(model, wish.in_force.own)
        if wrong:
            raise AnsibleActionFail(wrong)
        try:
            holds = self._decide(wish, model, asked)
            if not self._task.check_mode:
                write_holds(wish.state_dir, holds)
        except ConfigError as error:
            raise AnsibleActionFail(error.message) from error
        return result | {"changed": False, "holds": {name: one.as_dict() for name, one in holds.items()}}

    def _decide(self, wish: Wish, model: str, asked: str) -> dict[str, Hold]:
        others = {name: one for name, one in wish.in_force.holds.items() if name != model}
        held = next((one["release"] for one in wish.in_force.held if one["model"] == model), None)
        say = Display().display
        if asked == "current":
            say(
                f"{model} is held at release {held} no more."
                if held
                else f"{model} is not held: its wish is the inventory's."
            )
            return others
        store = read_releases(wish.state_dir, model)
        target = previous(store, held) if asked == "previous" else named(store, int(asked))
        now = store.find(held) or store.applied
        say(f"{model} goes back to release {target.number} ({_told(target)}):")
        for one in differences(now, target) if now else ():
            say(f"  {one}")
        own = wish.in_force.own[model]
        if is_wished(target, own):
            say("  That is what the inventory wishes: the model is not held.")
            return others
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        return {**others, model: make_hold(target, own, moment, who_am_i())}


def _told(release: Release) -> str:
    return f"applied {release.at} by {release.who}"
