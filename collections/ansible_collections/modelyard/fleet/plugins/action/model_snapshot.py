"""Fetch weights in the background of the host, and say how far it is; all else is the module's."""

from __future__ import annotations

import time
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible_collections.modelyard.fleet.plugins.module_utils.files import human
from ansible_collections.modelyard.fleet.plugins.plugin_utils.progress import EVERY_S, Progress

MODULE = "modelyard.fleet.model_snapshot"
LIMIT_S = 7 * 86_400
"""After this a download is ended; the next run goes on from there."""
LONGEST_PAUSE_S = 3.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs the module of the same name. A download goes on when the controller goes away, and the next run waits for it."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """The module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        progress = boolean(args.get("progress", False), strict=False)
        if not progress or self._task.check_mode:
            done: dict[str, Any] = self._execute_module(
                module_name=MODULE, module_args=args, task_vars=task_vars
            )
            return result | done
        return result | self._watched(args, task_vars or {})

    def _watched(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self._task.async_val = LIMIT_S
        try:
            started: dict[str, Any] = self._execute_module(
                module_name=MODULE, module_args=args, task_vars=task_vars, wrap_async=True
            )
        finally:
            self._task.async_val = 0
            # the job removes its own directory
            self._connection._shell.tmpdir = None
        if started.get("failed") or "ansible_job_id" not in started:
            return started
        job = started["ansible_job_id"]
        (item,) = args["snapshots"]
        line = Progress(f"{task_vars.get('inventory_hostname', 'host')}: {item['model']}")
        said_at, last = time.monotonic(), 0
        pause = 0.2
        while True:
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_S)
            status = self._job(job, "status", task_vars)
            if status.get("finished"):
                break
            if status.get("failed") and "ansible_job_id" not in status:
                return status
            now = time.monotonic()
            if now - said_at >= EVERY_S or not last:
                said_at, last = now, last + 1
                self._tell(line, args, item, task_vars)
        self._job(job, "cleanup", task_vars)
        for key in ("ansible_job_id", "started", "finished", "results_file", "stdout", "stderr", "stdout_lines",
                    "stderr_lines", "erased"):  # fmt: skip
            status.pop(key, None)
        if status.get("unreached"):
            line.warn(f"{status.get('msg')}. It is fetched from its source instead")
        if not status.get("failed"):
            for one in status.get("snapshots") or ():
                line.tell(str(one["reason"]))
        return status

    def _tell(
        self, line: Progress, args: dict[str, Any], item: dict[str, Any], task_vars: dict[str, Any]
    ) -> None:
        seen = self._execute_module(
            module_name=MODULE,
            module_args={"snapshots": [item], "watch": True},
            task_vars=task_vars,
        )
        for one in seen.get("watched") or ():
            total = one["total"]
            of = f" of {human(total)}, {100 * one['have'] // max(1, total)} %" if total else ""
            peer = (args.get("peer") or {}).get("host")
            line.tell(f"{human(one['have'])}{of}, from {peer or 'its source'}")

    def _job(self, job: str, mode: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        task = Task.load(
            {
                "action": "ansible.builtin.async_status",
                "args": {"jid": job, "mode": mode},
                "environment": self._task.environment,
            }
        )
        handler = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.async_status",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        found: dict[str, Any] = handler.run(task_vars=task_vars)
        return found
