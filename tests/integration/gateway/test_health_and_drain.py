"""Replicas that hang, refuse our probes or are taken out by the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modelyard.gateway.replicas import Replica

from .conftest import KEY, Proxy, StartProxy, at, document, until
from .fake_engine import CHUNKS, FakeEngine

Engines = Callable[[int], Awaitable[list[FakeEngine]]]
ADMIN = {"Authorization": f"Bearer {KEY}"}
STUCK = b"vllm:num_requests_running 1\nvllm:iteration_tokens_total_count 10\nvllm:kv_cache_usage_perc 0.5\n"


def replica_of(proxy: Proxy, name: str) -> Replica:
    found = proxy.gateway.pool.get(name)
    assert found is not None
    return found


async def rows(proxy: Proxy) -> dict[str, Any]:
    _, shown = await proxy.get("/admin/replicas", headers=ADMIN)
    return {row["id"]: row for row in shown["replicas"]}


async def answered_by(proxy: Proxy, times: int = 4) -> set[str]:
    found = set()
    for _ in range(times):
        status, _, response = await proxy.chat()
        assert status == 200
        found.add(response.headers["x-modelyard-replica"])
    return found


@pytest.mark.parametrize(("action", "left"), [("alarm", {"a", "b"}), ("eject", {"b"})])
async def test_an_engine_that_stands_still_with_work_is_hung(
    engines: Engines, start_proxy: StartProxy, action: str, left: set[str]
) -> None:
    one, two = await engines(2)
    one.page = STUCK
    proxy = await start_proxy(
        document(m=[at(one, "a"), at(two, "b")]),
        probe_interval_s=0.02,
        hung_after_s=0.1,
        hung_action=action,
    )
    await until(lambda: replica_of(proxy, "a").health.hung_since is not None, "it is hung")
    shown = await rows(proxy)
    assert (shown["a"]["state"], shown["a"]["health"], shown["b"]["state"]) == ("hung", "ready", "ready")
    assert shown["a"]["load"]["running"] == 1.0
    assert shown["a"]["reason"] == "it has work and makes no progress"
    text = proxy.gateway.metrics.render().decode()
    assert 'modelyard_replica_hung{model="m",replica="a"} 1.0' in text
    assert 'modelyard_replica_state{model="m",replica="a",state="hung"} 1.0' in text
    assert 'modelyard_replica_engine_kv_usage{model="m",replica="a"} 0.5' in text
    assert 'modelyard_replica_engine_running{model="m",replica="b"}' not in text
    assert {replica.id for replica in proxy.gateway.balancer.usable("m")} == left
    one.page = STUCK.replace(b"10", b"11").replace(b"running 1", b"running 0")
    await until(lambda: replica_of(proxy, "a").health.hung_since is None, "it moves again")
    assert await answered_by(proxy) == {"a", "b"}
    assert (replica_of(proxy, "a").came_back_at is not None) is (action == "eject")


async def test_a_stream_that_flows_is_progress(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]))
    replica = replica_of(proxy, "a")
    assert (await proxy.chat(stream=True))[0] == 200
    flowed = replica.heard
    assert flowed >= len(CHUNKS)
    engine.script.append(400)
    assert (await proxy.chat())[0] == 400
    assert replica.heard == flowed
    assert replica.owed == 0


async def test_what_has_not_begun_to_answer_is_owed(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]))
    replica = replica_of(proxy, "a")
    engine.script.extend(["hang", "hold"])
    silent = asyncio.create_task(proxy.chat())
    await until(lambda: engine.active == 1, "the first runs")
    begun = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: replica.heard > 0, "the second has begun")
    assert (replica.in_flight, replica.owed) == (2, 1)
    silent.cancel()
    engine.gate.set()
    await begun
    await until(lambda: replica.in_flight == 0, "both are over")
    assert replica.owed == 0


async def test_an_engine_that_wants_another_key_is_left_out_and_says_why(
    engines: Engines, start_proxy: StartProxy
) -> None:
    one, two = await engines(2)
    one.ready = 401
    proxy = await start_proxy(document(m=[at(one, "a"), at(two, "b")], n=[at(one, "c")]))
    assert await answered_by(proxy) == {"b"}
    row = (await rows(proxy))["a"]
    assert (row["state"], row["reason"]) == ("unauthorised", "/v1/models answers 401: wrong or missing key")
    status, data, _ = await proxy.chat("n")
    assert status == 503
    assert "c is unauthorised" in data["error"]["message"]
    one.ready = 200
    await proxy.monitor.look_now(replica_of(proxy, "a"))
    assert await answered_by(proxy) == {"a", "b"}


async def test_a_full_engine_is_used_only_when_no_other_is_left(
    engines: Engines, start_proxy: StartProxy
) -> None:
    one, two = await engines(2)
    one.live = 429
    proxy = await start_proxy(document(m=[at(one, "a"), at(two, "b")]))
    assert (await rows(proxy))["a"]["state"] == "busy"
    assert await answered_by(proxy) == {"b"}
    _, listed = await proxy.get("/models/m/health")
    assert listed["healthy"] is True
    await two.stop()
    assert await answered_by(proxy, 1) == {"a"}


@pytest.mark.parametrize(("fault", "state"), [(503, "busy"), (502, "ready")])
async def test_an_engine_that_says_when_to_come_back_is_busy_until_the_next_look(
    engines: Engines, start_proxy: StartProxy, fault: int, state: str
) -> None:
    one, two = await engines(2)
    proxy = await start_proxy(document(m=[at(one, "a", weight=1000), at(two, "b")]))
    one.script.append(fault)
    _, _, response = await proxy.chat()
    assert (response.headers["x-modelyard-replica"], response.headers["x-modelyard-attempts"]) == ("b", "2")
    assert (await rows(proxy))["a"]["state"] == state
    if state == "busy":
        assert await answered_by(proxy) == {"b"}
    assert (await proxy.monitor.look_now(replica_of(proxy, "a"))).state.value == "ready"


async def test_a_silent_engine_fails_after_three_probes_and_a_streaming_one_does_not(
    engines: Engines, start_proxy: StartProxy
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]), probe_timeout_s=0.1)
    replica = replica_of(proxy, "a")
    engine.probe_gate = asyncio.Event()
    assert (await proxy.monitor.look_now(replica)).state.value == "busy"
    feeding = asyncio.create_task(_feed(replica))
    for _ in range(4):
        view = await proxy.monitor.look_now(replica)
        assert (view.state.value, view.failures) == ("busy", 0)
    feeding.cancel()
    for _ in range(3):
        view = await proxy.monitor.look_now(replica)
    assert view.state.value == "failing"
    engine.probe_gate.set()
    for _ in range(2):
        view = await proxy.monitor.look_now(replica)
    assert view.state.value == "ready"


async def _feed(replica: Replica) -> None:
    while True:
        replica.heard += 1
        await asyncio.sleep(0.01)


async def test_a_drained_replica_finishes_its_stream_and_gets_nothing_new(
    engines: Engines, start_proxy: StartProxy
) -> None:
    one, two = await engines(2)
    proxy = await start_proxy(document(m=[at(one, "a", weight=1000), at(two, "b")]))
    one.script.append("hold")
    stream = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: one.active == 1, "the stream runs")
    for _ in range(2):
        status, answer, _ = await proxy.post("/admin/replicas/a/drain", None, headers=ADMIN)
        assert (status, answer) == (
            200,
            {
                "id": "a",
                "model": "m",
                "state": "draining",
                "drained": True,
                "in_flight": 1,
                "model_usable": 1,
            },
        )
    assert await answered_by(proxy) == {"b"}
    row = (await rows(proxy))["a"]
    assert (row["state"], row["drained"], row["health"]) == ("draining", True, "ready")
    assert row["reason"] == "drained by the operator"
    one.gate.set()
    assert (await stream)[:2] == (200, b"".join(CHUNKS))
    _, answer, _ = await proxy.post("/admin/replicas/a/drain/", None, headers=ADMIN)
    assert answer["in_flight"] == 0
    for _ in range(2):
        status, answer, _ = await proxy.post("/admin/replicas/a/undrain", None, headers=ADMIN)
        assert (status, answer["state"], answer["model_usable"]) == (200, "ready", 2)
    assert replica_of(proxy, "a").came_back_at is not None
    assert "a" in await answered_by(proxy)


async def test_a_drain_outlives_reloads_and_moves_until_the_replica_is_removed(
    engines: Engines, start_proxy: StartProxy
) -> None:
    one, two, moved = await engines(3)
    proxy = await start_proxy(document(1, m=[at(one, "a"), at(two, "b")]))

    async def reload(generation: int, *endpoints: dict[str, Any]) -> None:
        proxy.write(document(generation, m=list(endpoints)))
        await until(lambda: proxy.gateway.keeper.current.generation == generation, "the reload")

    one.script.append("hold")
    await proxy.post("/admin/replicas/b/drain", None, headers=ADMIN)
    stream = asyncio.create_task(proxy.chat(stream=True))
    await until(lambda: one.active == 1, "the stream runs")
    await proxy.post("/admin/replicas/b/undrain", None, headers=ADMIN)
    await proxy.post("/admin/replicas/a/drain", None, headers=ADMIN)
    await reload(2, at(one, "a", weight=3), at(two, "b"))
    assert await answered_by(proxy) == {"b"}
    await reload(3, at(moved, "a"), at(two, "b"))
    await until(lambda: replica_of(proxy, "a").health.state.value == "ready", "the new address is probed")
    assert await answered_by(proxy) == {"b"}
    _, answer, _ = await proxy.post("/admin/replicas/a/drain", None, headers=ADMIN)
    # what the old address still finishes counts
    assert answer["in_flight"] == 1
    one.gate.set()
    await stream
    await reload(4, at(two, "b"))
    await reload(5, at(moved, "a"), at(two, "b"))
    assert replica_of(proxy, "a").drained is False


async def test_a_host_or_a_model_is_drained_whole(engines: Engines, start_proxy: StartProxy) -> None:
    one, two = await engines(2)
    proxy = await start_proxy(
        document(
            m={"aliases": ["alias"], "endpoints": [at(one, "a", host="gpu01"), at(two, "b", host="gpu02")]},
            n=[at(one, "c", host="gpu01")],
        )
    )
    status, answer, _ = await proxy.post("/admin/drain", {"host": "gpu01"}, headers=ADMIN)
    assert (status, answer["in_flight"]) == (200, 0)
    assert [(row["id"], row["state"], row["model_usable"]) for row in answer["replicas"]] == [
        ("a", "draining", 1),
        ("c", "draining", 0),
    ]
    assert await answered_by(proxy) == {"b"}
    await proxy.post("/admin/undrain", {"host": "gpu01"}, headers=ADMIN)
    await proxy.post("/admin/drain", {"model": "alias"}, headers=ADMIN)
    assert {name: row["drained"] for name, row in (await rows(proxy)).items()} == {
        "a": True,
        "b": True,
        "c": False,
    }
    status, data, _ = await proxy.chat()
    assert (status, data["error"]["code"]) == (503, "no_replica")


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/admin/replicas/aa/drain", None, 404, "did you mean 'a'?"),
        ("/admin/drain", {}, 400, '{"host": "<name>"}'),
        ("/admin/drain", {"host": "gpu01", "model": "m"}, 400, '{"host": "<name>"}'),
        ("/admin/drain", {"host": 3}, 400, "host must be a name"),
        ("/admin/undrain", {"host": "gpu0"}, 404, "did you mean 'gpu01'?"),
        ("/admin/undrain", {"model": "mm"}, 404, "did you mean 'm'?"),
    ],
)
async def test_a_wrong_drain_says_what_to_do(
    engines: Engines, start_proxy: StartProxy, path: str, body: Any, status: int, said: str
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a", host="gpu01")]))
    got, data, _ = await proxy.post(path, body, headers=ADMIN)
    assert got == status
    assert said in data["detail"]
    assert (await proxy.post(path, body))[0] == 401
    assert replica_of(proxy, "a").drained is False
