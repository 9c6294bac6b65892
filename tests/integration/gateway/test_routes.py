from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import yarl

from modelyard.gateway.routes import ROUTES

from .conftest import KEY, Proxy, StartProxy, at, document, until
from .fake_engine import FakeEngine

Engines = Callable[[int], Awaitable[list[FakeEngine]]]


@pytest.fixture
async def fleet(engines: Engines) -> list[FakeEngine]:
    return await engines(2)


@pytest.fixture
async def proxy(fleet: list[FakeEngine], start_proxy: StartProxy) -> Proxy:
    models: dict[str, Any] = {
        "qwen2.5-7b": {
            "name": "Qwen",
            "hf_name": "Qwen/Qwen2.5-7B",
            "aliases": ["Qwen/Q"],
            "endpoints": [at(fleet[0], "h.q.0", served_name="served")],
        },
        "gpt-2": {"name": "GPT-2", "hf_name": "gpt2", "endpoints": [at(fleet[1], "h.g.0", "tgi")]},
        "dead": {"endpoints": [{"id": "h.d.0", "url": "http://127.0.0.1:9", "engine": "vllm"}]},
        "embedder": {"task": "embed", "endpoints": [at(fleet[0], "h.e.0")]},
        "closed": {"clients": ["alice"], "endpoints": [at(fleet[0], "h.c.0")]},
    }
    return await start_proxy(
        document(**models), max_body_bytes=8192, allowed_origins=("https://chat.example.org",)
    )


