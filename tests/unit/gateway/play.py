"""A stage for the lane and the wire without a network: a loop that does nothing by itself, and transports that
remember.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from modelyard.gateway.app import GATEWAY, create_app
from modelyard.gateway.lane.lane import Lane
from modelyard.gateway.replicas import HealthView
from modelyard.gateway.wire.connection import Connection
from modelyard.gateway.wire.pool import ConnectionPool
from modelyard.registry.load import load_text
from modelyard.settings import Settings

REGISTRY = """
version: 1
generation: 1
models:
  m:
    aliases: [alias]
    timeouts: {connect_s: 1, first_byte_s: 5, idle_s: 5, total_s: 20}
    endpoints:
      - {id: a, url: "http://127.0.0.1:1", engine: vllm}
      - {id: b, url: "http://127.0.0.1:2/base", engine: vllm, served_name: other}
  closed:
    clients: [alice]
    endpoints: [{id: c, url: "http://127.0.0.1:3", engine: vllm}]
"""


class StillLoop:
    """Time and turns pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        self._ready.append((callback, args))

    def create_task(self, work: Coroutine[None, None, None]) -> StageTask:
        return StageTask(self, work)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def turn(self) -> None:
        """Run what is ready until nothing is."""
        while self._ready:
            callback, args = self._ready.popleft()
            callback(*args)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.cancelled:
                timer.callback()
            self.turn()
        self.now = until


class Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class StageTransport:
    """Takes what is written; closes in the loop's next turn, as real ones do."""

    def __init__(self, loop: StillLoop, protocol: Any) -> None:
        self._loop = loop
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not self.closed:
            self.written += data

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.aborted = True
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(lambda: self.protocol.connection_lost(error))

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else None

    def feed(self, data: bytes) -> bool:
        """Give bytes to the protocol, where it takes any."""
        if self.closed or not self.reading or not data:
            return False
        self.protocol.data_received(data)
        return True

    def half_close(self) -> None:
        if not self.closed and self.reading:
            self.protocol.eof_received()
            self.close()


class Look:
    """Something awaited that comes in the loop's next turn."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __await__(self) -> Generator[None, None, Any]:
        yield
        return self._result


class StageTask:
    """A coroutine that goes on with each turn of the loop."""

    def __init__(self, loop: StillLoop, work: Coroutine[None, None, None]) -> None:
        self._loop = loop
        self._work = work
        self._over = self._running = False
        self._listeners: list[Callable[[StageTask], object]] = []
        loop.call_soon(self._step)

    def _step(self) -> None:
        if self._over:
            return
        self._running = True
        try:
            self._work.send(None)
        except StopIteration:
            self._end()
        else:
            self._loop.call_soon(self._step)
        finally:
            self._running = False

    def done(self) -> bool:
        return self._over

    def cancel(self) -> bool:
        # asyncio knows which task is running, and ours do not cancel that one
        if self._over or self._running:
            return False
        self._work.close()
        self._end()
        return True

    def add_done_callback(self, listener: Callable[[StageTask], object]) -> None:
        self._listeners.append(listener)

    def _end(self) -> None:
        self._over = True
        for listener in self._listeners:
            listener(self)


class Fallback(asyncio.Protocol):
    """Stands for aiohttp: keeps what it is given."""

    def __init__(self) -> None:
        self.given = b""

    def data_received(self, data: bytes) -> None:
        self.given += data


class Stage:
    """A lane with its proxy, and one client's connection at a time."""

    def __init__(self, seed: int = 0) -> None:
        self.loop: Any = StillLoop()
        registry = load_text(REGISTRY, "registry")
        # requests are not held to account and breakers stay closed, for both wait for the real loop
        settings = Settings(port=0, body_timeout_s=10, suspect_s=0, breaker_failures=0)
        app = create_app(settings, registry, source="r")
        self.gateway = app[GATEWAY]
        chance = random.Random(seed)
        self.gateway.pursuits.look = lambda replica: Look(HealthView(failures=chance.randrange(2)))
        self.gateway.pursuits.sleep = lambda seconds: Look(None)
        self.made: list[Connection] = []
        self.refuse: Callable[[], bool] = lambda: False
        self.pool = ConnectionPool(self.loop, reach=self._reach)
        self.fallbacks: list[Fallback] = []
        self.lane = Lane(self.gateway, self.pool, self._fallback, loop=self.loop, rng=random.Random(seed))

    async def _reach(self, connection: Connection) -> None:
        """The connection is there in the loop's next turn, unless ``refuse`` says otherwise."""
        if self.refuse():
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        connection.connection_made(StageTransport(self.loop, connection))  # type: ignore[arg-type]
        self.made.append(connection)

    def _fallback(self) -> Fallback:
        one = Fallback()
        self.fallbacks.append(one)
        return one

    def client(self) -> StageTransport:
        protocol = self.lane()
        transport = StageTransport(self.loop, protocol)
        protocol.connection_made(transport)  # type: ignore[arg-type]
        return transport

    def leaks(self) -> list[str]:
        """What is still held although every client has gone."""
        found = []
        if self.gateway.lifecycle.active:
            found.append(f"active {self.gateway.lifecycle.active}")
        found += [f"{one.id} {one.in_flight}" for one in self.gateway.pool.everyone() if one.in_flight]
        if self.gateway.pursuits.running:
            found.append("pursuits")
        if self.lane.connections or len(self.lane.sweeper):
            found.append("connections")
        idle = self.pool.idle_count()
        if len(self.pool.sweeper) > bool(idle):
            found.append("exchanges")
        alive = [one for one in self.made if not one.closed]
        if len(alive) != idle:
            found.append(f"{len(alive)} connections to engines, {idle} idle")
        if any(one.exchange is not None for one in self.made):
            found.append("a connection with an exchange")
        return found
