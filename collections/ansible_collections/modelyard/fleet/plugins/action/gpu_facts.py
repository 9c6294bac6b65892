"""Run the module ``gpu_facts`` with the catalog's table of GPU generations, which stands on the controller."""

from __future__ import annotations

import sys
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments are the module's."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("catalog") is None:
            arguments["catalog"] = catalog()
        found: dict[str, Any] = self._execute_module(
            module_name="modelyard.fleet.gpu_facts", module_args=arguments, task_vars=task_vars
        )
        return result | found


def catalog() -> dict[str, Any]:
    """The vendors of the catalog as plain data; ``AnsibleError`` where the package cannot be imported."""
    try:
        from modelyard.catalog import load_gpus
    except ImportError as error:
        raise AnsibleError(
            f"The Python package modelyard cannot be imported by {sys.executable}: {error}. "
            "Run Ansible from the environment that modelyard[deploy] is installed in."
        ) from error
    return {name: vendor.data for name, vendor in load_gpus().items()}
