from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import modelyard

from .conftest import KEY, at, document
from .fake_engine import FakeEngine

Engines = Callable[[int], Awaitable[list[FakeEngine]]]
ADMIN = {"Authorization": f"Bearer {KEY}"}
PACKAGE = Path(modelyard.__file__).parents[1]


class Site:
    """A proxy of several processes and a client that opens a connection for each request."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.client = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(force_close=True, limit=0))

    async def get(self, path: str) -> Any:
        async with self.client.get(path, headers=ADMIN) as response:
            return await response.json()

    async def chat(self, *, stream: bool = False) -> int:
        body = {"model": "m", "messages": [], "stream": stream}
        async with self.client.post("/v1/chat/completions", json=body) as response:
            await response.read()
            return response.status

    async def metric(self, line: str) -> float:
        async with self.client.get("/metrics") as response:
            text = await response.text()
        found = [float(row.rpartition(" ")[2]) for row in text.splitlines() if row.startswith(line)]
        return found[0] if found else 0.0

    def workers(self) -> list[int]:
        """Process ids of those that run."""
        pid = self.process.pid
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def in_flight(self) -> int:
        return int((await self.get("/admin/replicas"))["replicas"][0]["in_flight"])


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def comes(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    async def holds() -> bool:
        try:
            return await condition()
        except aiohttp.ClientError:
            # a connection that had fallen to a worker as it was killed
            return False

    try:
        async with asyncio.timeout(30):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"did not happen: {what}")


@asynccontextmanager
async def serving(folder: Path, engine: FakeEngine, *options: str) -> AsyncIterator[Site]:
    file, key = folder / "endpoints.json", folder / "key"
    file.write_text(json.dumps(document(1, m=[at(engine, "a")])))
    key.write_text(KEY + "\n")
    arguments = ["--registry", file, "--port", 0, "--workers", 2, "--admin-key-file", key, "--json", *options]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelyard", "serve", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), "MODELYARD_REGISTRY_POLL_S": "0.05"},
    )
    assert process.stdout is not None
    try:
        first = json.loads(await process.stdout.readline())
        site = Site(process, first["url"])
        async with site.client:
            await comes(lambda: ready(site), "the workers are told that the replica is ready")
            yield site
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def ready(site: Site) -> bool:
    async with site.client.get("/ready") as response:
        return response.status == 200


async def holding(site: Site, engine: FakeEngine, count: int) -> list[asyncio.Task[int]]:
    """As many streams, begun and held."""
    engine.script.extend(["hold"] * count)
    tasks = [asyncio.create_task(site.chat(stream=True)) for _ in range(count)]

    async def begun() -> bool:
        rows = (await site.get("/admin/requests"))["requests"]
        return len(rows) == count and all(row["state"] == "streaming" for row in rows)

    await comes(begun, "all streams run")
    return tasks


async def test_two_workers_are_one_proxy(engines: Engines, tmp_path: Path) -> None:
    (engine,) = await engines(1)
    async with serving(tmp_path, engine) as site:
        streams = await holding(site, engine, 24)
        rows = (await site.get("/admin/requests"))["requests"]
        assert {row["worker"] for row in rows} == {0, 1}
        # whichever of them is asked
        assert {await site.in_flight() for _ in range(12)} == {24}
        assert await site.metric('modelyard_requests_running{model="m",state="streaming"}') == 24
        engine.gate.set()
        assert await asyncio.gather(*streams) == [200] * 24
        assert {await site.in_flight() for _ in range(12)} == {0}
        total = 'modelyard_requests_total{model="m",route="/v1/chat/completions",status="200"}'
        assert {await site.metric(total) for _ in range(8)} == {24}

        async with site.client.post("/admin/replicas/a/drain", headers=ADMIN) as response:
            assert response.status == 200

        async def drained() -> bool:
            return {await site.chat() for _ in range(12)} == {503}

        await comes(drained, "the drain reaches both")
        async with site.client.post("/admin/replicas/a/undrain", headers=ADMIN) as response:
            assert response.status == 200

        async def back() -> bool:
            return {await site.chat() for _ in range(12)} == {200}

        await comes(back, "both take it back")


async def test_a_killed_worker_costs_its_own_requests_and_is_replaced(
    engines: Engines, tmp_path: Path
) -> None:
    (engine,) = await engines(1)
    async with serving(tmp_path, engine) as site:
        streams = await holding(site, engine, 24)
        total = 'modelyard_requests_total{model="",route="/admin/requests",status="200"}'
        counted = await site.metric(total)
        assert counted > 0
        rows = (await site.get("/admin/requests"))["requests"]
        left = sum(row["worker"] == 1 for row in rows)
        victim, survivor = site.workers()
        os.kill(victim, signal.SIGKILL)

        async def vanished() -> bool:
            return {await site.in_flight() for _ in range(6)} <= {left, 24 - left}

        await comes(vanished, "what it had in flight is gone")

        async def replaced() -> bool:
            now = site.workers()
            return len(now) == 2 and survivor in now and victim not in now

        await comes(replaced, "another takes its place")
        engine.gate.set()
        done = await asyncio.gather(*streams, return_exceptions=True)
        assert sum(result == 200 for result in done) in (left, 24 - left)

        async def both() -> bool:
            return {await site.in_flight() for _ in range(6)} == {0}

        await comes(both, "nothing is left")
        assert {await site.chat() for _ in range(12)} == {200}
        # a counter never falls below what was shown
        assert await site.metric(total) >= counted


async def test_the_end_is_one_end(engines: Engines, tmp_path: Path) -> None:
    (engine,) = await engines(1)
    log = tmp_path / "access.log"
    async with serving(tmp_path, engine, "--access-log-file", str(log)) as site:
        streams = await holding(site, engine, 12)
        children = site.workers()
        site.process.send_signal(signal.SIGTERM)

        async def closed() -> bool:
            try:
                await site.get("/live")
            except aiohttp.ClientError:
                return True
            return False

        await comes(closed, "the port closes")
        engine.gate.set()
        assert await asyncio.gather(*streams) == [200] * 12
        assert site.process.stdout is not None
        told = json.loads(await site.process.stdout.readline())
        assert told == {"stopped": True, "running": 12, "cut": 0, "models": {}}
        assert await site.process.wait() == 0
        assert not alive(children)
        lines = await asyncio.to_thread(log.read_text)
        routes = [json.loads(line)["route"] for line in lines.splitlines()]
        assert routes.count("/v1/chat/completions") == 12


async def test_a_registry_reaches_every_worker(engines: Engines, tmp_path: Path) -> None:
    first, second = await engines(2)
    async with serving(tmp_path, first) as site:
        newer = tmp_path / "newer.json"
        newer.write_text(json.dumps(document(2, m=[at(second, "b")])))
        newer.replace(tmp_path / "endpoints.json")

        async def followed() -> bool:
            return await site.metric("modelyard_registry_generation") == 2

        await comes(followed, "the lowest generation is 2")
        before = len(first.requests)
        assert {await site.chat() for _ in range(12)} == {200}
        assert len(first.requests) == before


async def test_workers_that_cannot_begin_say_why(engines: Engines, tmp_path: Path) -> None:
    (engine,) = await engines(1)
    file = tmp_path / "endpoints.json"
    file.write_text(json.dumps(document(1, m=[at(engine, "a")])))
    log = tmp_path / "no" / "access.log"
    arguments = ["--registry", file, "--port", 0, "--workers", 2, "--access-log-file", log]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelyard", "serve", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"cannot be opened" in errors


async def test_a_kept_response_is_found_by_every_worker(engines: Engines, tmp_path: Path) -> None:
    (engine,) = await engines(1)
    engine.chunks = (b'data: {"type":"response.created","response":{"id":"resp_7"}}\n\n',)
    async with serving(tmp_path, engine) as site:
        body = {"model": "m", "input": "a", "stream": True}
        async with site.client.post("/v1/responses", json=body) as response:
            assert response.status == 200
            await response.read()

        async def found() -> bool:
            seen = set()
            for _ in range(12):
                async with site.client.get("/v1/responses/resp_7") as response:
                    seen.add(response.status)
            return seen == {200}

        await comes(found, "both know where it is kept")
        # and so does one that begins later
        os.kill(site.workers()[0], signal.SIGKILL)
        await comes(lambda: _count(site, 2), "another takes its place")
        await comes(found, "both know where it is kept")


async def _count(site: Site, count: int) -> bool:
    rows = await site.get("/admin/requests")
    return len(site.workers()) == count and "total" in rows


async def test_without_the_supervisor_the_workers_end_in_good_order(engines: Engines, tmp_path: Path) -> None:
    (engine,) = await engines(1)
    async with serving(tmp_path, engine) as site:
        streams = await holding(site, engine, 6)
        children = site.workers()
        site.process.kill()
        engine.gate.set()
        assert await asyncio.gather(*streams) == [200] * 6

        async def ended() -> bool:
            return not [pid for pid in children if _runs(pid)]

        await comes(ended, "the workers end")
        await site.process.wait()


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # nobody may be there to collect it
    return state != "Z"
