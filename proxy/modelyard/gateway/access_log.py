"""One JSON line for each request, written in batches by a thread so that no request waits for a disk.

A line is made when its request ends, for a few microseconds: made later, in the thread, it would cost the
server four times that in handing the interpreter back and forth.

Never holds prompts, answers, keys or query strings: a line tells where a request came from, where it went and
what it cost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from modelyard.errors import ConfigError

from .visit import Visit

_log = logging.getLogger(__name__)

_EVERY_S = 0.5
_BATCH = 200
_STANDARD_OUTPUT = 1
# Where the disk does not keep up, lines are dropped and counted: memory is for requests.
_MOST = 20_000


class AccessLog:
    """Appends to ``path``, or to standard output where there is none. Use ``running`` around the server."""

    def __init__(self, path: Path | None, clock: Callable[[], float]) -> None:
        self.dropped = 0
        self._path = path
        self._clock = clock
        self._pending: list[bytes] = []
        self._second = 0
        self._second_text = ""
        self._full = asyncio.Event()
        self._fd = -1
        self._faulty = False
        self._reopen = False

    def note(self, visit: Visit, status: int, seconds: float) -> None:
        """``visit`` has ended with ``status`` after ``seconds``."""
        pending = self._pending
        if len(pending) >= _MOST:
            self.dropped += 1
            return
        pending.append(_line(self._time(), visit, status, seconds))
        if len(pending) == _BATCH:
            self._full.set()

    def _time(self) -> str:
        moment = self._clock()
        second = int(moment)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._second_text}.{int((moment - second) * 1000):03d}+00:00"

    def reopen(self) -> None:
        """The file was moved away: the next lines go to a new one of its name."""
        self._reopen = self._path is not None
        self._full.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is noted, until the end. Raises ``ConfigError`` where the file cannot be opened."""
        try:
            self._fd = self._opened()
        except OSError as exc:
            raise ConfigError(
                f"the access log {self._path} cannot be opened ({exc.strerror}); make its directory writable "
                "for this user, or choose another file with --access-log-file"
            ) from exc
        task = asyncio.create_task(self._write_on(), name="access log")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            # requests may have ended since, and they count as well
            await asyncio.to_thread(self._write, self._taken())
            if self._path is not None:
                os.close(self._fd)

    async def _write_on(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._full.wait()
            self._full.clear()
            batch = self._taken()
            if batch or self._reopen:
                # not torn apart by the end: a batch is written once, and whole
                await _finished(asyncio.to_thread(self._write, batch))

    def _taken(self) -> list[bytes]:
        batch, self._pending = self._pending, []
        return batch

    def _opened(self) -> int:
        if self._path is None:
            return _STANDARD_OUTPUT
        # what clients ask for is nobody else's business
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _write(self, batch: list[bytes]) -> None:
        try:
            if self._reopen:
                self._reopen = False
                fresh = self._opened()
                os.close(self._fd)
                self._fd = fresh
            data = memoryview(b"".join(batch))
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as exc:
            self.dropped += len(batch)
            if not self._faulty:
                _log.error(
                    "the access log cannot be written (%s); lines are dropped until it can", exc.strerror
                )
            self._faulty = True
        else:
            self._faulty = False


def _line(time: str, visit: Visit, status: int, seconds: float) -> bytes:
    pursuit = visit.pursuit
    entry: dict[str, Any] = {
        "time": time,
        "request_id": visit.request_id,
        "client": visit.client,
        "method": visit.method,
        "route": visit.route,
        "model": visit.model or None,
        "status": status,
        "error": visit.error or None,
        "seconds": round(seconds, 6),
        "bytes": visit.size,
        "serving": None,
        "replica": None,
        "attempts": 0,
        "first_byte_s": None,
        "streamed": False,
        "prompt_tokens": None,
        "completion_tokens": None,
    }
    if pursuit is not None:
        replica, meter, usage = pursuit.replica, pursuit.meter, pursuit.usage
        entry["serving"] = pursuit.serving.id
        entry["replica"] = replica.id if replica else None
        entry["attempts"] = pursuit.attempts
        if pursuit.first_byte_at is not None:
            entry["first_byte_s"] = round(pursuit.first_byte_at - pursuit.started, 6)
        if meter is not None:
            entry["bytes"] = visit.size or meter.size
            entry["streamed"] = meter.streamed
        if usage is not None:
            entry["prompt_tokens"] = usage.prompt_tokens
            entry["completion_tokens"] = usage.completion_tokens
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


async def _finished(work: Any) -> None:
    """Wait for ``work`` to its end, also when told to stop meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
