"""Requests that wait because no replica can take one: in order, not too many, not too long."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Container

from modelyard.errors import NoReplicaError, QueueFullError
from modelyard.registry.model import Model, Queue

# the length of the memory, in departures, that tells how soon a place will be free
_REMEMBERED = 32
_LEAST_S, _MOST_S = 1, 60
_UNKNOWN_S = 5
_LOOKS_S = 0.5


class WaitingRoom:
    """The queue of one model: first come, first served. ``steady`` gives seconds and never goes back."""

    __slots__ = ("_departures", "_steady", "_waiting", "called")

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._departures: deque[float] = deque(maxlen=_REMEMBERED)
        self.called = 0
        """Requests that were woken and have not looked yet: nobody who comes now goes before them."""

    def __len__(self) -> int:
        return len(self._waiting)

    def wake(self, *, departed: bool = False) -> None:
        """A place may be free: the request that has waited longest looks. ``departed``: for one has left."""
        if departed:
            self._departures.append(self._steady())
        if self.called:
            # it has yet to look, comes first, and lets the next one look where it finds a place
            return
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                self.called += 1
                future.set_result(None)
                return

    def passed(self) -> None:
        """A request that was woken has taken its place, or does not want it: there may be one for the next."""
        self.called -= 1
        self.wake()

    def retry_after_s(self) -> int:
        """In how many seconds a request that comes now would find a place, by how fast others left; 1 to 60."""
        left = self._departures
        if len(left) < 2 or left[-1] <= left[0]:
            return _UNKNOWN_S
        each_s = (self._steady() - left[0]) / len(left)
        return max(_LEAST_S, min(_MOST_S, math.ceil(each_s * (len(self._waiting) + 1))))

    async def wait(
        self, model: Model, queue: Queue, until: float, why: str, *, again: bool, admitted: bool = False
    ) -> None:
        """Wait until there may be a place, at most until ``until``; ``again``: this request was woken for
        nothing and keeps its turn; ``admitted``: however many wait.

        Raises ``QueueFullError`` when too many wait, ``NoReplicaError`` (with ``why``) when time is up.
        """
        if len(self._waiting) >= queue.size and not (again or admitted):
            raise QueueFullError(
                f"model {model.id!r} is busy and {len(self._waiting)} requests wait already; try again later",
                retry_after_s=self.retry_after_s(),
            )
        if again:
            self.called -= 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(future)
        try:
            while not future.done():
                left_s = until - self._steady()
                if left_s <= 0:
                    break
                # time alone may have made a place (a breaker, an expiry): the first in line looks now and then
                await asyncio.wait([future], timeout=min(left_s, _LOOKS_S))
                if not future.done() and self._waiting[0] is future and self._steady() < until:
                    self._waiting.popleft()
                    self.called += 1
                    return
        except asyncio.CancelledError:
            self._pass_on(future)
            raise
        if not future.done():
            self._waiting.remove(future)
            raise NoReplicaError(
                f"no replica of model {model.id!r} could take the request within {queue.wait_s:g} s: {why}; "
                "try again later",
                retry_after_s=self.retry_after_s(),
            )

    def _pass_on(self, future: asyncio.Future[None]) -> None:
        """A request waits no more. If it was woken in the same moment, the place is for the next one."""
        if future.done():
            self.passed()
        else:
            self._waiting.remove(future)


class WaitingRooms:
    """The queues of all models."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self.steady = steady
        self.used = False
        """Whether anybody has ever had to wait."""
        self._first: Callable[[], None] | None = None
        self._rooms: dict[str, WaitingRoom] = {}

    def when_used(self, told: Callable[[], None]) -> None:
        """Call ``told`` once, when somebody has to wait for the first time."""
        self._first = told

    def of(self, model_id: str) -> WaitingRoom:
        """The room of one model."""
        room = self._rooms.get(model_id)
        if room is None:
            if not self.used and self._first is not None:
                self._first()
            self.used = True
            room = self._rooms[model_id] = WaitingRoom(self.steady)
        return room

    def crowded(self, model_id: str) -> bool:
        """Whether others wait for the model: who comes now comes after them."""
        room = self._rooms.get(model_id)
        return room is not None and (len(room) > 0 or room.called > 0)

    def freed(self, model_id: str) -> None:
        """A request has left a replica of the model."""
        room = self._rooms.get(model_id)
        if room is not None:
            room.wake(departed=True)

    def changed(self, model_id: str) -> None:
        """A replica of the model may have become usable."""
        room = self._rooms.get(model_id)
        if room is not None:
            room.wake()

    def passed(self, model_id: str) -> None:
        """See ``WaitingRoom.passed``."""
        self.of(model_id).passed()

    def lengths(self) -> dict[str, int]:
        """Model -> how many wait, for those that have had to."""
        return {name: len(room) for name, room in self._rooms.items()}

    def follow(self, models: Container[str]) -> None:
        """Forget the rooms of models that are gone and that nobody waits in; ``models`` holds the ids."""
        for name in list(self._rooms):
            if name not in models and not self.crowded(name):
                del self._rooms[name]
