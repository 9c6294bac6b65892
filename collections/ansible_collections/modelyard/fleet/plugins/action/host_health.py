"""Run the module ``host_health``, and say how far the host's clock is from the controller's."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.clock import offset


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments are the module's."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        before = time.time()
        found: dict[str, Any] = self._execute_module(
            module_name="modelyard.fleet.host_health", module_args=dict(self._task.args), task_vars=task_vars
        )
        after = time.time()
        if isinstance(found.get("clock"), dict):
            found["clock"] |= offset(before, after, float(found["began"]), float(found["ended"]))
        return result | found
