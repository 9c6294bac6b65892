"""Say which replica is meant and on which host it is. Runs on the controller and connects to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.action.plan import MEMORY, read_memory
from ansible_collections.modelyard.fleet.plugins.module_utils.find_replica import find_replica


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``replica`` (an id or a part of one), ``hosts`` (names) and ``state_dir`` (of the last deploy)."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``replica`` and ``host``; fail with the nearest names when there is not exactly one."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        known = read_memory(Path(str(args["state_dir"])) / MEMORY)
        hosts = [str(host) for host in args["hosts"]]
        replica, host, problem = find_replica(str(args["replica"]).strip(), known, hosts)
        if problem:
            raise AnsibleActionFail(problem)
        return result | {"changed": False, "replica": replica, "host": host}
