from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from modelyard.errors import ConfigError

from .conftest import KEY, StartProxy, at, document, until
from .fake_engine import FakeEngine

Engines = Callable[[int], Awaitable[list[FakeEngine]]]
ADMIN = {"Authorization": f"Bearer {KEY}"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_what_runs_is_listed_oldest_first(engines: Engines, start_proxy: StartProxy) -> None:
    first, second = await engines(2)
    proxy = await start_proxy(document(1, m=[at(first, "a")], n=[at(second, "b")]))
    first.script.append("hold")
    second.script.append("hang")
    named = {"headers": {"X-Request-Id": "mine"}}
    stream = asyncio.create_task(proxy.chat(stream=True, **named))
    running = proxy.gateway.pursuits.running
    await until(lambda: any(pursuit.state == "streaming" for pursuit in running), "the stream runs")
    waiting = asyncio.create_task(proxy.chat("n"))
    await until(lambda: second.active == 1, "the second waits")

    status, shown = await proxy.get("/admin/requests", headers=ADMIN)
    assert status == 200
    assert shown["total"] == 2
    old, new = shown["requests"]
    assert old["age_s"] >= new["age_s"] >= 0
    old.pop("age_s")
    assert old == {
        "id": "mine",
        "route": "/v1/chat/completions",
        "client": "127.0.0.1",
        "model": "m",
        "serving": "m",
        "replica": "a",
        "attempt": 1,
        "state": "streaming",
        "events": 1,
        "bytes": 15,
    }
    assert (new["replica"], new["state"], new["events"]) == ("b", "waiting", 0)
    _, shown = await proxy.get("/admin/requests?limit=1", headers=ADMIN)
    assert (shown["total"], [row["id"] for row in shown["requests"]]) == (2, ["mine"])
    for wrong in ("0", "x", "5001", "-1", "9" * 5000, "²"):
        status, told = await proxy.get("/admin/requests", params={"limit": wrong}, headers=ADMIN)
        assert (status, told["param"]) == (400, "limit")
    assert (await proxy.get("/admin/requests"))[0] == 401

    text = proxy.gateway.metrics.render().decode()
    assert 'modelyard_requests_running{model="m",state="streaming"} 1.0' in text
    assert 'modelyard_requests_running{model="n",state="waiting"} 1.0' in text
    first.gate.set()
    await stream
    waiting.cancel()
    await until(lambda: not running, "nothing runs")


async def test_explain_says_who_and_why_and_counts_nothing(engines: Engines, start_proxy: StartProxy) -> None:
    good, other, leaving, spare = await engines(4)
    sick = await FakeEngine().start()
    await sick.stop()
    proxy = await start_proxy(
        document(
            1,
            m={
                "aliases": ["nice"],
                "policy": "round_robin",
                "fallbacks": ["n"],
                "endpoints": [
                    at(good, "a"),
                    at(sick, "b"),
                    at(other, "c"),
                    at(leaving, "d", state="draining"),
                ],
            },
            n=[at(spare, "e")],
        )
    )
    for _ in range(3):
        status, told = await proxy.get("/admin/explain?model=nice", headers=ADMIN)
        assert status == 200
        assert (told["asked"], told["model"], told["serving"]) == ("nice", "m", "m")
        _, _, response = await proxy.chat()
        assert response.headers["x-modelyard-replica"] == told["chosen"]
    rows = {row["replica"]: row for row in told["models"][0]["replicas"]}
    assert [name for name, row in rows.items() if row["candidate"]] == ["a", "c"]
    assert rows["b"]["why"].startswith("failing: ")
    assert rows["d"]["why"].startswith("draining")
    assert [row["model"] for row in told["models"]] == ["m", "n"]
    assert (await proxy.get("/admin/explain", headers=ADMIN))[0] == 400
    assert (await proxy.get("/admin/explain?model=x", headers=ADMIN))[0] == 404
    assert (await proxy.get("/admin/explain?model=m"))[0] == 401


async def test_explain_names_the_fallback_that_would_serve(engines: Engines, start_proxy: StartProxy) -> None:
    (spare,) = await engines(1)
    proxy = await start_proxy(document(1, m={"endpoints": [], "fallbacks": ["n"]}, n=[at(spare, "e")]))
    _, told = await proxy.get("/admin/explain?model=m", headers=ADMIN)
    assert (told["chosen"], told["serving"]) == ("e", "n")


async def test_every_request_is_one_line_and_says_what_it_cost(
    engines: Engines, start_proxy: StartProxy, tmp_path: Path
) -> None:
    (engine,) = await engines(1)
    path = tmp_path / "access.log"
    proxy = await start_proxy(document(1, m=[at(engine, "a")]), access_log_file=path)
    secret = "canary-0451"
    heads = {"Authorization": f"Bearer {secret}", "X-Request-Id": "mine"}
    await proxy.post(
        f"/v1/completions?key={secret}", {"model": "m", "prompt": secret, "stream": True}, headers=heads
    )
    await proxy.post("/v1/completions", {"model": "m", "prompt": secret})
    await proxy.chat("unknown")
    await proxy.get("/live")
    engine.script.append("cut")
    with pytest.raises(Exception, match="payload"):
        await proxy.chat(stream=True)
    await until(lambda: len(lines(path)) == 5, "five lines")
    streamed, plain, unknown, live, cut = lines(path)
    assert secret not in path.read_text()
    moments = ("time", "seconds", "first_byte_s")
    assert all(streamed.pop(name) for name in moments)
    assert streamed == {
        "request_id": "mine",
        "client": "127.0.0.1",
        "method": "POST",
        "route": "/v1/completions",
        "model": "m",
        "status": 200,
        "error": None,
        "bytes": 44,
        "serving": "m",
        "replica": "a",
        "attempts": 1,
        "streamed": True,
        "prompt_tokens": None,
        "completion_tokens": 2,
    }
    assert (plain["completion_tokens"], plain["streamed"]) == (3, False)
    assert plain["bytes"] > 100
    assert (unknown["status"], unknown["error"], unknown["replica"]) == (404, "model_not_found", None)
    assert (live["route"], live["model"], live["status"]) == ("/live", None, 200)
    assert (cut["status"], cut["error"]) == (200, "upstream_broken")


async def test_behind_our_own_proxy_a_line_names_whom_that_serves_and_otherwise_the_connection(
    engines: Engines, start_proxy: StartProxy, tmp_path: Path
) -> None:
    (engine,) = await engines(1)
    heads = {"X-Forwarded-For": "192.0.2.66, 198.51.100.7"}
    for trusted, client in ((("127.0.0.0/8",), "198.51.100.7"), ((), "127.0.0.1")):
        path = tmp_path / f"{len(trusted)}.log"
        proxy = await start_proxy(
            document(1, m=[at(engine, "a")]), access_log_file=path, trusted_proxies=trusted
        )
        # by the lane, and by aiohttp
        await proxy.post("/v1/completions", {"model": "m", "prompt": "x"}, headers=heads)
        await proxy.get("/v1/models", headers=heads)
        await until(lambda path=path: len(lines(path)) == 2, "both lines")  # type: ignore[misc]
        assert [line["client"] for line in lines(path)] == [client] * 2


async def test_the_log_survives_rotation_and_loses_no_line_at_the_end(
    engines: Engines, start_proxy: StartProxy, tmp_path: Path
) -> None:
    (engine,) = await engines(1)
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    proxy = await start_proxy(document(1, m=[at(engine, "a")]), access_log_file=path)
    log = proxy.gateway.access_log
    assert log is not None
    await proxy.get("/live")
    await until(lambda: len(lines(path)) == 1, "the first line")
    path.rename(moved)
    log.reopen()
    await until(path.exists, "a new file")
    for _ in range(3):
        await proxy.get("/live")
    await proxy.server.stop()
    assert (len(lines(moved)), len(lines(path))) == (1, 3)
    assert path.stat().st_mode & 0o007 == 0


async def test_a_log_that_cannot_be_opened_is_an_error_at_the_start(
    engines: Engines, start_proxy: StartProxy, tmp_path: Path
) -> None:
    (engine,) = await engines(1)
    with pytest.raises(ConfigError, match=r"cannot be opened.*--access-log-file"):
        await start_proxy(document(1, m=[at(engine, "a")]), access_log_file=tmp_path / "no" / "access.log")


async def test_a_full_disk_costs_lines_and_nothing_else(
    engines: Engines, start_proxy: StartProxy, tmp_path: Path
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(1, m=[at(engine, "a")]), access_log_file=Path("/dev/full"))
    assert (await proxy.chat())[0] == 200
    log = proxy.gateway.access_log
    assert log is not None
    await until(lambda: log.dropped == 1, "the line is counted")
    assert (await proxy.chat())[0] == 200
    assert b"modelyard_access_log_dropped_total 1.0" in proxy.gateway.metrics.render()


async def test_tokens_and_times_of_real_answers_are_counted(
    engines: Engines, start_proxy: StartProxy
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(1, m=[at(engine, "a")]))
    await proxy.chat(stream=True)
    await proxy.chat()
    text = proxy.gateway.metrics.render().decode()
    for line in (
        'modelyard_tokens_total{kind="completion",model="m",source="counted"} 2.0',
        'modelyard_tokens_total{kind="completion",model="m",source="usage"} 3.0',
        'modelyard_first_byte_seconds_count{model="m"} 2.0',
        'modelyard_time_to_first_token_seconds_count{model="m"} 1.0',
        'modelyard_time_per_output_token_seconds_count{model="m"} 1.0',
        'modelyard_overhead_seconds_count{model="m"} 2.0',
        'modelyard_requests_total{model="m",route="/v1/chat/completions",status="200"} 2.0',
    ):
        assert line in text


@pytest.mark.parametrize("more", [{}, {"Connection": "close"}], ids=["lane", "aiohttp"])
async def test_a_trace_goes_on_to_the_engine(
    engines: Engines, start_proxy: StartProxy, more: dict[str, str]
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(1, m=[at(engine, "a")]))
    trace = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=00f067aa0ba902b7",
    }
    async with aiohttp.ClientSession(proxy.url) as client:
        body = {"model": "m", "messages": []}
        async with client.post("/v1/chat/completions", json=body, headers={**trace, **more}) as response:
            assert response.status == 200
    _, heads, _ = engine.requests[-1]
    assert trace.items() <= {name.lower(): value for name, value in heads.items()}.items()
