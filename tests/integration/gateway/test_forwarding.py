from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import StartProxy, at, document, until
from .fake_engine import CHUNKS, FakeEngine

Engines = Callable[[int], Awaitable[list[FakeEngine]]]
# For engines that say nothing; a loaded machine must not make a good one look so. With a long connect_s: were it
# added to the others, these tests would not end in time.
FAST = {"connect_s": 300, "first_byte_s": 1, "idle_s": 1}


async def test_a_stream_passes_byte_for_byte(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "h.m.0")]))
    status, data, response = await proxy.chat(stream=True, headers={"x-request-id": "abc-1"})
    assert (status, data) == (200, b"".join(CHUNKS))
    assert response.headers["x-modelyard-replica"] == "h.m.0"
    assert response.headers["x-modelyard-attempts"] == "1"
    assert response.headers["x-modelyard-request-id"] == "abc-1"
    assert "Set-Cookie" not in response.headers
    assert proxy.in_flight == 0


async def test_what_an_engine_sees(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(
        document(m={"aliases": ["org/m"], "endpoints": [at(engine, "a", served_name="big")]})
    )
    headers = {
        "Authorization": "Bearer client-secret",
        "Cookie": "session=1",
        "X-Api-Key": "client-secret",
        "X-Forwarded-For": "6.6.6.6",
        "Forwarded": "for=6.6.6.6",
        "X-Drop": "me",
        "Connection": "close, X-Drop",
        "X-Keep": "yes",
        "X-Request-Id": "http://evil/ {",
        "Host": "proxy.example.org",
    }
    await proxy.chat("org/m", headers=headers)
    path, seen, body = engine.requests[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "big"
    lowered = {name.lower(): value for name, value in seen.items()}
    assert lowered["x-keep"] == "yes"
    assert lowered["host"] == engine.url.removeprefix("http://")
    assert len(lowered["x-request-id"]) == 32
    for name in ("authorization", "cookie", "x-api-key", "x-forwarded-for", "forwarded", "x-drop"):
        assert name not in lowered
    assert "client-secret" not in json.dumps(seen)


async def test_forwarding_headers_of_a_trusted_proxy_pass(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]), trusted_proxies=("127.0.0.0/8",))
    await proxy.chat(headers={"X-Forwarded-For": "10.1.2.3", "Authorization": "Bearer x"})
    assert engine.requests[0][1]["X-Forwarded-For"] == "10.1.2.3"
    assert "Authorization" not in engine.requests[0][1]


@pytest.mark.parametrize("fault", ["reset", "hang", "head", 502, 503, 504, 302])
async def test_a_failure_before_the_first_byte_is_retried_elsewhere(
    engines: Engines, start_proxy: StartProxy, fault: str | int
) -> None:
    bad, good = await engines(2)
    silent = fault in ("hang", "head")
    timeouts = FAST if silent else {}
    proxy = await start_proxy(document(m={"timeouts": timeouts, "endpoints": [at(bad, "a"), at(good, "b")]}))
    bad.script.extend([fault] * 4)
    count = 1 if silent else 2
    for _ in range(count):
        status, data, response = await proxy.chat(stream=True)
        assert (status, data) == (200, b"".join(CHUNKS))
        assert response.headers["x-modelyard-replica"] == "b"
    assert bad.requests
    assert len(good.requests) == count
    assert proxy.in_flight == 0


async def test_a_refused_connection_is_retried_and_takes_the_replica_out(
    engines: Engines, start_proxy: StartProxy
) -> None:
    bad, good = await engines(2)
    proxy = await start_proxy(document(m=[at(bad, "a"), at(good, "b")]), probe_failures=2)
    await bad.stop()
    for _ in range(6):
        status, _, response = await proxy.chat()
        assert (status, response.headers["x-modelyard-replica"]) == (200, "b")
    replica = proxy.gateway.pool.get("a")
    assert replica is not None
    await until(lambda: replica.health.state.value == "failing", "the dead replica is marked")
    assert replica.health.reason == "connection refused"


async def test_the_retry_knows_its_bounds(engines: Engines, start_proxy: StartProxy) -> None:
    fleet = await engines(4)
    proxy = await start_proxy(
        document(m=[at(engine, f"r{n}") for n, engine in enumerate(fleet)]), max_attempts=2
    )
    for engine in fleet:
        engine.script.append(503)
    status, data, response = await proxy.chat()
    assert status == 503
    assert response.headers["Retry-After"] == "7"
    assert data["error"]["code"] == "upstream_unavailable"
    assert "2 replicas were tried for model 'm'" in data["error"]["message"]
    assert sum(len(engine.requests) for engine in fleet) == 2


