"""Keep two runs that change the same fleet apart. Runs on the controller and connects to nothing."""

from __future__ import annotations

import multiprocessing
import os
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.plugin_utils import locking

_LEFTOVERS_S = 300.0  # how long a task of a run that was killed may hold up the next run
_ID = re.compile(r"[0-9a-f]{8}")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``state`` (held, released), ``state_dir``, and ``break_lock``, the id of a lock left behind.

    Never reported as a change: it is the controller's own. In check mode nothing is taken, and who holds the lock
    is only told. The callback plugin ``modelyard.fleet.lock_release`` gives the lock back when the run ends.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail when another run has the lock; else return the owner as ``lock`` for the callback."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
                "state_dir": {"type": "path", "required": True},
                "break_lock": {"type": "str", "default": ""},
            }
        )
        result["changed"] = False
        breaks = str(args["break_lock"])
        if breaks and not _ID.fullmatch(breaks):
            raise AnsibleActionFail(
                "break_lock is the id that the refused run has shown: 8 digits of 0-9 and a-f."
            )
        state_dir = Path(args["state_dir"])
        try:
            return result | self._held(state_dir, str(args["state"]), breaks)
        except locking.LockError as error:
            raise AnsibleActionFail(str(error)) from error

    def _held(self, state_dir: Path, state: str, breaks: str) -> dict[str, Any]:
        machine = locking.this_machine()
        owner = locking.run_owner(main_process(), _playbooks(), datetime.now(UTC), machine)
        if self._task.check_mode:
            held = locking.read_lock(state_dir)
            if held is not None and held.owner is not None:
                Display().display(
                    f"{held.owner.who} is changing this fleet with {held.owner.playbook} since {held.owner.started}, "
                    "or has left its lock behind: what is shown here may be out of date soon."
                )
            return {}
        if state == "released":
            return {"released": locking.release(state_dir, owner)}
        new, told = locking.acquire(state_dir, owner, machine, breaks)
        if told:
            Display().warning(told)
        if new:
            try:
                # not as a warning: those are shown when the task is over
                locking.await_leftovers(state_dir, _LEFTOVERS_S, Display().display)
            except locking.LockError:
                locking.release(state_dir, owner)
                raise
        return {"lock": asdict(owner) | {"state_dir": str(state_dir)}, "msg": told or "held"}


def main_process() -> int:
    """The process that lives as long as the run: tasks run in workers that are forked from it."""
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


def _playbooks() -> str:
    names = [Path(str(name)).stem for name in context.CLIARGS.get("args") or ()]
    return ", ".join(names) or "unknown"
