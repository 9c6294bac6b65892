"""Give the fleet's lock back when a run ends: well, with a failure, or interrupted."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.modelyard.fleet.plugins.plugin_utils import locking

DOCUMENTATION = r"""
name: lock_release
type: aggregate
short_description: Gives the fleet's lock back when a run ends
description:
  - Enabled in ansible.cfg. A run without it leaves its lock behind, which the next run finds to be a dead one's.
"""

_LOCK_ACTION = "modelyard.fleet.lock"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Runs in the main process, unlike the task that takes the lock."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "modelyard.fleet.lock_release"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: dict[Path, tuple[locking.Owner, int | None]] = {}
        atexit.register(self._interrupted, os.getpid())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember a lock that a task has taken."""
        if result.task.action != _LOCK_ACTION:
            return
        lock = dict(result.result.get("lock") or {})
        state_dir = lock.pop("state_dir", None)
        owner = locking.from_dict(lock)
        if state_dir is not None and owner is not None and Path(str(state_dir)) not in self._held:
            path = Path(str(state_dir))
            # from now on every worker carries it too: a task that outlives this process is seen by the next run
            self._held[path] = owner, locking.sign_of_life(path)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: also sent after failures."""
        self._release()

    def _interrupted(self, pid: int) -> None:
        """What is still held when the process ends was held by a run that was cut off (Ctrl-C)."""
        if self._held and os.getpid() == pid:
            self._release()
            self._display.warning(
                "This run was cut off: a task may still be going on at a host, and what was done is unknown until "
                "the next run has observed it."
            )

    def _release(self) -> None:
        while self._held:
            state_dir, (owner, alive) = self._held.popitem()
            if alive is not None:
                os.close(alive)
            with suppress(locking.LockError, OSError):  # the next run finds out that this one has ended
                locking.release(state_dir, owner)
