"""Run the module ``fleet_facts``; where it looks at GPUs, with the catalog's table of their generations."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.action.gpu_facts import catalog


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments are the module's."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("accelerator") and arguments.get("catalog") is None:
            arguments["catalog"] = catalog()
        found: dict[str, Any] = self._execute_module(
            module_name="modelyard.fleet.fleet_facts", module_args=arguments, task_vars=task_vars
        )
        return result | found
