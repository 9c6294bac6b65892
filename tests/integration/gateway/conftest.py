"""A real proxy on a free port, with real settings, in front of engines that fail on command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from modelyard.gateway.app import GATEWAY, create_app, first_registry
from modelyard.gateway.context import Gateway
from modelyard.gateway.health.monitor import HealthMonitor
from modelyard.gateway.server import ProxyServer
from modelyard.settings import Settings

from .fake_engine import FakeEngine
from .raw_engine import RawEngine

KEY = "k3y-with-enough-different-letters-42"


async def until(condition: Callable[[], bool], what: str = "the condition", limit_s: float = 20) -> None:
    """Wait for ``condition``; fail with ``what`` when it does not come."""
    try:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"did not happen within {limit_s} s: {what}")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops that the proxy may run on; their transports differ."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Proxy:
    """A running proxy and a client for it."""

    def __init__(
        self, server: ProxyServer, url: str, gateway: Gateway, monitor: HealthMonitor, file: Path
    ) -> None:
        self.server = server
        self.url = url
        self.gateway = gateway
        self.monitor = monitor
        self.file = file
        self.client = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(force_close=True))

    @property
    def in_flight(self) -> int:
        return sum(replica.in_flight for replica in self.gateway.pool.everyone())

    async def post(self, path: str, body: Any, **more: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        async with self.client.post(path, json=body, **more) as response:
            raw = await response.read()
            data = json.loads(raw) if response.content_type == "application/json" else raw
            return response.status, data, response

    async def get(self, path: str, **more: Any) -> tuple[int, Any]:
        async with self.client.get(path, **more) as response:
            return response.status, await response.json()

    async def chat(self, model: str = "m", *, stream: bool = False, **more: Any) -> tuple[int, Any, Any]:
        return await self.post(
            "/v1/chat/completions", {"model": model, "messages": [], "stream": stream}, **more
        )

    def write(self, document: dict[str, Any] | str) -> None:
        other = self.file.with_suffix(".new")
        other.write_text(document if isinstance(document, str) else json.dumps(document))
        other.replace(self.file)


StartProxy = Callable[..., Awaitable[Proxy]]


def document(generation: int = 1, **models: Any) -> dict[str, Any]:
    """A registry; a model is given as its endpoints, or as a whole mapping."""
    return {
        "version": 1,
        "generation": generation,
        "models": {
            name: entry if isinstance(entry, dict) else {"endpoints": entry} for name, entry in models.items()
        },
    }


def at(engine: FakeEngine, name: str, kind: str = "vllm", **more: Any) -> dict[str, Any]:
    return {"id": name, "url": engine.url, "engine": kind, **more}


@pytest.fixture
async def engines() -> AsyncIterator[Callable[[int], Awaitable[list[FakeEngine]]]]:
    started: list[FakeEngine] = []

    async def start(count: int) -> list[FakeEngine]:
        fresh = [await FakeEngine().start() for _ in range(count)]
        started.extend(fresh)
        return fresh

    yield start
    for engine in started:
        await engine.stop()


@pytest.fixture
async def engine() -> AsyncIterator[RawEngine]:
    one = await RawEngine().start()
    yield one
    await one.stop()


@pytest.fixture
async def start_proxy(tmp_path: Path) -> AsyncIterator[StartProxy]:
    running: list[Proxy] = []

    async def start(registry: dict[str, Any], *, probed: bool = True, **settings: Any) -> Proxy:
        file = tmp_path / "endpoints.json"
        file.write_text(json.dumps(registry))
        key = tmp_path / "key"
        key.write_text(KEY + "\n")
        chosen = Settings(
            **{
                "registry": file,
                "port": 0,
                "admin_key_file": key,
                "registry_poll_s": 0.05,
                # one probe at the start; tests that want more ask for them
                "probe_interval_s": 3600.0,
                "shutdown_grace_s": 10.0,
                **settings,
            }
        )
        first, source, version = first_registry(chosen, {})
        app = create_app(chosen, first, source=source, version=version)
        server = ProxyServer(app)
        proxy = Proxy(server, await server.start(), app[GATEWAY], app[GATEWAY].monitor, file)
        running.append(proxy)
        if probed:
            pool = proxy.gateway.pool
            await until(
                lambda: all(item.health.probed_at is not None for item in pool.everyone()), "first probes"
            )
        return proxy

    yield start
    for proxy in running:
        await proxy.client.close()
        await proxy.server.stop()
        assert proxy.in_flight == 0
        assert proxy.gateway.lifecycle.active == 0
