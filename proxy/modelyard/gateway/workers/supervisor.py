"""The process that serves nothing itself: it keeps the workers running, looks at the replicas for all of them,
and gathers what they say.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from modelyard.errors import ConfigError
from modelyard.settings import Settings

from ..replicas import HealthView, Replica
from ..server import ShutdownReport, reserve, url_of
from .channel import Channel, Message
from .merge import Family, counts, families, merged, rendered
from .process import WorkerProcess, spawn
from .table import CountTable
from .told import truth_of
from .watch import FleetWatch
from .worker import packed

_log = logging.getLogger(__name__)

_TELL_S = 0.2
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
# One that has run this long was sound: the next fault of it is a new one.
_SOUND_AFTER_S = 30.0
# After the workers' own grace; a worker that does not end then is ended.
_EXTRA_GRACE_S = 5.0
_ASK_S = 3.0
_LAST_WORDS_S = 2.0
# what workers told one another, for one that begins later
_REMEMBERED = 20_000


@dataclass(slots=True)
class _Slot:
    """The place of one worker; ``process`` is ``None`` while there is none."""

    number: int
    process: WorkerProcess | None = None
    channel: Channel | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    pause_s: float = _FIRST_PAUSE_S
    last_seen: list[Family] = field(default_factory=list)
    report: Message | None = None


class Supervisor:
    """``workers`` processes on one port."""

    def __init__(
        self, settings: Settings, watch: FleetWatch, environment: dict[str, str], workers: int
    ) -> None:
        self._settings = settings
        self._watch = watch
        # a worker needs no more of it, and the rest may hold secrets
        self._environment = {key: value for key, value in environment.items() if key.startswith("TGI_")}
        self._table, self._table_fd = CountTable.make(workers)
        watch.build(self._table)
        self._slots = [_Slot(number) for number in range(workers)]
        self._told: dict[str, tuple[Any, ...]] = {}
        self._retired: list[Family] = []
        self._facts: dict[str, deque[Message]] = {}
        self._asked: dict[tuple[int, int], asyncio.Future[Any]] = {}
        self._question = 0
        self._reserved: list[socket.socket] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[ConfigError] | None = None
        self._stopping = False

    async def start(self) -> str:
        """Start everybody; returns the base URL once all workers serve.

        Raises ``OSError`` when the address cannot be had, ``ConfigError`` when a worker cannot begin.
        """
        self._failed = asyncio.get_running_loop().create_future()
        self._reserved = await reserve(self._settings.host, self._settings.port)
        await self._watch.open(self._hurried)
        self._keepers = [asyncio.create_task(self._keep(slot)) for slot in self._slots]
        self._keepers.append(asyncio.create_task(self._tell_on()))
        everybody = asyncio.create_task(self._all_ready())
        first: set[asyncio.Future[Any]] = {everybody, self._failed}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            everybody.cancel()
            await self.stop(asyncio.Event())
            raise self._failed.result()
        return url_of(self._reserved[0])

    async def stop(self, hurry: asyncio.Event) -> ShutdownReport:
        """All workers drain and end; ``hurry`` makes them do so at once."""
        self._stopping = True
        for task in self._keepers:
            task.cancel()
        processes = [slot.process for slot in self._slots if slot.process is not None]
        self.signal(signal.SIGTERM)
        grace_s = self._settings.drain_delay_s + self._settings.shutdown_grace_s + _EXTRA_GRACE_S
        ended: asyncio.Future[Any] = asyncio.gather(*(process.wait() for process in processes))
        hurried: asyncio.Future[Any] = asyncio.ensure_future(hurry.wait())
        await asyncio.wait({ended, hurried}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            self.signal(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=_EXTRA_GRACE_S)
        hurried.cancel()
        if not ended.done():
            _log.error("a worker did not end in time and is killed")
            self.signal(signal.SIGKILL)
        await ended
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._watch.close()
        for one in self._reserved:
            one.close()
        self._table.close()
        return self._report()

    async def _all_ready(self) -> None:
        for slot in self._slots:
            await slot.ready.wait()

    def hang_up(self) -> None:
        """SIGHUP came: every worker opens its access log anew."""
        self.signal(signal.SIGHUP)

    def signal(self, number: int) -> None:
        """Pass a signal on to every worker."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.signal(number)

    def _report(self) -> ShutdownReport:
        models: Counter[str] = Counter()
        running = cut = 0
        for slot in self._slots:
            if slot.report is not None:
                running += slot.report["running"]
                cut += slot.report["cut"]
                models.update(slot.report["models"])
        return ShutdownReport(running, cut, dict(models))

    async def _keep(self, slot: _Slot) -> None:
        """Start the worker again whenever it ends, later each time that it did not last."""
        while not self._stopping:
            started = time.monotonic()
            process = slot.process = await spawn(
                slot.number,
                len(self._slots),
                self._table_fd,
                self._settings.log_level,
            )
            slot.gone.clear()
            try:
                slot.channel = await Channel.over(
                    process.end, lambda message: self._take(slot, message), slot.gone.set
                )
                slot.channel.send(self._first_message())
                status = await process.wait()
                began = slot.ready.is_set()
            except asyncio.CancelledError:
                # a worker that is told to stop still has its report to give
                await process.wait()
                raise
            finally:
                await self._heard_out(slot)
                self._buried(slot)
            if not began:
                self._give_up(slot, {"message": f"it ended with exit code {status}", "problems": []})
            if time.monotonic() - started > _SOUND_AFTER_S:
                slot.pause_s = _FIRST_PAUSE_S
            _log.error(
                "worker %d ended (%s); the others serve on, it is started again in %g s",
                slot.number,
                f"signal {-status}" if status < 0 else f"exit code {status}",
                slot.pause_s,
            )
            await asyncio.sleep(slot.pause_s)
            slot.pause_s = min(slot.pause_s * 2, _LONGEST_PAUSE_S)

    def _first_message(self) -> Message:
        return {
            "kind": "start",
            "settings": packed(self._settings),
            "environment": self._environment,
            "listen": [[one.family, list(one.getsockname())] for one in self._reserved],
            "truth": {replica.id: truth_of(replica) for replica in self._watch.present()},
        }

    async def _heard_out(self, slot: _Slot) -> None:
        """What the worker said last may still be on its way when its end is known."""
        if slot.channel is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await slot.gone.wait()

    def _buried(self, slot: _Slot) -> None:
        """What the worker had in flight is over; what it had counted stays counted."""
        slot.process = None
        slot.ready.clear()
        if slot.channel is not None:
            slot.channel.close()
            slot.channel = None
        self._table.clear(slot.number)
        self._retired = merged([self._retired, counts(slot.last_seen)])
        slot.last_seen = []
        for (number, _), future in self._asked.items():
            if number == slot.number and not future.done():
                future.set_result(None)

    def _take(self, slot: _Slot, message: Message) -> None:
        kind = message["kind"]
        if kind == "ready":
            if slot.channel is not None:
                for fact in chain.from_iterable(self._facts.values()):
                    slot.channel.send(fact)
            slot.ready.set()
        elif kind == "failed":
            self._give_up(slot, message)
        elif kind == "stopped":
            slot.report = message
        elif kind == "ask":
            task = asyncio.create_task(self._answer(slot, message))
            self._keepers.append(task)
            task.add_done_callback(self._keepers.remove)
        elif kind == "answer":
            future = self._asked.get((slot.number, message["number"]))
            if future is not None and not future.done():
                future.set_result(message["data"])
        elif kind == "look":
            self._look(slot, message)
        elif kind == "tell":
            # each topic for itself, so that a talkative one does not push another's facts out
            self._facts.setdefault(message["topic"], deque(maxlen=_REMEMBERED)).append(message)
            for other in self._slots:
                if other is not slot and other.channel is not None:
                    other.channel.send(message)
        else:
            self._watch.take(message)

    def _give_up(self, slot: _Slot, message: Message) -> None:
        said = f"worker {slot.number} cannot begin: {message['message']}"
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(ConfigError(said, message["problems"]))
        _log.error("%s", said)

    def _look(self, slot: _Slot, message: Message) -> None:
        channel = slot.channel

        def done(_: asyncio.Future[HealthView]) -> None:
            self._tell()
            if channel is not None:
                channel.send({"kind": "looked", "number": message["number"]})

        replica = self._watch.pool.get(message["replica"])
        if replica is not None:
            self._watch.monitor.look_now(replica).add_done_callback(done)
        elif channel is not None:
            channel.send({"kind": "looked", "number": message["number"]})

    async def _answer(self, slot: _Slot, message: Message) -> None:
        parts = await self._ask_all(message["what"])
        data: Any
        if message["what"] == "metrics":
            for other, part in parts:
                other.last_seen = part
            # counters never go back: of one that is silent now, what it said last
            silent = [
                counts(each.last_seen) for each in self._slots if all(each is not one for one, _ in parts)
            ]
            truth = families(self._watch.metrics.registry)
            shown = merged([self._retired, *silent, *(part for _, part in parts)], truth)
            data = rendered(shown).decode()
        else:
            data = [{**row, "worker": other.number} for other, part in parts for row in part]
        if slot.channel is not None:
            slot.channel.send({"kind": "answer", "number": message["number"], "data": data})

    async def _ask_all(self, what: str) -> list[tuple[_Slot, Any]]:
        """What each worker that can answer says."""
        self._question += 1
        asked: list[tuple[_Slot, asyncio.Future[Any]]] = []
        for slot in self._slots:
            if slot.channel is None or not slot.ready.is_set():
                continue
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._asked[slot.number, self._question] = future
            asked.append((slot, future))
            slot.channel.send({"kind": "ask", "what": what, "number": self._question})
        if asked:
            await asyncio.wait([future for _, future in asked], timeout=_ASK_S)
        for key in [key for key, future in self._asked.items() if any(future is one for _, one in asked)]:
            del self._asked[key]
        return [
            (slot, future.result()) for slot, future in asked if future.done() and future.result() is not None
        ]

    def _hurried(self, replica: Replica, before: HealthView, after: HealthView) -> None:
        """A change of state is told at once."""
        self._tell([replica])

    def _tell(self, replicas: Sequence[Replica] | None = None) -> None:
        """Tell all workers what is new about ``replicas``, or about all."""
        views: dict[str, Any] = {}
        for replica in self._watch.present() if replicas is None else replicas:
            # views are replaced, never changed: another object is news, the same one is not
            now = (replica.health, replica.load, replica.drained, replica.came_back_at)
            if now != self._told.get(replica.id):
                self._told[replica.id] = now
                views[replica.id] = truth_of(replica)
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.send({"kind": "truth", "views": views})

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            with suppress(ValueError):
                self._watch.pool.gather()
            self._tell()
