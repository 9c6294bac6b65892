"""Starting one worker process and knowing its end."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress


class WorkerProcess:
    """A worker that runs or has run; ``end`` is our end of its channel."""

    def __init__(self, process: asyncio.subprocess.Process, end: socket.socket) -> None:
        self._process = process
        self.end = end

    async def wait(self) -> int:
        """Its exit code, once it has ended; negative: the signal that ended it."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


async def spawn(number: int, workers: int, table: int, log_level: str) -> WorkerProcess:
    """Start worker ``number``. In a session of its own: Ctrl-C is for the supervisor, which passes it on once."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "modelyard.gateway.workers.worker",
            *map(str, (number, workers, theirs.fileno(), table, log_level)),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), table),
            start_new_session=True,
        )
    ours.setblocking(False)
    return WorkerProcess(process, ours)
