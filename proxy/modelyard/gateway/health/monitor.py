"""The looks themselves: when each replica is probed and scraped, and who hears of what was found."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Protocol

from modelyard.errors import UpstreamError

from ..replicas import HealthState, HealthView, LoadFigures, Replica, ReplicaPool
from .progress import Progress, Sample, next_progress
from .rules import Finding, HealthRules, in_service, next_health, of_error, of_status
from .scrape import Figures, read_figures

_log = logging.getLogger(__name__)

# a metrics page of a large engine has 300 KiB; several times that is a fault, and reading it takes 3 ms
_LARGEST_PAGE = 2 * 2**20
# starting a look takes about 0.1 ms: no more than this in one turn of the loop, so that streams go on
_STARTS_PER_TURN = 32
_FIRST_AT_ONCE = 64
# following a changed fleet takes about 2 us for each replica that stays and 10 us for one that comes
_STEP = 64
_STEPS_AT_ONCE = 8
_PARALLEL = 256
_RESTART_AFTER_S = 1.0

# (replica, health before, health after); the two are the same when the operator's hand moved
Listener = Callable[[Replica, HealthView, HealthView], None]


class Prober(Protocol):
    """How looks reach engines; see ``upstream.Transport``."""

    async def status_of(self, url: str, timeout_s: float) -> int:
        """The status of a GET."""

    async def fetch(self, url: str, timeout_s: float, limit: int) -> tuple[int, bytes]:
        """The status and the body of a GET."""


@dataclass(slots=True, eq=False)
class _Watch:
    """One replica under watch. ``active``: the registry wants it used; ``turn`` is its valid entry in the queue
    of looks; ``again``: look once more as soon as the look that runs has ended.
    """

    replica: Replica
    looked_at: float
    active: bool
    turn: int = 0
    hurried: bool = False
    again: bool = False
    progress: Progress | None = None
    task: asyncio.Task[None] | None = None
    asked: list[asyncio.Future[HealthView]] = field(default_factory=list)
    answering: list[asyncio.Future[HealthView]] = field(default_factory=list)


class HealthMonitor:
    """Looks at every replica of the pool again and again; ``follow`` begins, ``close`` ends it.

    One conductor starts the looks that are due, so that a large fleet costs neither a task for each replica
    nor a burst; it is started again should it ever fail.
    """

    def __init__(
        self,
        pool: ReplicaPool,
        prober: Prober,
        rules: HealthRules,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._pool = pool
        self._prober = prober
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._listeners: list[Listener] = []
        self._watches: dict[Replica, _Watch] = {}
        self._due: list[tuple[float, int, _Watch]] = []
        self._numbers = count(1)
        self._looking = 0
        self._wake = asyncio.Event()
        self._conductor: asyncio.Task[None] | None = None
        self._catching_up: Iterator[None] | None = None

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` whenever the state or the use of a replica may have changed."""
        self._listeners.append(listener)

    def follow(self) -> None:
        """Watch exactly the replicas that the pool has now. Needs a running loop.

        Of a large fleet only the first are seen to at once and the rest a few in each turn of the loop, so that
        streams go on meanwhile.
        """
        self._catching_up = self._catch_up()
        self._go_on_catching_up(_STEPS_AT_ONCE)
        if self._conductor is None:
            self._conductor = asyncio.create_task(self._supervise(), name="health conductor")
        self._wake.set()

    def _go_on_catching_up(self, steps: int) -> None:
        steps_left = self._catching_up
        if steps_left is not None and len(list(islice(steps_left, steps))) < steps:
            self._catching_up = None

    def _catch_up(self) -> Iterator[None]:
        """Follow the pool, with a halt after each few replicas."""
        now, loop_now = self._clock(), asyncio.get_running_loop().time()
        for number, known in enumerate(list(self._watches), 1):
            if known.removed:
                self._forget(self._watches.pop(known))
            if not number % _STEP:
                yield
        # all of a large fleet at once would be a burst; by chance, so that no model waits for all others
        fresh = len(self._pool) - len(self._watches)
        spread_s = max(0, fresh - _FIRST_AT_ONCE) / (2 * self._rules.most_per_s)
        for number, replica in enumerate(self._pool.everyone(), 1):
            if not replica.removed:
                watch = self._watches.get(replica)
                if watch is None:
                    watch = self._watches[replica] = _Watch(replica, now, _active(replica))
                    self._schedule(watch, loop_now + spread_s * self._rng.random())
                elif watch.active is not _active(replica):
                    watch.active = not watch.active
                    self._came_back(replica, watch.active)
            if not number % _STEP:
                yield

    async def close(self) -> None:
        """End every look."""
        conductor, self._conductor = self._conductor, None
        self._catching_up = None
        watches = list(self._watches.values())
        tasks = [watch.task for watch in watches if watch.task is not None]
        self._watches.clear()
        self._due.clear()
        for watch in watches:
            self._forget(watch)
        if conductor is not None:
            conductor.cancel()
            tasks.append(conductor)
        await asyncio.gather(*tasks, return_exceptions=True)

    def mark_unreachable(self, replica: Replica, reason: str) -> None:
        """A request found no connection: it counts like a failed probe, and the next look comes at once."""
        self._note(replica, Finding.DOWN, reason)
        watch = self._watches.get(replica)
        if watch is not None:
            self._at_once(watch)

    def mark_busy(self, replica: Replica, reason: str) -> None:
        """A request was told that the replica is full: others come first until the next look."""
        if in_service(replica.health):
            self._note(replica, Finding.BUSY, reason)

    def look_now(self, replica: Replica) -> asyncio.Future[HealthView]:
        """Look at ``replica`` as soon as there is room; the future holds the health that this look showed.

        A look that has begun already does not count. The future is never an exception; where the replica is
        no longer watched it holds the last health known.
        """
        future: asyncio.Future[HealthView] = asyncio.get_running_loop().create_future()
        watch = self._watches.get(replica)
        if watch is None:
            future.set_result(replica.health)
            return future
        watch.asked.append(future)
        self._at_once(watch)
        return future

    def oldest_look_s(self) -> float:
        """The age of the last look at the replica that has waited longest, in seconds; 0 without any."""
        # copied in one step: metrics are collected beside the loop
        looks = [watch.looked_at for watch in list(self._watches.values())]
        return max(0.0, self._clock() - min(looks)) if looks else 0.0

    def set_drained(self, replicas: Iterable[Replica], drained: bool) -> None:
        """The operator takes replicas out or back. Requests that run go on; it stays so across reloads."""
        for replica in replicas:
            if replica.drained is drained:
                continue
            replica.drained = drained
            _log.warning("replica %s: %s by the operator", replica.id, "drained" if drained else "undrained")
            self._came_back(replica, not drained)

    def _came_back(self, replica: Replica, back: bool) -> None:
        """The operator's will for ``replica`` has changed."""
        if back:
            replica.came_back_at = self._clock()
        self._tell(replica, replica.health, replica.health)

    def _forget(self, watch: _Watch) -> None:
        watch.turn = 0
        if watch.task is not None:
            watch.task.cancel()
        self._resolve(watch, watch.answering + watch.asked)

    def _resolve(self, watch: _Watch, futures: list[asyncio.Future[HealthView]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(watch.replica.health)

    def _schedule(self, watch: _Watch, at: float) -> None:
        watch.turn = next(self._numbers)
        heapq.heappush(self._due, (at, watch.turn, watch))

    def _at_once(self, watch: _Watch) -> None:
        """The next look at ``watch`` comes before all others that are due; one that runs is waited for."""
        if watch.task is not None:
            watch.again = True
        elif not watch.hurried:
            watch.hurried = True
            self._schedule(watch, 0.0)
            self._wake.set()

    def _interval_s(self) -> float:
        usual = max(self._rules.interval_s, len(self._watches) / self._rules.most_per_s)
        return usual * self._rng.uniform(0.8, 1.2)

    async def _supervise(self) -> None:
        while True:
            try:
                await self._conduct()
            except Exception:
                # a fault of ours must not end the watch over the fleet
                _log.exception("the health conductor failed; it is started again")
                await asyncio.sleep(_RESTART_AFTER_S)

    async def _conduct(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            started = 0
            while (
                started < _STARTS_PER_TURN
                and self._looking < _PARALLEL
                and self._due
                and self._due[0][0] <= loop.time()
            ):
                _, turn, watch = heapq.heappop(self._due)
                if turn == watch.turn and watch.task is None:
                    self._begin(watch)
                    started += 1
            self._go_on_catching_up(1)
            if started == _STARTS_PER_TURN or self._catching_up is not None:
                await asyncio.sleep(0)
                continue
            room = self._due and self._looking < _PARALLEL
            try:
                async with asyncio.timeout_at(self._due[0][0] if room else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _begin(self, watch: _Watch) -> None:
        watch.answering, watch.asked = watch.asked, []
        watch.hurried = watch.again = False
        self._looking += 1
        watch.task = asyncio.create_task(self._look(watch), name=f"health {watch.replica.id}")
        watch.task.add_done_callback(lambda task: self._ended(watch, task))

    def _ended(self, watch: _Watch, task: asyncio.Task[None]) -> None:
        watch.task = None
        self._looking -= 1
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("the look at %s failed; it goes on", watch.replica.id, exc_info=fault)
        watch.looked_at = self._clock()
        self._resolve(watch, watch.answering)
        if self._watches.get(watch.replica) is watch:
            watch.hurried = watch.again
            pause = 0.0 if watch.again else self._interval_s()
            self._schedule(watch, asyncio.get_running_loop().time() + pause)
        self._wake.set()

    async def _look(self, watch: _Watch) -> None:
        """Look once: the live path, the ready path, and the metrics of one that is alive."""
        replica = watch.replica
        finding, reason = await self._ask(replica)
        if finding is Finding.READY and self._queue_is_long(replica):
            finding, reason = Finding.BUSY, f"{self._rules.busy_waiting} or more requests wait in its queue"
        self._note(replica, finding, reason)
        if finding in (Finding.READY, Finding.BUSY):
            await self._scrape(watch)
        else:
            self._lose_sight(watch)

    async def _ask(self, replica: Replica) -> tuple[Finding, str]:
        engine, url, heard = replica.engine, replica.endpoint.url, replica.heard
        paths = [(engine.live_path, Finding.DOWN)]
        if engine.ready_path != engine.live_path:
            paths.append((engine.ready_path, Finding.NOT_READY))
        try:
            for path, otherwise in paths:
                status = await self._prober.status_of(url + path, self._rules.timeout_s)
                found = of_status(path, status, otherwise)
                if found is not None:
                    return found
        except UpstreamError as exc:
            return of_error(exc, heard=replica.heard != heard)
        return Finding.READY, ""

    def _queue_is_long(self, replica: Replica) -> bool:
        most, load = self._rules.busy_waiting, replica.load
        return bool(most and load and load.waiting is not None and load.waiting >= most)

    async def _scrape(self, watch: _Watch) -> None:
        replica = watch.replica
        url = replica.endpoint.url + replica.engine.metrics.path
        try:
            status, page = await self._prober.fetch(url, self._rules.timeout_s, _LARGEST_PAGE)
        except UpstreamError:
            self._lose_sight(watch)
            return
        figures = read_figures(page, replica.engine.metrics) if status == 200 else Figures()
        now = self._clock()
        known = (figures.running, figures.waiting, figures.kv_usage)
        replica.load = None if known == (None, None, None) else LoadFigures(*known, at=now)
        self._judge(watch, figures, now)

    def _lose_sight(self, watch: _Watch) -> None:
        """No figures this time: old ones hold for a while, and nobody is convicted for what was not seen."""
        load = watch.replica.load
        if load is not None and self._clock() - load.at > 3 * self._interval_s():
            watch.replica.load = None
        if watch.progress is not None and watch.progress.hung_since is None:
            watch.progress = None

    def _judge(self, watch: _Watch, figures: Figures, now: float) -> None:
        """Whether the replica gets on; without a counter nobody can tell."""
        replica, after_s = watch.replica, self._rules.hung_after_s
        if figures.progress is None or not after_s:
            watch.progress = None
        else:
            sample = Sample(figures.progress, figures.running, figures.waiting, replica.owed, replica.heard)
            watch.progress = next_progress(watch.progress, sample, after_s, now)
        hung_since = watch.progress.hung_since if watch.progress is not None else None
        before = replica.health
        if before.hung_since == hung_since:
            return
        eject = self._rules.eject_hung and hung_since is not None
        self._set(replica, replace(before, hung_since=hung_since, ejected=eject))
        if hung_since is None:
            _log.warning("replica %s: no longer hung", replica.id)
        else:
            _log.error(
                "replica %s is hung: it has had work and made no progress for %g s; %s",
                replica.id,
                after_s,
                "it gets no more requests" if eject else "it is used on (hung_action is alarm)",
            )

    def _note(self, replica: Replica, finding: Finding, reason: str) -> None:
        before = replica.health
        after = next_health(before, finding, reason, self._rules, self._clock())
        if before.state is after.state:
            replica.health = after
            return
        grave = after.state in (HealthState.FAILING, HealthState.UNAUTHORISED)
        _log.log(
            logging.WARNING if grave else logging.INFO,
            "replica %s: %s -> %s (%s)",
            replica.id,
            before.state.value,
            after.state.value,
            after.reason,
        )
        self._set(replica, after)

    def _set(self, replica: Replica, after: HealthView) -> None:
        before, replica.health = replica.health, after
        if before.state is not HealthState.UNKNOWN and in_service(after) and not in_service(before):
            replica.came_back_at = self._clock()
        self._tell(replica, before, after)

    def _tell(self, replica: Replica, before: HealthView, after: HealthView) -> None:
        for listener in self._listeners:
            try:
                listener(replica, before, after)
            except Exception:
                _log.exception("a listener failed on a change of %s", replica.id)


def _active(replica: Replica) -> bool:
    return replica.endpoint.state == "active"
