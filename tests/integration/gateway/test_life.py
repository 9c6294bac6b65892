from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.unit.registry.broken import BROKEN

from .conftest import KEY, StartProxy, at, document, until
from .fake_engine import CHUNKS, FakeEngine

Engines = Callable[[int], Awaitable[list[FakeEngine]]]
ADMIN = {"Authorization": f"Bearer {KEY}"}


async def test_a_running_proxy_outlives_every_broken_registry(
    engines: Engines, start_proxy: StartProxy
) -> None:
    first, second = await engines(2)
    proxy = await start_proxy(document(5, m=[at(first, "a")]))
    status = proxy.gateway.keeper.status
    for number, case in enumerate(BROKEN, start=1):
        proxy.write(case.text)
        await until(lambda count=number: status.refused == count, f"{case.name} is refused")  # type: ignore[misc]
        assert (await proxy.chat())[0] == 200
    _, shown = await proxy.get("/admin/registry", headers=ADMIN)
    assert (shown["generation"], shown["in_step"], shown["refused"]) == (5, False, len(BROKEN))
    assert shown["problems"]
    proxy.write(document(4, other=[at(second, "b")]))
    await until(lambda: status.refused == len(BROKEN) + 1, "a lower generation is refused")
    assert "generation 4 is lower than 5" in status.problems[0]
    assert (await proxy.chat())[0] == 200
    text = proxy.gateway.metrics.render().decode()
    assert f"modelyard_registry_refused {len(BROKEN) + 1}.0" in text
    assert "modelyard_registry_in_step 0.0" in text
    proxy.write(document(6, other=[at(second, "b")]))
    await until(lambda: proxy.gateway.keeper.current.generation == 6, "the good one is taken")
    assert (await proxy.chat("other"))[0] == 200
    assert (await proxy.chat("m"))[0] == 404
    _, shown = await proxy.get("/admin/registry", headers=ADMIN)
    assert (shown["generation"], shown["in_step"], shown["problems"]) == (6, True, [])


async def test_a_removed_replica_finishes_its_stream(engines: Engines, start_proxy: StartProxy) -> None:
    old, new = await engines(2)
    proxy = await start_proxy(document(1, m=[at(old, "a")]))
    old.script.append("hold")
    task = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: old.active == 1, "the stream runs")
    proxy.write(document(2, m=[at(new, "b")]))
    await until(lambda: proxy.gateway.pool.get("b") is not None, "the reload")
    _, shown = await proxy.get("/admin/replicas", headers=ADMIN)
    assert {(row["id"], row["state"], row["in_flight"]) for row in shown["replicas"]} >= {("a", "removed", 1)}
    _, _, response = await proxy.chat()
    assert response.headers["x-modelyard-replica"] == "b"
    old.gate.set()
    status, data, _ = await task
    assert (status, data) == (200, b"".join(CHUNKS))
    assert [replica.id for replica in proxy.gateway.pool.everyone()] == ["b"]
    assert b'replica="a"' not in proxy.gateway.metrics.render()


async def test_a_reload_keeps_what_is_known_of_survivors(engines: Engines, start_proxy: StartProxy) -> None:
    kept, moved, elsewhere = await engines(3)
    proxy = await start_proxy(document(1, m=[at(kept, "a"), at(moved, "b")]))
    before = {name: proxy.gateway.pool.get(name) for name in ("a", "b")}
    proxy.write(document(2, m=[at(kept, "a", weight=2), at(elsewhere, "b")]))
    await until(lambda: proxy.gateway.keeper.current.generation == 2, "the reload")
    after = {name: proxy.gateway.pool.get(name) for name in ("a", "b")}
    assert after["a"] is before["a"]
    assert after["a"] is not None
    assert after["a"].endpoint.weight == 2
    assert after["b"] is not before["b"]
    await until(lambda: elsewhere.probes > 0, "the moved replica is probed at its new address")
    assert kept.probes == 2


