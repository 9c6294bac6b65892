"""Wait for replicas; with ``progress`` in short looks from the controller, so that nobody waits in silence."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.module_utils.probe import failure_text
from ansible_collections.modelyard.fleet.plugins.modules.replica_ready import SPEC
from ansible_collections.modelyard.fleet.plugins.plugin_utils.progress import Progress

LOOK_S = 3.0
"""Seconds that one look waits on the host for a replica that is not ready."""

Row = dict[str, Any]


class ActionModule(ActionBase):  # type: ignore[misc]
    """Looks with the module of the same name."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> Row:
        """The module's result, or its failure with what each replica that is not well has to say."""
        result: Row = super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(argument_spec=SPEC)
        if not asked["progress"]:
            return result | self._look(asked, task_vars)
        lines = {item["replica"]: Progress(item["replica"]) for item in asked["replicas"]}
        found: dict[str, Row] = {}
        waiting = list(asked["replicas"])
        begun = time.monotonic()
        while waiting:
            look = self._look(
                {
                    **asked,
                    "replicas": waiting,
                    "fail": False,
                    "generate": False,
                    "deadline_s": LOOK_S,
                    "since": {name: row["since"] for name, row in found.items() if row["since"] is not None},
                },
                task_vars,
            )
            if look.get("failed"):
                return result | look
            waited_s = time.monotonic() - begun
            found |= {row["replica"]: row | {"waited_s": round(waited_s, 2)} for row in look["replicas"]}
            waiting = [item for item in waiting if _goes_on(item, found[item["replica"]], asked, waited_s)]
            for item in waiting:
                lines[item["replica"]].tell(_phase(found[item["replica"]]), kind="waiting")
        well = [item for item in asked["replicas"] if found[item["replica"]]["ok"]]
        if asked["generate"] and well:
            for item in well:
                golden = asked["golden"] and item.get("golden")
                lines[item["replica"]].tell(f"ready, asked for {'its golden' if golden else 'an'} answer")
            look = self._look({**asked, "replicas": well, "fail": False}, task_vars)
            if look.get("failed"):
                return result | look
            found |= {row["replica"]: row for row in look["replicas"]}
        for name, row in found.items():
            lines[name].tell("well" if row["ok"] else f"failed: {row['error']}")
        rows = [found[item["replica"]] for item in asked["replicas"]]
        failure = failure_text(rows)
        if failure and asked["fail"]:
            return result | {"failed": True, "msg": failure, "replicas": rows}
        return result | {"changed": False, "replicas": rows}

    def _look(self, asked: Row, task_vars: Row | None) -> Row:
        given = {name: value for name, value in asked.items() if value is not None}
        found: Row = self._execute_module(
            module_name="modelyard.fleet.replica_ready", module_args=given, task_vars=task_vars
        )
        return found


def _goes_on(assignment: Row, row: Row, asked: Row, waited_s: float) -> bool:
    """Whether a replica is still waited for."""
    if row["ok"] or row["ended"]:
        return False
    limit_s = asked["deadline_s"]
    return waited_s < float(assignment["spec"]["start_period_s"] if limit_s is None else limit_s)


def _phase(row: Row) -> str:
    said = str(row["error"] or "").partition(" after ")[0]
    return f"{'loading' if row['live'] else 'starting'} ({said})"
