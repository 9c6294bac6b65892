"""Active probes with hysteresis, and marks that failed requests leave."""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from modelyard.errors import UpstreamError

from .replicas import HealthState, HealthView, Replica, ReplicaPool, with_state

_log = logging.getLogger(__name__)

# (url, timeout in seconds) -> HTTP status; raises UpstreamError when there is no answer
Fetch = Callable[[str, float], Awaitable[int]]
Listener = Callable[[Replica, HealthView, HealthView], None]


class Finding(enum.Enum):
    """What one look at a replica showed."""

    READY = "ready"
    NOT_READY = "not ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class HealthRules:
    """How often to look and how many looks it takes to change one's mind. Times in seconds."""

    interval_s: float = 5.0
    timeout_s: float = 10.0
    failures: int = 3
    successes: int = 2


def next_health(
    view: HealthView, finding: Finding, reason: str, rules: HealthRules, now: float
) -> HealthView:
    """The health after one finding.

    The first finding about an unknown replica counts at once; a ready one leaves only after
    ``rules.failures`` in a row, a failing one returns only after ``rules.successes`` in a row. A starting
    one is ready with its first success: it has shown no fault to recover from.
    """
    if finding is Finding.READY:
        seen = replace(view, successes=view.successes + 1, failures=0, reason="answers", probed_at=now)
        patient = view.state is HealthState.FAILING and seen.successes < rules.successes
        return seen if patient else with_state(seen, HealthState.READY, now)
    seen = replace(view, successes=0, failures=view.failures + 1, reason=reason, probed_at=now)
    if view.state is HealthState.READY and seen.failures < rules.failures:
        return seen
    if finding is Finding.NOT_READY:
        return with_state(seen, HealthState.STARTING, now)
    return with_state(seen, HealthState.FAILING, now)


class HealthMonitor:
    """One task for each replica of the pool; ``follow`` starts and ends them, ``close`` ends them all."""

    def __init__(
        self,
        pool: ReplicaPool,
        fetch: Fetch,
        rules: HealthRules,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        on_change: Listener | None = None,
        parallel: int = 256,
    ) -> None:
        self._pool = pool
        self._fetch = fetch
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._places = asyncio.Semaphore(parallel)
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._wake: dict[Replica, asyncio.Event] = {}

    def follow(self) -> None:
        """Watch exactly the replicas that the pool has now. Needs a running loop."""
        wanted = {replica for replica in self._pool.everyone() if not replica.removed}
        for replica in [known for known in self._tasks if known not in wanted]:
            self._tasks.pop(replica).cancel()
            self._wake.pop(replica)
        for replica in wanted - self._tasks.keys():
            self._wake[replica] = asyncio.Event()
            self._tasks[replica] = asyncio.create_task(self._watch(replica), name=f"health {replica.id}")

    async def close(self) -> None:
        """End every probe."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._wake.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def mark_unreachable(self, replica: Replica, reason: str) -> None:
        """A request found no connection: it counts like a failed probe, and the next probe comes at once."""
        self._note(replica, Finding.DOWN, reason)
        if replica in self._wake:
            self._wake[replica].set()

    async def probe(self, replica: Replica) -> None:
        """Look at ``replica`` once: the live path, then the ready path of its engine."""
        engine, url, timeout_s = replica.engine, replica.endpoint.url, self._rules.timeout_s
        try:
            async with self._places:
                status = await self._fetch(url + engine.live_path, timeout_s)
                if not 200 <= status < 300:
                    self._note(replica, Finding.DOWN, f"{engine.live_path} answers {status}")
                    return
                if engine.ready_path != engine.live_path:
                    status = await self._fetch(url + engine.ready_path, timeout_s)
        except UpstreamError as exc:
            self._note(replica, Finding.DOWN, exc.message)
            return
        if 200 <= status < 300:
            self._note(replica, Finding.READY, "")
        else:
            self._note(replica, Finding.NOT_READY, f"{engine.ready_path} answers {status}")

    async def _watch(self, replica: Replica) -> None:
        wake = self._wake[replica]
        while True:
            wake.clear()
            try:
                await self.probe(replica)
            except Exception:
                # a fault of ours in one probe must not end the watch over this replica
                _log.exception("the probe of %s failed; it goes on", replica.id)
            try:
                async with asyncio.timeout(self._rules.interval_s * self._rng.uniform(0.8, 1.2)):
                    await wake.wait()
            except TimeoutError:
                continue

    def _note(self, replica: Replica, finding: Finding, reason: str) -> None:
        before = replica.health
        replica.health = next_health(before, finding, reason, self._rules, self._clock())
        if before.state is not replica.health.state:
            log = _log.warning if replica.health.state is HealthState.FAILING else _log.info
            log(
                "replica %s: %s -> %s (%s)",
                replica.id,
                before.state.value,
                replica.health.state.value,
                replica.health.reason,
            )
            if self._on_change is not None:
                self._on_change(replica, before, replica.health)
