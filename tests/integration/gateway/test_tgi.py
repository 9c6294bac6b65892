"""TGI's clients before every kind of engine, and OpenAI's before one that speaks TGI only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from modelyard.catalog.loader import load_engines
from modelyard.engines.echo.app import Gate, build_app
from modelyard.engines.echo.runtime import EchoSettings
from modelyard.gateway import app as composition

from .conftest import Proxy, StartProxy, at, document, until
from .fake_engine import FakeEngine

WORDS = "one two three four five"
OPENAI, TGI, BOTH = "openai", "only", "both"
LIKE = {OPENAI: "vllm", TGI: "tgi", BOTH: "all"}


@pytest.fixture
async def echoes() -> AsyncIterator[dict[str, str]]:
    """The URLs of three echo engines, by dialect."""
    urls, runners = {}, []
    for dialect in (OPENAI, TGI, BOTH):
        settings = EchoSettings(models=("served",), instance=dialect, max_model_len=200, like=LIKE[dialect])
        runner = web.AppRunner(
            build_app(settings, registry=CollectorRegistry(), gate=Gate(), version="1"),
            handler_cancellation=True, shutdown_timeout=0.1,
        )  # fmt: skip
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        urls[dialect] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield urls
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def proxy(echoes: dict[str, str], start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    # no engine of the catalog speaks TGI only; here one does
    engines = load_engines()
    only = {**engines, "tgi": replace(engines["tgi"], dialect="tgi")}
    monkeypatch.setattr(composition, "load_engines", lambda: only)
    kinds = {OPENAI: "vllm", TGI: "tgi", BOTH: "echo"}
    # not "tgi": that name means the default model, and a client of TGI's
    models = {
        name: [{"id": f"r.{name}", "url": url, "engine": kinds[name], "served_name": "served"}]
        for name, url in echoes.items()
    }
    return await start_proxy(document(**models))


def events(raw: bytes) -> list[Any]:
    blocks = raw.decode().split("\n\n")
    assert blocks.pop() == ""
    texts = [block.removeprefix("data:").strip() for block in blocks]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def asked(inputs: str = WORDS, stream: bool | None = None, **parameters: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"inputs": inputs, "parameters": {"max_new_tokens": 4, **parameters}}
    return body if stream is None else {**body, "stream": stream}


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
async def test_a_plain_answer(proxy: Proxy, model: str) -> None:
    body = asked(details=True, seed=None)
    status, data, response = await proxy.post(f"/tgi/{model}/generate", body)
    assert (status, data["generated_text"]) == (200, "one two three four")
    assert data["details"]["finish_reason"] == "length"
    assert data["details"]["generated_tokens"] == 4
    assert response.headers["x-prompt-tokens"] == "5"
    assert response.headers["x-generated-tokens"] == "4"
    assert response.headers["x-modelyard-replica"] == f"r.{model}"


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
@pytest.mark.parametrize("path", ["", "/", "/generate_stream"])
async def test_a_stream(proxy: Proxy, model: str, path: str) -> None:
    status, raw, response = await proxy.post(f"/tgi/{model}{path}", asked(stream=True, details=True))
    assert (status, response.content_type) == (200, "text/event-stream")
    sent = events(raw)
    assert [item["token"]["text"] for item in sent] == ["one", " two", " three", " four"]
    assert [item["index"] for item in sent] == [1, 2, 3, 4]
    assert [item["generated_text"] for item in sent] == [None, None, None, "one two three four"]
    assert sent[-1]["details"] == {
        "finish_reason": "length", "generated_tokens": 4, "seed": None, "input_length": 5,
    }  # fmt: skip
    assert "x-compute-characters" in response.headers


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
async def test_the_compatible_route_wraps_a_plain_answer_in_a_list(proxy: Proxy, model: str) -> None:
    for path, headers in ((f"/tgi/{model}", {}), ("/", {"X-Model": model})):
        status, data, _ = await proxy.post(path, asked(), headers=headers)
        assert (status, data) == (200, [{"generated_text": "one two three four"}])


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
async def test_tokenize(proxy: Proxy, model: str) -> None:
    status, data, _ = await proxy.post(f"/tgi/{model}/tokenize", {"inputs": "ab é"})
    assert status == 200
    assert [(item["text"], item["start"], item["stop"]) for item in data] == [("ab", 0, 2), (" é", 2, 4)]


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
async def test_chat_tokenize(proxy: Proxy, model: str) -> None:
    body = {"model": "tgi", "messages": [{"role": "user", "content": "hi", "name": None}], "seed": None}
    status, data, _ = await proxy.post(f"/tgi/{model}/chat_tokenize", body)
    assert status == 200
    assert data["templated_text"] == "<|user|>\nhi\n<|assistant|>\n"
    assert "".join(item["text"] for item in data["tokenize_response"]) == data["templated_text"]


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
async def test_info_and_health(proxy: Proxy, model: str) -> None:
    status, data = await proxy.get(f"/tgi/{model}/info")
    assert status == 200
    assert data["max_total_tokens"] == 200
    assert data["model_id"] == ("served" if model != OPENAI else model)
    async with proxy.client.get(f"/tgi/{model}/health") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_metrics_of_one_model(proxy: Proxy) -> None:
    await proxy.post(f"/tgi/{OPENAI}", asked())
    await proxy.post(f"/tgi/{BOTH}", asked())
    async with proxy.client.get(f"/tgi/{OPENAI}/metrics") as response:
        text = await response.text()
    assert f'modelyard_attempts_total{{model="{OPENAI}",replica="r.{OPENAI}",result="ok"}} 1.0' in text
    assert BOTH not in text


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
@pytest.mark.parametrize("path", ["/v1", "/tgi/{model}/v1"])
async def test_chat_of_any_engine(proxy: Proxy, model: str, path: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": WORDS}], "max_tokens": 3}
    path = path.format(model=model) + "/chat/completions"
    status, data, _ = await proxy.post(path, body)
    assert status == 200
    (choice,) = data["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["role"] == "assistant"
    if model != TGI:
        assert choice["message"]["content"] == "one two three"
        assert data["usage"]["prompt_tokens"] > 0
    else:
        assert choice["message"]["content"] == "user: one two"
        assert data["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    status, raw, _ = await proxy.post(
        path, {**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    assert status == 200
    sent = events(raw)
    if path.startswith("/v1"):
        assert sent.pop() == "[DONE]"
    said = "".join(item["choices"][0]["delta"]["content"] for item in sent if item["choices"])
    assert said == choice["message"]["content"]
    assert sent[-1]["usage"]["completion_tokens"] == 3
    assert sent[0]["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize("model", [OPENAI, TGI, BOTH])
async def test_completions_of_any_engine(proxy: Proxy, model: str) -> None:
    body = {"model": model, "prompt": WORDS, "max_tokens": 3, "stop": ["three"]}
    status, data, _ = await proxy.post("/v1/completions", body)
    assert (status, data["choices"][0]["text"].strip()) == (200, "one two")
    assert data["choices"][0]["finish_reason"] == "stop"
    status, raw, _ = await proxy.post("/v1/completions", {**body, "stream": True})
    sent = events(raw)
    assert sent.pop() == "[DONE]"
    assert "".join(item["choices"][0]["text"] for item in sent).strip() == "one two"


async def test_what_text_generation_sends_and_reads(proxy: Proxy) -> None:
    # OPENAI is the default model, so it answers for the name tgi
    body = {
        "model": "tgi", "messages": [{"role": "user", "content": "a b", "name": None, "tool_calls": None}],
        "stream": True, "seed": None, "tools": None, "logit_bias": None,
    }  # fmt: skip
    for path in ("/v1/chat/completions", f"/tgi/{OPENAI}/v1/chat/completions"):
        status, raw, _ = await proxy.post(path, body)
        assert status == 200
        assert b"[DONE]" not in raw
        for item in events(raw):
            assert isinstance(item["system_fingerprint"], str)
            assert item["choices"][0]["delta"].keys() >= {"role", "content", "tool_calls"}
        status, data, _ = await proxy.post(path, {**body, "stream": False})
        assert status == 200
        assert isinstance(data["system_fingerprint"], str)
        assert "logprobs" in data["choices"][0]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({}, 422, "validation"),
        ({"inputs": "a", "stream": "yes"}, 422, "validation"),
        ({"inputs": "a", "parameters": {"typical_p": 0.5}}, 422, "validation"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 5000}}, 422, "validation"),
    ],
)
async def test_errors_are_tgis(proxy: Proxy, body: dict[str, Any], status: int, kind: str) -> None:
    got, data, _ = await proxy.post(f"/tgi/{OPENAI}", body)
    assert (got, data["error_type"]) == (status, kind)
    assert isinstance(data["error"], str)


async def test_a_model_that_is_not_there(proxy: Proxy) -> None:
    for path in ("/tgi/nope", "/tgi/nope/generate", "/tgi/nope/v1/chat/completions"):
        status, data, _ = await proxy.post(path, asked())
        assert (status, data["error_type"], data["code"]) == (404, "validation", "model_not_found")


# from here on engines that fail


def vllm_piece(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


@pytest.fixture
async def failing(engines: Any, start_proxy: StartProxy) -> tuple[Proxy, list[FakeEngine]]:
    started = await engines(2)
    first, second = ({"id": f"f.{n}", "url": e.url, "engine": "vllm"} for n, e in enumerate(started))
    for engine in started:
        engine.chunks = (vllm_piece("a"), vllm_piece("b", "length"), b"data: [DONE]\n\n")
    entry = {"policy": "round_robin", "endpoints": [first, second]}
    return await start_proxy(document(m=entry)), started


@pytest.mark.parametrize("fault", ["cut", "cut inside"])
async def test_a_stream_that_breaks_ends_with_an_error_event(
    failing: tuple[Proxy, list[FakeEngine]], fault: str
) -> None:
    proxy, started = failing
    for engine in started:
        engine.script.append(fault)
    received = b""
    with pytest.raises(Exception, match=r"payload|closed|disconnected|Transfer"):  # noqa: PT012
        async with proxy.client.post("/tgi/m/generate_stream", json=asked()) as response:
            assert response.status == 200
            async for data in response.content.iter_any():
                received += data
    token, error = events(received)
    assert token["token"]["text"] == "a"
    assert (error["error_type"], error["code"]) == ("incomplete_generation", "upstream_broken")


@pytest.mark.parametrize("fault", [400, 500])
async def test_a_refused_stream_has_a_status(failing: tuple[Proxy, list[FakeEngine]], fault: int) -> None:
    proxy, started = failing
    for engine in started:
        engine.script.extend([fault] * 4)
    status, data, _ = await proxy.post("/tgi/m/generate_stream", asked())
    assert (status, data["error_type"]) == ((422, "validation") if fault == 400 else (424, "generation"))
    assert f"engine says {fault}" in data["error"]


async def test_an_error_as_first_event_moves_to_another_replica(
    failing: tuple[Proxy, list[FakeEngine]],
) -> None:
    proxy, started = failing
    started[0].chunks = (b'data: {"error": {"message": "full", "code": 503}}\n\n',)
    for _ in range(2):
        status, raw, _ = await proxy.post("/tgi/m/generate_stream", asked())
        assert status == 200
        assert events(raw)[-1]["generated_text"] == "ab"
    assert started[0].requests


async def test_an_error_as_first_event_of_the_last_replica_is_told_with_a_status(
    failing: tuple[Proxy, list[FakeEngine]],
) -> None:
    proxy, started = failing
    for engine in started:
        engine.chunks = (b'data: {"error": "Model is overloaded", "error_type": "overloaded"}\n\n',)
    status, data, _ = await proxy.post("/tgi/m/generate_stream", asked())
    assert (status, data["error_type"]) == (429, "overloaded")


async def test_a_client_that_leaves_frees_the_engine(failing: tuple[Proxy, list[FakeEngine]]) -> None:
    proxy, started = failing
    for engine in started:
        engine.script.append("hold")
    async with proxy.client.post("/tgi/m/generate_stream", json=asked()) as response:
        assert await response.content.readany()
        assert proxy.in_flight == 1
        response.close()
    await until(lambda: proxy.in_flight == 0, "the replica is given back")
    await until(lambda: any(engine.abandoned.is_set() for engine in started), "the engine's work ends")


async def test_no_connection_is_a_failed_generation(failing: tuple[Proxy, list[FakeEngine]]) -> None:
    proxy, started = failing
    for engine in started:
        await engine.stop()
    status, data, _ = await proxy.post("/tgi/m/generate", asked())
    assert (status, data["error_type"], data["code"]) == (424, "generation", "upstream_unreachable")


async def test_a_plain_message_that_is_cut_is_made_by_another(engines: Any, start_proxy: StartProxy) -> None:
    cut, well = await engines(2)
    proxy = await start_proxy(document(m=[at(cut, "f.0", "tgi"), at(well, "f.1", "tgi", tier=1)]))
    cut.script.append("short")
    message = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
    status, data, response = await proxy.post("/v1/messages", message)
    assert (status, data["type"]) == (200, "message")
    assert (response.headers["x-modelyard-replica"], response.headers["x-modelyard-attempts"]) == ("f.1", "2")


async def test_no_replica_is_overloaded_and_unhealthy(engines: Any, start_proxy: StartProxy) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(m=[at(engine, "f.0", state="disabled")]), probed=False)
    status, data, response = await proxy.post("/tgi/m/generate", asked())
    assert (status, data["error_type"], data["code"]) == (429, "overloaded", "no_replica")
    assert response.headers["Retry-After"]
    status, data = await proxy.get("/tgi/m/health")
    assert (status, data["error_type"], data["code"]) == (503, "healthcheck", "no_replica")
    status, data = await proxy.get("/tgi")
    assert (status, data["error_type"], data["code"]) == (404, "validation", "no_such_route")
