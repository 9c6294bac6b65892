"""Write down on the controller what a run is about to apply, for the day a host does not answer."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``path`` and ``content``. Runs on the controller only; needs no connection.

    Never reported as a change: it is the controller's memory, nothing of the fleet.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write whole or not at all; in check mode not at all."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "path": {"type": "path", "required": True},
                "content": {"type": "dict", "required": True},
            }
        )
        if not self._task.check_mode:
            write_json(args["path"], data(args["content"]))
        return result | {"changed": False}
