"""Health in a worker: it looks at nothing itself, but is told, and tells what its requests have seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ..health.monitor import HealthMonitor
from ..health.rules import Finding
from ..replicas import HealthState, HealthView, LoadFigures, Replica
from .channel import Channel

# a look that has begun is waited for, then two requests are made, each with its time; and then some
_LOOKS = 4
_MORE_S = 1.0


def truth_of(replica: Replica) -> list[Any]:
    """What the supervisor says of one replica."""
    return [replica.health, replica.load, replica.drained, replica.came_back_at]


class ToldMonitor(HealthMonitor):
    """``HealthMonitor`` of a worker, connected to the supervisor's by ``join``."""

    _channel: Channel | None = None
    _told: dict[str, list[Any]] | None = None
    _asked: dict[int, tuple[Replica, asyncio.Future[HealthView]]] | None = None
    _told_at: float | None = None

    def join(self, channel: Channel) -> None:
        """From now on the supervisor is heard and told."""
        self._channel = channel
        self._told, self._asked = {}, {}

    def follow(self) -> None:
        """See ``HealthMonitor.follow``: what was said of a replica before it was known here counts now."""
        for replica in self._pool.everyone():
            known = (self._told or {}).get(replica.id)
            if known is not None and replica.health.probed_at is None and not replica.removed:
                self._take(replica, known)

    async def close(self) -> None:
        """See ``HealthMonitor.close``."""
        for replica, future in (self._asked or {}).values():
            if not future.done():
                future.set_result(replica.health)

    def hear(self, views: dict[str, list[Any]]) -> None:
        """The supervisor's news, by replica id."""
        self._told_at = self._clock()
        if self._told is not None:
            self._told.update(views)
        for name, known in views.items():
            replica = self._pool.get(name)
            if replica is not None:
                self._take(replica, known)

    def _take(self, replica: Replica, known: list[Any]) -> None:
        health, load, drained, came_back_at = known
        before = replica.health
        replica.health = HealthView(**{**health, "state": HealthState(health["state"])})
        replica.load = LoadFigures(**load) if load else None
        replica.came_back_at = came_back_at
        moved = replica.drained is not drained
        replica.drained = drained
        if moved or (before.state, before.ejected) != (replica.health.state, replica.health.ejected):
            self._tell(replica, before, replica.health)

    def _say(self, kind: str, **facts: Any) -> None:
        if self._channel is not None:
            self._channel.send({"kind": kind, **facts})

    def mark_unreachable(self, replica: Replica, reason: str) -> None:
        """See ``HealthMonitor.mark_unreachable``."""
        self._note(replica, Finding.DOWN, reason)
        self._say("unreachable", replica=replica.id, reason=reason)

    def mark_busy(self, replica: Replica, reason: str) -> None:
        """See ``HealthMonitor.mark_busy``."""
        super().mark_busy(replica, reason)
        self._say("busy", replica=replica.id, reason=reason)

    def look_now(self, replica: Replica) -> asyncio.Future[HealthView]:
        """See ``HealthMonitor.look_now``; the supervisor looks."""
        future: asyncio.Future[HealthView] = asyncio.get_running_loop().create_future()
        if self._asked is None:
            future.set_result(replica.health)
            return future
        number = next(self._numbers)
        self._asked[number] = (replica, future)
        self._say("look", replica=replica.id, number=number)
        # a supervisor that is gone or stuck must not hold a request for ever
        patience = asyncio.get_running_loop().call_later(
            _LOOKS * self._rules.timeout_s + _MORE_S, self.looked, number
        )
        future.add_done_callback(lambda _: patience.cancel())
        return future

    def looked(self, number: int) -> None:
        """The supervisor has looked, and what it saw has been heard."""
        replica, future = (self._asked or {}).pop(number, (None, None))
        if replica is not None and future is not None and not future.done():
            future.set_result(replica.health)

    def oldest_look_s(self) -> float:
        """See ``HealthMonitor.oldest_look_s``; here the time since the supervisor last said something."""
        return 0.0 if self._told_at is None else max(0.0, self._clock() - self._told_at)

    def set_drained(self, replicas: Iterable[Replica], drained: bool) -> None:
        """See ``HealthMonitor.set_drained``; it reaches all workers."""
        named = list(replicas)
        super().set_drained(named, drained)
        self._say("drain", replicas=[replica.id for replica in named], drained=drained)