async def test_models_as_the_generation_backend_lists_them(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    status, models = await proxy.get("/models")
    assert status == 200
    by_id = {model["id"]: model for model in models}
    assert by_id["gpt-2"] == {
        "id": "gpt-2",
        "name": "GPT-2",
        "hf_name": "gpt2",
        "endpoint": fleet[1].url,
        "available": True,
    }
    assert by_id["dead"]["available"] is False
    assert await proxy.get("/models/gpt-2/health/") == (
        200,
        {"model_id": "gpt-2", "endpoint": fleet[1].url, "healthy": True, "status": "available"},
    )
    _, dead = await proxy.get("/models/dead/health")
    assert (dead["healthy"], dead["status"]) == (False, "unavailable")
    status, error = await proxy.get("/models/gpt2/health")
    assert status == 404
    assert error["detail"] == "no model is called 'gpt2'; did you mean 'gpt-2'?"


async def test_models_as_openai_lists_them_survive_dead_engines(proxy: Proxy) -> None:
    status, data = await proxy.get("/v1/models/")
    assert (status, data["object"]) == (200, "list")
    assert [card["id"] for card in data["data"]] == ["qwen2.5-7b", "gpt-2", "dead", "embedder", "closed"]
    for card in data["data"]:
        assert card["object"] == "model"
        assert isinstance(card["created"], int)
        assert isinstance(card["owned_by"], str)
    status, card = await proxy.get("/v1/models/Qwen/Q")
    assert (status, card["id"], card["root"]) == (200, "qwen2.5-7b", "Qwen/Qwen2.5-7B")


async def test_info_health_live_ready_metrics(proxy: Proxy) -> None:
    _, info = await proxy.get("/")
    assert "POST /generate" in info["endpoints"]
    assert (await proxy.get("/live"))[0] == 200
    assert (await proxy.get("/ready"))[0] == 200
    status, health = await proxy.get("/health")
    assert (status, health["status"], health["models"], health["models_available"]) == (200, "degraded", 5, 4)
    async with proxy.client.get("/metrics") as response:
        text = await response.text()
    assert 'modelyard_replica_state{model="dead",replica="h.d.0",state="failing"} 1.0' in text
    assert "modelyard_registry_generation 1.0" in text


GENERATE = {
    "prompt": "Once upon a time",
    "max_new_tokens": 200,
    "temperature": 0.7,
    "top_p": 0.95,
    "repetition_penalty": 1.0,
}


async def test_generate_from_an_engine_that_speaks_tgi(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    status, data, _ = await proxy.post("/generate", {"model_id": "gpt-2", **GENERATE})
    assert (status, data) == (200, {"generated_text": "tgi:Once upon a time", "model_id": "gpt-2"})
    path, _, body = fleet[1].requests[0]
    assert path == "/generate"
    assert body == {
        "inputs": "Once upon a time",
        "parameters": {
            "max_new_tokens": 200,
            "temperature": 0.7,
            "do_sample": True,
            "top_p": 0.95,
            "repetition_penalty": 1.0,
        },
    }


async def test_generate_from_an_engine_that_speaks_openai_only(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    status, data, response = await proxy.post("/generate/", {"model_id": "Qwen/Q", **GENERATE})
    assert (status, data) == (200, {"generated_text": "openai:Once upon a time", "model_id": "Qwen/Q"})
    assert response.headers["x-modelyard-replica"] == "h.q.0"
    path, _, body = fleet[0].requests[0]
    assert path == "/v1/completions"
    assert body == {
        "model": "served",
        "prompt": "Once upon a time",
        "max_tokens": 200,
        "temperature": 0.7,
        "top_p": 0.95,
    }


async def test_extremes_that_tgi_refuses_are_said_in_its_words(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    await proxy.post("/generate", {"model_id": "gpt-2", "prompt": "x", "temperature": 0, "top_p": 1})
    assert fleet[1].requests[0][2]["parameters"] == {"max_new_tokens": 200, "do_sample": False}


async def test_tgis_own_shape_passes_untouched_to_tgi(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    body = {"inputs": "hi", "parameters": {"details": True, "seed": None}}
    status, data, _ = await proxy.post("/generate", body, headers={"X-Model": "gpt-2"})
    assert (status, data) == (200, {"generated_text": "tgi:hi"})
    assert fleet[1].requests[0][2] == body


async def test_tgis_own_shape_is_translated_for_vllm(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    body = {
        "inputs": "hi",
        "parameters": {"details": True, "max_new_tokens": 3, "return_full_text": True, "stop": ["."]},
    }
    status, data, _ = await proxy.post("/generate", body)
    assert status == 200
    assert data["generated_text"] == "hiopenai:hi"
    assert data["details"]["finish_reason"] == "length"
    assert data["details"]["generated_tokens"] == 3
    assert fleet[0].requests[0][2] == {
        "model": "served",
        "prompt": "hi",
        "max_tokens": 3,
        "stop": ["."],
        "include_stop_str_in_output": True,
        "temperature": 0,
    }
    status, data, _ = await proxy.post("/generate", {"inputs": "hi", "parameters": {"typical_p": 0.9}})
    assert (status, data["error_type"], data["code"]) == (422, "validation", "not_supported")


@pytest.mark.parametrize("name", ["tgi", "dummy"])
async def test_names_that_mean_the_default_model(proxy: Proxy, fleet: list[FakeEngine], name: str) -> None:
    status, _, _ = await proxy.chat(name)
    assert status == 200
    assert fleet[0].requests[0][2]["model"] == "served"


async def test_openai_passes_to_an_engine_that_speaks_both(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    assert (await proxy.chat("gpt-2"))[0] == 200
    assert fleet[1].requests[0][0] == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b'{"model": ', 400, "malformed_json"),
        (b"\xff\xfe{}", 400, "malformed_json"),
        (b"[1]", 400, "not_an_object"),
        (b"null", 400, "not_an_object"),
        (b"{}", 400, "invalid_field"),
        (b'{"model": 7}', 400, "invalid_field"),
        (b'{"model": "qwen2.5-7"}', 404, "model_not_found"),
        (b'{"model": "embedder"}', 400, "wrong_task"),
        (b'{"model": "closed"}', 403, "model_restricted"),
        (b'{"model": "qwen2.5-7b", "x": ' + b"[" * 2000, 400, "malformed_json"),
        (b'{"model": "' + b"x" * 9000 + b'"}', 413, "body_too_large"),
        (b'{"model": "\\ud800"}', 404, "model_not_found"),
        (b'{"model": "qwen2.5-7b", "n": ' + b"1" * 4400 + b"}", 400, "malformed_json"),
        ('{"model": "qwen2.5-7b"}'.encode("utf-16"), 400, "malformed_json"),
    ],
)
async def test_bad_bodies_get_openais_error_object(
    proxy: Proxy, fleet: list[FakeEngine], raw: bytes, status: int, code: str
) -> None:
    async with proxy.client.post("/v1/chat/completions", data=raw) as response:
        data = await response.json()
    assert (response.status, data["error"]["code"]) == (status, code)
    assert set(data["error"]) == {"message", "type", "code", "param"}
    assert data["error"]["type"] in ("invalid_request_error", "permission_error")
    assert data["request_id"] == response.headers["x-modelyard-request-id"]
    if code == "model_not_found" and b"qwen" in raw:
        assert "did you mean 'qwen2.5-7b'" in data["error"]["message"]
    assert fleet[0].requests == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": "x"}, 422, "model_id"),
        ({"model_id": "gpt-2"}, 422, "prompt"),
        ({"model_id": "gpt-2", "prompt": ["x"]}, 422, "prompt"),
        ({"model_id": "gpt-2", "prompt": "x", "max_new_tokens": 0}, 422, "max_new_tokens"),
        ({"model_id": "gpt-2", "prompt": "x", "max_new_tokens": True}, 422, "max_new_tokens"),
        ({"model_id": "gpt-2", "prompt": "x", "temperature": "hot"}, 422, "temperature"),
        ({"model_id": "gpt-2", "prompt": "x", "top_p": 2}, 422, "top_p"),
        ({"model_id": "gpt-2", "prompt": "x", "max_new_tokens": float("inf")}, 422, "max_new_tokens"),
        ({"model_id": "gtp-2", "prompt": "x"}, 404, "model_id"),
        ({"model_id": "embedder", "prompt": "x"}, 400, "model_id"),
        ({"model_id": "dead", "prompt": "x"}, 503, None),
    ],
)
async def test_bad_prompts_get_the_backends_error(
    proxy: Proxy, body: Any, status: int, param: str | None
) -> None:
    got, data, response = await proxy.post("/generate", body)
    assert (got, data["param"]) == (status, param)
    assert isinstance(data["detail"], str)
    assert data["request_id"] == response.headers["x-modelyard-request-id"]


async def test_bad_inputs_get_tgis_error(proxy: Proxy) -> None:
    for body in ({"inputs": 7}, {"inputs": "x", "parameters": []}):
        status, data, _ = await proxy.post("/generate", body)
        assert (status, data["error_type"]) == (422, "validation")
        assert isinstance(data["error"], str)


async def test_numbers_that_json_cannot_say_are_not_passed_on(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    for raw in (b"1e999", b"Infinity", b"NaN"):
        body = b'{"inputs": "x", "parameters": {"seed": ' + raw + b"}}"
        async with proxy.client.post("/generate", data=body, headers={"X-Model": "qwen2.5-7b"}) as response:
            assert response.status == 422
    assert fleet[0].requests == []


async def test_any_depth_is_an_answer_or_a_refusal(proxy: Proxy) -> None:
    for depth in range(900, 1010):
        raw = b'{"model": "qwen2.5-7b", "x": ' + b"[" * depth + b"]" * depth + b"}"
        async with proxy.client.post("/v1/chat/completions", data=raw) as response:
            assert response.status in (200, 400), depth
    assert proxy.in_flight == 0


async def test_a_body_that_cannot_be_decoded(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    gzip = {"Content-Encoding": "gzip"}
    async with proxy.client.post("/v1/completions", data=b"no gzip", headers=gzip) as response:
        assert response.status == 400
        assert "Content-Encoding" in (await response.json())["error"]["message"]
    assert "Traceback" not in caplog.text


async def test_what_is_no_http_leaves_one_calm_line(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        answer = await raw_request(
            proxy,
            f"GET /admin/registry HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\x01\r\n\r\n".encode(),
        )
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert "it is not valid HTTP" in caplog.text
    assert KEY not in caplog.text
    assert "Traceback" not in caplog.text


async def raw_request(proxy: Proxy, sent: bytes) -> bytes:
    """The first answer to bytes that no client would send."""
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: (\d+)", head)
            return head + await reader.readexactly(int(size[1]) if size else 0)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("garbage", 502, "upstream_garbled"), (500, 502, "upstream_failed"), (422, 422, "upstream_refused")],
)
async def test_an_engines_trouble_in_a_translated_answer(
    proxy: Proxy, fleet: list[FakeEngine], fault: str | int, status: int, code: str
) -> None:
    fleet[0].script.append(fault)
    got, data, _ = await proxy.post("/generate", {"model_id": "qwen2.5-7b", "prompt": "x"})
    assert (got, data["code"]) == (status, code)
    if isinstance(fault, int):
        assert f"engine says {fault}" in data["detail"]


async def test_unknown_routes_and_methods_have_a_shape(proxy: Proxy, fleet: list[FakeEngine]) -> None:
    for path in (
        "/sleep",
        "/collective_rpc",
        "/v1/load_lora_adapter",
        "/invocations",
        "/v1/responses/resp_1/x",
    ):
        status, data, _ = await proxy.post(path, {"model": "qwen2.5-7b"})
        assert status == 404
        assert "no_such_route" in json.dumps(data)
    async with proxy.client.get("/v1/chat/completions") as response:
        data = await response.json()
    assert (response.status, data["error"]["code"]) == (405, "method_not_allowed")
    assert "use POST" in data["error"]["message"]
    assert fleet[0].requests == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_exists_with_and_without_a_slash(proxy: Proxy, route: Any) -> None:
    path = (
        route.path.replace("{model_id}", "gpt-2")
        .replace("{replica_id}", "h.d.0")
        .replace("{response_id}", "resp_1")
    )
    for spelled in {path, path.rstrip("/") + "/"}:
        async with proxy.client.request(route.method, spelled, allow_redirects=False) as response:
            text = await response.text()
        unknown = "{response_id}" in route.path and '"response_not_found"' in text
        assert unknown or response.status in ((401,) if route.admin else (200, 400, 422)), (spelled, text)


async def test_admin_needs_the_key(proxy: Proxy) -> None:
    for header in (None, "Bearer wrong", f"Basic {KEY}", KEY):
        status, data = await proxy.get("/admin/replicas", headers={"Authorization": header} if header else {})
        assert (status, data["code"]) == (401, "unauthorized")
    status, data = await proxy.get("/admin/replicas", headers={"Authorization": f"Bearer {KEY}"})
    assert status == 200
    rows = {row["id"]: row for row in data["replicas"]}
    assert rows["h.d.0"]["state"] == "failing"
    assert rows["h.q.0"]["state"] == "ready"


async def test_without_a_key_admin_does_not_exist(engines: Engines, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]), admin_key_file=None)
    status, data = await proxy.get("/admin/registry", headers={"Authorization": f"Bearer {KEY}"})
    assert (status, data["code"]) == (404, "no_such_route")


async def test_browsers_of_allowed_origins_only(proxy: Proxy) -> None:
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for origin, allowed in (("https://chat.example.org", True), ("https://evil.example", False)):
        async with proxy.client.options("/generate", headers={"Origin": origin, **asking}) as response:
            assert response.status == 204
            assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
            assert ("Access-Control-Allow-Headers" in response.headers) is allowed
        async with proxy.client.get("/models", headers={"Origin": origin}) as response:
            assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
            assert response.headers["Vary"] == "Origin"
    async with proxy.client.get("/models") as response:
        assert response.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("begun", "later"),
    [
        (b"Content-Length: 100\r\n\r\n{", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b""),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"not a chunk\r\n"),
    ],
    ids=["too short", "no end", "bad chunk"],
)
async def test_a_body_that_never_ends_is_given_up(
    start_proxy: StartProxy, engines: Engines, begun: bytes, later: bytes
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "a")]), body_timeout_s=0.5)
    url = yarl.URL(proxy.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n" + begun)
    await until(lambda: proxy.gateway.lifecycle.active == 1, "the request has begun")
    writer.write(later)
    async with asyncio.timeout(10):
        head = await reader.readline()
    writer.close()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert engine.requests == []
    await until(lambda: proxy.gateway.lifecycle.active == 0, "the request has ended")