async def test_draining_and_expired_replicas_get_nothing_new(
    engines: Engines, start_proxy: StartProxy
) -> None:
    one, two, three = await engines(3)
    proxy = await start_proxy(
        document(
            m=[
                at(one, "a", state="draining"),
                at(two, "b", expires_at="2020-01-01T00:00:00Z"),
                at(three, "c"),
            ]
        )
    )
    for _ in range(4):
        _, _, response = await proxy.chat()
        assert response.headers["x-modelyard-replica"] == "c"
    _, shown = await proxy.get("/admin/replicas", headers=ADMIN)
    assert [row["state"] for row in shown["replicas"]] == ["draining", "expired", "ready"]


async def test_probes_take_a_replica_out_and_back(engines: Engines, start_proxy: StartProxy) -> None:
    one, two = await engines(2)
    proxy = await start_proxy(document(m=[at(one, "a"), at(two, "b")]), probe_interval_s=0.02)
    replica = proxy.gateway.pool.get("a")
    assert replica is not None
    one.live = 503
    await until(lambda: replica.health.state.value == "failing", "it fails")
    assert replica.health.reason == "/health answers 503"
    for _ in range(4):
        assert (await proxy.chat())[2].headers["x-modelyard-replica"] == "b"
    one.live, one.ready = 200, 404
    await until(lambda: replica.health.state.value == "starting", "alive, not ready")
    one.ready = 200
    await until(lambda: replica.health.state.value == "ready", "it is back")


async def test_ready_waits_for_the_first_probe(engines: Engines, start_proxy: StartProxy) -> None:
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    endpoint = {"id": "a", "url": f"http://127.0.0.1:{port}", "engine": "vllm"}
    proxy = await start_proxy(document(m=[endpoint]), probed=False)
    status, data = await proxy.get("/ready")
    assert (status, data["ready"]) == (503, False)
    assert (await proxy.get("/live"))[0] == 200
    await proxy.client.close()
    await proxy.server.stop()
    silent.close()
    for writer in held:
        writer.close()
        await writer.wait_closed()


async def test_shutdown_finishes_what_has_begun(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]))
    engine.script.append("hold")
    stream = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: engine.active == 1, "the stream runs")
    async with aiohttp.ClientSession(proxy.url) as keeping:
        async with keeping.get("/ready") as response:
            assert response.status == 200
        stopping = asyncio.create_task(proxy.server.stop())
        await until(lambda: proxy.gateway.lifecycle.draining, "it drains")
    async with aiohttp.ClientSession() as late:
        with pytest.raises(aiohttp.ClientConnectorError):
            await late.get(f"{proxy.url}/live")
    assert not stopping.done()
    engine.gate.set()
    status, data, _ = await stream
    assert (status, data) == (200, b"".join(CHUNKS))
    report = await stopping
    assert (report.running, report.cut, report.models) == (1, 0, {})


async def test_ready_turns_false_before_the_port_closes(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]), drain_delay_s=600.0)
    hurry = asyncio.Event()
    stopping = asyncio.create_task(proxy.server.stop(hurry))
    await until(lambda: proxy.gateway.lifecycle.draining, "it drains")
    assert await proxy.get("/ready") == (503, {"ready": False, "status": "draining"})
    assert (await proxy.get("/live"))[0] == 200
    assert (await proxy.chat())[0] == 200
    hurry.set()
    await stopping


async def test_shutdown_cuts_what_does_not_end(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]), shutdown_grace_s=0.1)
    engine.script.append("hold")
    stream = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: engine.active == 1, "the stream runs")
    report = await proxy.server.stop()
    assert (report.running, report.cut, report.models) == (1, 1, {"m": 1})
    assert str(report) == "0 requests finished, 1 cut (1 of m)"
    with pytest.raises(aiohttp.ClientError):
        await stream
    await until(engine.abandoned.is_set, "the engine is told")