@pytest.mark.parametrize("status", [0, 101, 600, 999])
async def test_a_status_that_answers_nothing_is_no_answer(
    engines: Engines, start_proxy: StartProxy, status: int
) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.write(b"HTTP/1.1 %03d Odd\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    (good,) = await engines(1)
    async with await asyncio.start_server(odd, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bad = {"id": "a", "url": f"http://127.0.0.1:{port}", "engine": "vllm"}
        proxy = await start_proxy(document(m=[bad, at(good, "b")]))
        for _ in range(2):
            got, _, response = await proxy.chat()
            assert (got, response.headers["x-modelyard-replica"]) == (200, "b")
        assert 'result="upstream_broken"' in proxy.gateway.metrics.render().decode()


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500])
async def test_other_answers_are_answers(engines: Engines, start_proxy: StartProxy, status: int) -> None:
    first, second = await engines(2)
    proxy = await start_proxy(document(m=[at(first, "a"), at(second, "b")]))
    first.script.append(status)
    second.script.append(status)
    got, data, _ = await proxy.chat()
    assert (got, data) == (status, {"error": {"message": f"engine says {status}"}})
    # another replica may have room
    assert len(first.requests) + len(second.requests) == (2 if status == 429 else 1)
    states = {item.health.state.value for item in proxy.gateway.pool.everyone()}
    assert states == ({"busy", "ready"} if status == 429 else {"ready"})


async def test_fallbacks_come_after_all_replicas(engines: Engines, start_proxy: StartProxy) -> None:
    dead, spare = await engines(2)
    proxy = await start_proxy(
        document(
            big={"fallbacks": ["small"], "endpoints": [at(dead, "big.0")]},
            small=[at(spare, "small.0", served_name="tiny")],
        )
    )
    dead.script.append(503)
    status, data, response = await proxy.chat("big")
    assert (status, data["model"]) == (200, "tiny")
    assert response.headers["x-modelyard-replica"] == "small.0"
    assert response.headers["x-modelyard-attempts"] == "2"


async def test_a_fallback_opens_no_reserved_model(engines: Engines, start_proxy: StartProxy) -> None:
    dead, spare = await engines(2)
    proxy = await start_proxy(
        document(
            open={"fallbacks": ["closed"], "endpoints": [at(dead, "a")]},
            closed={"clients": ["alice"], "endpoints": [at(spare, "b")]},
        )
    )
    dead.script.append(503)
    assert (await proxy.chat("open"))[0] == 503
    assert spare.requests == []


async def test_no_replica_at_all(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    engine.live = 500
    proxy = await start_proxy(
        document(m=[at(engine, "a")], empty=[], off=[at(engine, "c", state="disabled")])
    )
    for model, why in (
        ("m", "a is failing (/health answers 500)"),
        ("empty", "no endpoints"),
        ("off", "c is disabled"),
    ):
        status, data, response = await proxy.chat(model)
        assert status == 503
        assert data["error"]["code"] == "no_replica"
        assert why in data["error"]["message"]
        assert response.headers["Retry-After"] == "5"
    assert engine.requests == []


@pytest.mark.parametrize(("fault", "event"), [("cut", True), ("stall", True), ("cut inside", False)])
async def test_a_broken_stream_is_never_ended_politely(
    engines: Engines, start_proxy: StartProxy, fault: str, event: bool
) -> None:
    first, second = await engines(2)
    timeouts = FAST if fault == "stall" else {}
    proxy = await start_proxy(
        document(m={"timeouts": timeouts, "endpoints": [at(first, "a"), at(second, "b")]})
    )
    first.script.append(fault)
    second.script.append(fault)
    got = b""
    whole = True
    async with proxy.client.post("/v1/chat/completions", json={"model": "m", "stream": True}) as response:
        try:
            async for chunk in response.content.iter_any():
                got += chunk
        except aiohttp.ClientPayloadError:
            whole = False
    assert not whole
    assert got.startswith(CHUNKS[0])
    assert b"[DONE]" not in got
    if event:
        last = json.loads(got.removeprefix(CHUNKS[0]).removeprefix(b"data: "))
        assert last["error"]["code"] in ("upstream_broken", "upstream_timeout")
    else:
        assert got == CHUNKS[0] + CHUNKS[1][:7]
    assert len(first.requests) + len(second.requests) == 1
    await until(lambda: proxy.gateway.lifecycle.active == 0, "the request has ended")
    assert b"modelyard_broken_streams_total{" in proxy.gateway.metrics.render()


async def test_a_cut_answer_that_was_read_whole_is_retried(engines: Engines, start_proxy: StartProxy) -> None:
    first, second = await engines(2)
    proxy = await start_proxy(document(m=[at(first, "a", "tgi"), at(second, "b", "tgi")]))
    first.script.append("short")
    for _ in range(2):
        status, data, _ = await proxy.post("/generate", {"model_id": "m", "prompt": "x"})
        assert (status, data["generated_text"]) == (200, "tgi:x")
    assert len(first.requests) + len(second.requests) == 3


@pytest.mark.parametrize("fault", ["hang", "head", "hold"])
async def test_a_client_that_leaves_frees_the_engine(
    engines: Engines, start_proxy: StartProxy, fault: str
) -> None:
    first, second = await engines(2)
    proxy = await start_proxy(document(m=[at(first, "a"), at(second, "b")]))
    first.script.append(fault)
    second.script.append(fault)
    task = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: first.active + second.active == 1, "the engine works")
    assert proxy.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: first.abandoned.is_set() or second.abandoned.is_set(), "the engine is told")
    await until(lambda: proxy.in_flight == 0, "the count falls")
    assert len(first.requests) + len(second.requests) == 1
    assert {item.health.failures for item in proxy.gateway.pool.everyone()} == {0}
    await until(lambda: b'status="499"' in proxy.gateway.metrics.render(), "it is counted as 499")


