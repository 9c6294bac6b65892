"""Show the log of one replica and, if told to, go on showing it.

Each look is one short run of the module ``replica_log`` over the play's own connection, whatever that is: when this
ends, however it ends, nothing is left running on the host.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

PAUSE_S = 1.0  # between two looks


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: those of the module ``replica_log``, ``follow``, and two files of the controller.

    Lines go to ``stream_file`` as JSON objects, one on each line; without it they are printed. Following ends when
    ``stop_file`` is there.
    """

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look until there is nothing more to follow."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        follow = bool(args.pop("follow", False))
        stream, stop = str(args.pop("stream_file", "") or ""), str(args.pop("stop_file", "") or "")
        args["whole"] = not follow
        while True:
            found: dict[str, Any] = self._execute_module(
                module_name="modelyard.fleet.replica_log", module_args=dict(args), task_vars=task_vars
            )
            if found.get("failed") or found.get("unreachable"):
                return result | found
            self._show(found["lines"], stream)
            if not follow or (stop and Path(stop).exists()):
                return result | {"changed": False, "runtime": found["runtime"]}
            args["cursor"] = found["cursor"]
            if not found["more"]:
                self._rest(stop)

    def _show(self, lines: list[dict[str, Any]], stream: str) -> None:
        if not stream:
            for line in lines:
                Display().display(line["line"])
        elif lines:
            with Path(stream).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def _rest(self, stop: str) -> None:
        """Wait until the next look is due, but not when nobody looks any more."""
        due = time.monotonic() + PAUSE_S
        while time.monotonic() < due and not (stop and Path(stop).exists()):
            time.sleep(0.1)
