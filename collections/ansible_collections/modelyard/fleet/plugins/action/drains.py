"""Work out what is drained until further notice. Runs on the controller, connects to nothing and writes nothing."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import drains
from ansible_collections.modelyard.fleet.plugins.module_utils.wiring import unknown_place
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``verb`` (drain or undrain), ``asked`` (by kind host, model, replica; empty where not asked for; ``all``)
    and ``plan`` (redacted).
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the ``rules`` from now on and the ``replicas`` that they take out or give back."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "verb": {"type": "str", "choices": ["drain", "undrain"], "required": True},
                "asked": {"type": "dict", "required": True},
                "plan": {"type": "dict", "required": True},
            }
        )
        plan = data(args["plan"])
        asked = {kind: str(name) for kind, name in data(args["asked"]).items() if name}
        back = args["verb"] == "undrain"
        if not asked or (not back and "all" in asked):
            raise AnsibleActionFail(
                f"Say what to {args['verb']}: -e host=NAME, -e model=ID or -e replica=ID"
                + (", or -e all=true." if back else ".")
            )
        before = plan["drained"]
        after = drains.taken_back(before, asked) if back else drains.added(before, asked, time.time())
        problems = drains.still_drained(after, asked, plan["assignments"]) if back else []
        if not problems and (not back or after == before):
            # a rule may name what is gone from the inventory; a name that neither knows is a slip of the hand
            places = [(kind, name) for kind, name in asked.items() if kind != "all"]
            problems = [text for kind, name in places if (text := unknown_place(kind, name, plan))]
        if problems:
            raise AnsibleActionFail("\n".join(problems))
        moved = [
            item["replica"]
            for item in plan["assignments"]
            if item["wished"]
            and item["observed"] in (("up",) if back else ("up", "unknown"))
            and _out(after, item) is not back
            and (not back or _out(before, item))
        ]
        return result | {"changed": False, "rules": after, "replicas": moved}


def _out(rules: Any, item: Any) -> bool:
    return drains.is_drained(rules, item["replica"], item["model"], item["host"])
