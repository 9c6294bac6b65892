"""One worker: the whole proxy on its share of the connections. Started by the supervisor, never by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelyard.catalog.loader import load_engines
from modelyard.errors import ConfigError
from modelyard.settings import Settings, settings_table

from ..app import GATEWAY, Sharing, breaker_rules, create_app, first_registry
from ..context import Gateway
from ..homes import Home
from ..request_admin import running_rows
from ..server import BACKLOG, ProxyServer, bound
from .channel import Channel, Message
from .faults import SharedFaults
from .merge import families
from .peers import WorkerPeers
from .table import CountTable, SharedPool
from .told import ToldMonitor

_log = logging.getLogger(__name__)

_FOLLOW_S = 0.05
_PUBLISH_EVERY = 5


def packed(settings: Settings) -> dict[str, Any]:
    """Settings as they are sent to a worker."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def unpacked(values: dict[str, Any]) -> Settings:
    """The settings that ``packed`` made these of."""
    made: dict[str, Callable[[Any], Any]] = {"list": tuple, "path": Path}
    given: dict[str, Any] = {}
    for row in settings_table():
        value, make = values[row.name], made.get(row.kind)
        given[row.name] = value if value is None or make is None else make(value)
    return Settings(**given)


class Worker:
    """What one worker process does between its first message and its last."""

    def __init__(self, number: int, table: CountTable) -> None:
        self._number = number
        self._table = table
        self._start: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._channel: Channel | None = None
        self._peers: WorkerPeers | None = None
        self._monitor: ToldMonitor | None = None
        # what is said while the parts that listen are being made
        self._early: dict[str, Any] = {}

    async def run(self, end: socket.socket) -> None:
        """Serve until told to stop, or until the supervisor is gone."""
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self.stop)
        self._channel = await Channel.over(end, self._take, self.stop)
        self._peers = WorkerPeers(self._channel)
        start = await self._start
        if start is None:
            self._channel.close()
            return
        try:
            gateway, server = self._made(start, self._channel, self._peers)
            faults = SharedFaults(gateway.pursuits, gateway.pool.get, self._peers.tell, self._peers.listen)
            sockets = [bound(family, tuple(address), shared=True) for family, address in start["listen"]]
            for one in sockets:
                one.listen(BACKLOG)
            await server.start(sockets)
        except (ConfigError, OSError) as exc:
            problems = list(exc.problems) if isinstance(exc, ConfigError) else []
            self._channel.send({"kind": "failed", "message": str(exc), "problems": problems})
            self._channel.close()
            return
        loop.add_signal_handler(signal.SIGHUP, server.hang_up)
        self._channel.send({"kind": "ready"})
        publishing = asyncio.create_task(self._publish(gateway, faults), name="publish counts")
        await self._stop.wait()
        report = await server.stop(self._hurry)
        publishing.cancel()
        self._channel.send(
            {
                "kind": "stopped",
                "running": report.running,
                "cut": report.cut,
                "models": dict(report.models),
                "families": families(gateway.metrics.registry),
            }
        )
        self._channel.close()

    def stop(self) -> None:
        """Stop in good order; asked again, at once."""
        (self._hurry if self._stop.is_set() else self._stop).set()
        if not self._start.done():
            self._start.set_result(None)

    def _made(self, start: Message, channel: Channel, peers: WorkerPeers) -> tuple[Gateway, ProxyServer]:
        settings = unpacked(start["settings"])
        registry, source, version = first_registry(settings, start["environment"])
        pool = SharedPool(load_engines(), self._table, self._number, breaker_rules(settings))
        app = create_app(
            settings,
            registry,
            source=source,
            version=version,
            sharing=Sharing(pool, ToldMonitor, peers),
        )
        gateway = app[GATEWAY]
        assert isinstance(gateway.monitor, ToldMonitor)  # noqa: S101
        self._monitor = gateway.monitor
        self._monitor.join(channel)
        self._monitor.hear({**start["truth"], **self._early})
        peers.answer_with("metrics", lambda: families(gateway.metrics.registry))
        peers.answer_with("requests", lambda: running_rows(gateway))
        homes = gateway.responses
        homes.on_remember = lambda response_id, home: peers.tell("homes", [response_id, *home])
        peers.listen("homes", lambda fact: homes.learn(fact[0], Home(*fact[1:])))
        return gateway, ProxyServer(app)

    def _take(self, message: Message) -> None:
        kind = message["kind"]
        if kind == "start":
            if not self._start.done():
                self._start.set_result(message)
        elif self._peers is not None and self._peers.take(message):
            return
        elif kind == "truth":
            if self._monitor is None:
                self._early.update(message["views"])
            else:
                self._monitor.hear(message["views"])
        elif kind == "looked" and self._monitor is not None:
            self._monitor.looked(message["number"])

    async def _publish(self, gateway: Gateway, faults: SharedFaults) -> None:
        pool = gateway.pool
        assert isinstance(pool, SharedPool)  # noqa: S101
        turn = 0
        while True:
            pool.follow_others()
            turn += 1
            if turn % _PUBLISH_EVERY == 0:
                pool.publish()
                faults.look(pool.touched())
            await asyncio.sleep(_FOLLOW_S)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The fastest loop that this platform has."""
    try:
        import uvloop
    except ImportError:  # it does not exist for every platform
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def main(arguments: list[str]) -> None:
    """``worker <number> <workers> <channel> <table> <log level>``, the third and fourth file descriptors."""
    number, workers, channel, table = (int(text) for text in arguments[:4])
    logging.basicConfig(
        level=arguments[4].upper(),
        format=f"%(asctime)s %(levelname)-7s worker {number} %(name)s: %(message)s",
    )
    end = socket.socket(fileno=channel)
    end.setblocking(False)
    counts = CountTable(table, workers)
    os.close(table)

    async def run() -> None:
        await Worker(number, counts).run(end)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


if __name__ == "__main__":
    main(sys.argv[1:])