async def test_the_total_deadline_ends_it(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(
        document(m={"timeouts": {"total_s": 0.3}, "fallbacks": ["n"], "endpoints": [at(engine, "a")]}, n=[])
    )
    engine.script.append("hang")
    status, data, _ = await proxy.chat()
    assert (status, data["error"]["code"]) == (504, "deadline_exceeded")
    await until(engine.abandoned.is_set, "the engine is told")


async def test_a_stale_connection_is_no_failure(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]))
    assert (await proxy.chat())[0] == 200
    engine.script.append("reset")
    status, _, response = await proxy.chat()
    assert (status, response.headers["x-modelyard-attempts"]) == (200, "1")


async def test_load_is_spread(engines: Engines, start_proxy: StartProxy) -> None:
    fleet = await engines(3)
    proxy = await start_proxy(document(m=[at(engine, f"r{n}") for n, engine in enumerate(fleet)]))
    for engine in fleet:
        engine.script.extend(["hold"] * 9)
    tasks = [asyncio.create_task(proxy.chat(stream=True)) for _ in range(9)]
    await until(lambda: sum(engine.active for engine in fleet) == 9, "all are at work")
    assert [engine.active for engine in fleet] == [3, 3, 3]
    for engine in fleet:
        engine.gate.set()
    assert {status for status, _, _ in await asyncio.gather(*tasks)} == {200}
    assert proxy.in_flight == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=12))
async def test_any_chunking_gives_the_same_bytes(chunks: list[bytes]) -> None:
    # the fixtures live for one test, this makes its own pair for each example
    engine = await FakeEngine().start()
    try:
        await _one_pass(engine, chunks)
    finally:
        await engine.stop()


async def _one_pass(engine: FakeEngine, chunks: list[bytes]) -> None:
    from modelyard.gateway.app import create_app
    from modelyard.gateway.server import ProxyServer
    from modelyard.registry.load import load_text
    from modelyard.settings import Settings

    engine.chunks = tuple(chunks)
    registry = load_text(json.dumps(document(m=[at(engine, "a")])), "r")
    server = ProxyServer(create_app(Settings(port=0), registry, source="r"))
    url = await server.start()
    try:
        body: dict[str, Any] = {"model": "m", "stream": True}
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{url}/v1/completions", json=body) as response,
        ):
            assert await response.read() == b"".join(chunks)
    finally:
        await server.stop()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.integers(0, 60), fault=st.sampled_from(["ok", "hang", "hold", "reset"]))
async def test_a_cancel_at_any_point_gives_everything_back(turns: int, fault: str) -> None:
    from modelyard.gateway.app import GATEWAY, create_app
    from modelyard.gateway.server import ProxyServer
    from modelyard.registry.load import load_text
    from modelyard.settings import Settings

    engine = await FakeEngine().start()
    registry = load_text(json.dumps(document(m=[at(engine, "a")])), "r")
    app = create_app(Settings(port=0, probe_interval_s=3600), registry, source="r")
    server = ProxyServer(app)
    url = await server.start()
    engine.script.append(fault)
    gateway = app[GATEWAY]

    async def ask() -> None:
        async with (
            aiohttp.ClientSession() as client,
            client.post(f"{url}/v1/completions", json={"model": "m", "stream": True}) as response,
        ):
            await response.read()

    task = asyncio.create_task(ask())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: gateway.lifecycle.active == 0, "no request is left")
    assert [replica.in_flight for replica in gateway.pool.everyone()] == [0]
    await server.stop()
    await engine.stop()
