"""Start, load, disconnects and the end of a running engine."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from tests.tools.ports import free_ports

CHAT = {"messages": [{"role": "user", "content": "Once upon a time"}], "stream": True}


async def metric(session: aiohttp.ClientSession, name: str) -> float:
    async with session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"modelyard_echo_{name} "))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it never came true")


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "modelyard", "echo", "--port", str(port)], capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr == f"Error: port {port} on 127.0.0.1 is in use: choose another with --port.\n"


async def test_the_port_stays_closed_while_it_starts() -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "modelyard", "echo", "--port", str(port), "--start-delay", "3600"]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        # Once the address is taken (a second bind fails), it is still not open.
        async def bound() -> bool:
            with socket.socket() as other:
                try:
                    other.bind(("127.0.0.1", port))
                except OSError:
                    return True
            return False

        await until(bound)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_client_that_leaves_stops_the_generation(start_echo) -> None:
    engine = start_echo("--delay", "3600")
    async with aiohttp.ClientSession(engine.url) as session:
        for body in (CHAT, {**CHAT, "stream": False}):
            before = await metric(session, "requests_cancelled_total")
            request = asyncio.create_task(session.post("/v1/chat/completions", json=body))
            await until(lambda: _is(session, "requests_running", 1))
            request.cancel()
            (end,) = await asyncio.gather(request, return_exceptions=True)
            if isinstance(end, aiohttp.ClientResponse):  # the stream's headers were already there
                end.close()
            await until(lambda wanted=before + 1: _is(session, "requests_cancelled_total", wanted))  # type: ignore[misc]
            await until(lambda: _is(session, "requests_running", 0))
        assert await metric(session, "tokens_total") == 0


async def _is(session: aiohttp.ClientSession, name: str, wanted: float) -> bool:
    return await metric(session, name) == wanted


async def test_a_full_engine_queues_openai_and_refuses_tgi(start_echo) -> None:
    engine = start_echo("--max-concurrency", "1", "--delay", "3600")
    async with aiohttp.ClientSession(engine.url) as session:
        requests = [
            asyncio.create_task(session.post("/v1/completions", json={"prompt": "x"})) for _ in range(2)
        ]
        await until(lambda: _is(session, "requests_waiting", 1))
        assert await metric(session, "requests_running") == 1
        async with session.post("/generate", json={"inputs": "x"}) as response:
            assert response.status == 429
            assert await response.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        async with session.post("/generate_stream", json={"inputs": "x"}) as response:
            assert response.status == 200
            assert (
                await response.text()
                == 'data:{"error": "Model is overloaded", "error_type": "overloaded"}\n\n'
            )
        assert await metric(session, "requests_refused_total") == 2
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_has_begun_is_finished_and_new_requests_are_refused(start_echo, number: int) -> None:
    engine = start_echo("--token-rate", "4", "--grace", "60")
    # Three connections: one that streams, one idle that is kept alive, one that is refused.
    async with aiohttp.ClientSession(engine.url) as streaming, aiohttp.ClientSession(engine.url) as idle:
        async with idle.get("/health") as response:
            assert response.status == 200
        async with streaming.post("/v1/chat/completions", json=CHAT) as stream:
            body = await stream.content.readuntil(b"\n\n")
            engine.process.send_signal(number)
            await until(lambda: _refuses(engine.url))
            async with idle.post("/v1/completions", json={"prompt": "x"}) as response:
                assert response.status == 503
                assert (await response.json())["error"]["code"] == "unavailable"
                assert response.headers["Connection"] == "close"
            body += await stream.content.read()
    words = [json.loads(line[6:]) for line in body.decode().split("\n\n") if line.startswith("data: {")]
    assert "".join(word["choices"][0]["delta"]["content"] for word in words) == "Once upon a time"
    assert body.endswith(b"data: [DONE]\n\n")
    code, out, _ = await asyncio.to_thread(engine.finish)
    assert (code, json.loads(out)) == (0, {"event": "stopped", "cut": 0})


async def _refuses(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(url) as fresh, fresh.get("/health"):
            return False
    except aiohttp.ClientConnectorError:
        return True


@pytest.mark.parametrize(("grace", "signals"), [("0.1", 1), ("3600", 2)])
async def test_what_takes_longer_than_the_grace_time_is_cut(start_echo, grace: str, signals: int) -> None:
    """A second signal does not wait for the grace time."""
    engine = start_echo("--delay", "3600", "--grace", grace)
    async with aiohttp.ClientSession(engine.url) as session:
        request = asyncio.create_task(session.post("/v1/completions", json={"prompt": "x"}))
        await until(lambda: _is(session, "requests_running", 1))
        for _ in range(signals):
            engine.process.send_signal(signal.SIGTERM)
            await until(lambda: _refuses(engine.url))
        with pytest.raises(aiohttp.ClientError):
            await request
    code, out, _ = await asyncio.to_thread(engine.finish)
    assert (code, json.loads(out)) == (0, {"event": "stopped", "cut": 1})


async def test_a_killed_engine_breaks_the_stream(start_echo) -> None:
    engine = start_echo("--token-rate", "1")
    async with (
        aiohttp.ClientSession(engine.url) as session,
        session.post("/v1/chat/completions", json=CHAT) as stream,
    ):
        await stream.content.readuntil(b"\n\n")
        engine.process.kill()
        with pytest.raises(aiohttp.ClientError):
            await stream.read()
    assert engine.process.wait(20) == -signal.SIGKILL


async def test_the_instance_is_named_in_every_answer(start_echo) -> None:
    engine = start_echo()
    async with aiohttp.ClientSession(engine.url) as session:
        for path in ("/health", "/v1/models", "/nowhere"):
            async with session.get(path) as response:
                assert response.headers["x-echo-instance"] == str(engine.process.pid)
        async with session.post("/v1/chat/completions", json=CHAT) as response:
            assert response.headers["x-echo-instance"] == str(engine.process.pid)
