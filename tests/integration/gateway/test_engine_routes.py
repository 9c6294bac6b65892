"""Routes that engines serve themselves, before echo engines within the test's loop."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from modelyard.engines.echo.app import Gate, build_app
from modelyard.engines.echo.runtime import EchoSettings

from .conftest import Proxy, StartProxy, document, until

StartEcho = Callable[..., Awaitable[str]]
SOUND = b"what was said " * 20_000


@pytest.fixture
async def echo() -> AsyncIterator[StartEcho]:
    """Starts an echo engine and gives its URL."""
    runners: list[web.AppRunner] = []

    async def start(name: str, like: str = "vllm") -> str:
        settings = EchoSettings(models=("served",), instance=name, like=like)
        app = build_app(settings, registry=CollectorRegistry(), gate=Gate(), version="0")
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


def one(url: str, name: str, engine: str = "vllm", **more: Any) -> dict[str, Any]:
    endpoint = {"id": f"h.{name}", "url": url, "engine": engine, "served_name": "served"}
    return {"endpoints": [endpoint], **more}


@pytest.fixture
async def proxy(echo: StartEcho, start_proxy: StartProxy) -> Proxy:
    vllm, tgi = await echo("vllm"), await echo("tgi", "tgi")
    models = {
        "v": one(vllm, "v"),
        "t": one(tgi, "t", "tgi"),
        "e": one(vllm, "e", task="embed"),
        "r": one(vllm, "r", task="rerank"),
        "c": one(vllm, "c", task="classify"),
        "hear": one(vllm, "hear", task="transcribe", aliases=["whisper"], limits={"body_bytes": 1_000_000}),
        "hear-too": one(vllm, "hear-too", task="transcribe"),
        "speak": one(vllm, "speak", task="speech"),
        "small": one(vllm, "small", limits={"max_tokens": 2, "n": 1, "body_bytes": 2000}),
        "small-t": one(tgi, "small-t", "tgi", limits={"max_tokens": 2, "body_bytes": 2000}),
    }
    return await start_proxy(document(**models), max_body_bytes=2_000_000)


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/v1/embeddings", {"model": "e", "input": ["a", "b"]}, "data"),
        ("/pooling", {"model": "e", "input": "a"}, "data"),
        ("/v2/embed", {"model": "e", "texts": ["a"], "input_type": "query"}, "embeddings"),
        ("/v1/rerank", {"model": "r", "query": "a", "documents": ["b", "a"]}, "results"),
        ("/v2/rerank", {"model": "r", "query": "a", "documents": ["b", "a"]}, "results"),
        ("/rerank", {"model": "r", "query": "a", "documents": ["b", "a"]}, "results"),
        ("/v1/score", {"model": "r", "text_1": "a", "text_2": ["b", "a"]}, "data"),
        ("/score", {"model": "r", "text_1": "a", "text_2": ["b", "a"]}, "data"),
        ("/classify", {"model": "c", "input": "a"}, "data"),
        ("/tokenize", {"model": "v", "prompt": "a b"}, "tokens"),
        ("/tokenize", {"model": "t", "prompt": "a b"}, "tokens"),
        ("/tokenize", {"model": "e", "prompt": "a b"}, "tokens"),
        ("/detokenize", {"model": "v", "tokens": [1, 2]}, "prompt"),
    ],
)
async def test_json_passes(proxy: Proxy, path: str, body: dict[str, Any], key: str) -> None:
    for spelled in (path, path + "/"):
        status, data, response = await proxy.post(spelled, body)
        assert status == 200, data
        assert data[key]
        assert response.headers["x-modelyard-replica"] == f"h.{body['model']}"


async def test_a_model_gets_the_routes_of_its_task_only(proxy: Proxy) -> None:
    for path, name in [
        ("/v1/embeddings", "v"), ("/v1/chat/completions", "e"), ("/v1/rerank", "e"), ("/classify", "r"),
        ("/v1/audio/speech", "v"), ("/v1/responses", "hear"), ("/tokenize", "hear"),
    ]:  # fmt: skip
        status, data, _ = await proxy.post(path, {"model": name, "input": "a"})
        assert (status, data["error"]["code"]) == (400, "wrong_task"), path
    status, data, _ = await proxy.post("/v1/messages", {"model": "e"})
    assert (status, data["error"]["code"], data["type"]) == (400, "wrong_task", "error")


async def test_what_an_engine_does_not_serve_is_told(proxy: Proxy) -> None:
    for path in ("/v1/responses", "/detokenize"):
        status, data, _ = await proxy.post(path, {"model": "t", "input": "a"})
        assert (status, data["error"]["code"]) == (501, "not_supported")
        assert f"(tgi) does not serve {path}" in data["error"]["message"]


async def test_tokens_are_the_same_from_both_engines(proxy: Proxy) -> None:
    for question in ({"prompt": "a b c"}, {"messages": [{"role": "user", "content": "a b"}]}):
        answers = []
        for name in ("v", "t"):
            _, data, _ = await proxy.post("/tokenize", {"model": name, "return_token_strs": True, **question})
            answers.append((data["count"], data["tokens"], data["token_strs"]))
        assert answers[0] == answers[1]
    status, data, _ = await proxy.post("/tokenize", {"model": "t"})
    assert (status, data["error"]["param"]) == (400, "prompt")
    status, data, _ = await proxy.post("/tokenize", {"inputs": "a b"}, headers={"X-Model": "t"})
    assert (status, [token["text"] for token in data]) == (200, ["a", " b"])


async def test_limits(proxy: Proxy) -> None:
    chat = {"model": "small", "messages": [{"role": "user", "content": "a b c"}]}
    for more in ({}, {"max_tokens": 50}, {"max_completion_tokens": 50}):
        _, data, _ = await proxy.post("/v1/chat/completions", chat | more)
        assert data["usage"]["completion_tokens"] == 2
    status, data, _ = await proxy.post("/v1/chat/completions", chat | {"n": 2})
    assert (status, data["error"]["param"], data["error"]["code"]) == (400, "n", "invalid_field")
    _, data, _ = await proxy.post("/v1/messages", chat | {"max_tokens": 50})
    assert data["usage"]["output_tokens"] == 2
    for name in ("small", "small-t"):
        _, data, _ = await proxy.post("/generate", {"inputs": "a b c"}, headers={"X-Model": name})
        assert data["generated_text"] == "a b"
    _, data, _ = await proxy.post("/generate", {"model_id": "small-t", "prompt": "a b c"})
    assert data["generated_text"] == "a b"
    for name in ("max_output_tokens", "max_new_tokens"):
        for path, key in (("/v1/chat/completions", chat), ("/tgi/small-t/v1/chat/completions", chat)):
            _, data, _ = await proxy.post(path, key | {name: 1})
            assert data["usage"]["completion_tokens"] == 2, (path, name)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"model_id": "small", "prompt": "a" * 3000}),
        ("/generate", {"inputs": "a" * 3000}),
        ("/generate", {"inputs": "a" * 3000, "parameters": []}),
        ("/tokenize", {"inputs": "a" * 3000}),
        ("/tokenize", {"model": "small", "prompt": "a" * 3000}),
        ("/tgi/small/tokenize", {"inputs": "a" * 3000}),
        ("/tgi/small-t/chat_tokenize", {"messages": [{"role": "user", "content": "a" * 3000}]}),
        (
            "/v1/messages/count_tokens",
            {"model": "small", "messages": [{"role": "user", "content": "a" * 3000}]},
        ),
    ],
)
async def test_the_size_is_bounded_on_every_route(proxy: Proxy, path: str, body: dict[str, Any]) -> None:
    status, _, _ = await proxy.post(path, body, headers={"X-Model": "small"})
    assert status == 413


@pytest.mark.parametrize("name", ["v", "t"])
async def test_messages_of_anthropic(proxy: Proxy, name: str) -> None:
    body = {"model": name, "max_tokens": 3, "messages": [{"role": "user", "content": "a b"}]}
    _, data, _ = await proxy.post("/v1/messages", body, headers={"x-api-key": "k"})
    assert data["content"] == [{"type": "text", "text": "a b a"}]
    _, raw, response = await proxy.post("/v1/messages", body | {"stream": True})
    assert response.content_type == "text/event-stream"
    assert raw.startswith(b"event: message_start\n")
    assert b"event: message_stop\n" in raw
    status, data, _ = await proxy.post("/v1/messages", {"model": name, "max_tokens": 1, "messages": 5})
    assert (status, data["type"], data["error"]["type"]) == (400, "error", "invalid_request_error")


async def test_a_response_is_found_where_it_was_made(echo: StartEcho, start_proxy: StartProxy) -> None:
    urls = [await echo(f"e{place}") for place in range(3)]
    endpoints = [
        {"id": f"h.m.{place}", "url": url, "engine": "vllm", "served_name": "served"}
        for place, url in enumerate(urls)
    ]
    proxy = await start_proxy(document(1, m=endpoints))
    made: dict[str, str] = {}
    for _ in range(6):
        _, data, response = await proxy.post("/v1/responses", {"model": "m", "input": "a"})
        made[data["id"]] = response.headers["x-modelyard-replica"]
        _, raw, response = await proxy.post("/v1/responses", {"model": "m", "input": "a", "stream": True})
        begun = json.loads(raw.split(b"\n")[1].removeprefix(b"data: "))
        made[begun["response"]["id"]] = response.headers["x-modelyard-replica"]
    assert set(made.values()) == {"h.m.0", "h.m.1", "h.m.2"}
    for identity, replica in made.items():
        async with proxy.client.get(f"/v1/responses/{identity}?stream=false") as answer:
            assert (answer.status, answer.headers["x-modelyard-replica"]) == (200, replica)
            assert (await answer.json())["id"] == identity
        status, _, response = await proxy.post(f"/v1/responses/{identity}/cancel", {})
        assert (status, response.headers["x-modelyard-replica"]) == (200, replica)
        status, data, response = await proxy.post(
            "/v1/responses", {"model": "m", "input": "b", "previous_response_id": identity}
        )
        assert (status, response.headers["x-modelyard-replica"]) == (200, replica)
    status, data = await proxy.get("/v1/responses/resp_none")
    assert (status, data["error"]["code"]) == (404, "response_not_found")
    proxy.write(document(2, m=endpoints[1:]))
    await until(lambda: len(proxy.gateway.pool) == 2, "the new registry")
    lost = next(identity for identity, replica in made.items() if replica == "h.m.0")
    status, data = await proxy.get(f"/v1/responses/{lost}")
    assert (status, data["error"]["code"]) == (404, "response_lost")
    status, data, _ = await proxy.post(
        "/v1/responses", {"model": "m", "input": "b", "previous_response_id": lost}
    )
    assert (status, data["error"]["code"]) == (404, "response_lost")


def form(*order: str, model: str = "hear", sound: bytes = SOUND) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name in order:
        if name == "file":
            data.add_field("file", io.BytesIO(sound), filename="a.wav", content_type="audio/wav")
        else:
            data.add_field(name, model if name == "model" else "x")
    return data


async def heard(proxy: Proxy, data: Any, **more: Any) -> tuple[int, Any, str]:
    async with proxy.client.post("/v1/audio/transcriptions", data=data, **more) as response:
        return response.status, await response.json(), response.headers.get("x-modelyard-replica", "")


@pytest.mark.parametrize(
    ("order", "more", "replica"),
    [
        (("model", "file"), {}, "h.hear"),
        (("language", "model", "file"), {}, "h.hear"),
        (("file", "model"), {}, "h.hear"),
        (("file",), {}, "h.hear"),
        (("file",), {"headers": {"X-Model": "hear-too"}}, "h.hear-too"),
        (("file",), {"params": {"model": "hear-too"}}, "h.hear-too"),
    ],
)
async def test_sound_is_heard(
    proxy: Proxy, order: tuple[str, ...], more: dict[str, Any], replica: str
) -> None:
    status, data, by = await heard(proxy, form(*order), **more)
    assert (status, by) == (200, replica), data
    assert data["text"] == SOUND.decode()


async def test_an_alias_in_the_form_becomes_the_served_name(proxy: Proxy) -> None:
    assert (await heard(proxy, form("model", "file", model="whisper")))[0] == 200
    assert (await heard(proxy, form("file", "model", model="whisper")))[0] == 200


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("data", "more", "status", "code"),
    [
        (lambda: form("file", "model", model="hear-too"), {}, 400, "model_disagrees"),
        (lambda: form("file", "model"), {"headers": {"X-Model": "hear-too"}}, 400, "model_disagrees"),
        (lambda: form("model", "file", model="nobody"), {}, 404, "model_not_found"),
        (lambda: form("model", "file", model="v"), {}, 400, "wrong_task"),
        (lambda: form("model", "file", sound=b"x" * 1_200_000), {}, 413, "body_too_large"),
        (lambda: form("model", "file", model="hear-too", sound=b"x" * 2_200_000), {}, 413, "body_too_large"),
        (lambda: b"no form", {}, 400, "bad_request"),
        (lambda: b"--b\r\n", {"headers": {"Content-Type": "multipart/form-data"}}, 400, "bad_request"),
        (lambda: b"--b\r\n\r\nx", {"headers": FORM}, 400, "bad_request"),
    ],
)
async def test_forms_that_are_refused(
    proxy: Proxy, data: Callable[[], Any], more: dict[str, Any], status: int, code: str
) -> None:
    answer = await heard(proxy, data(), **more)
    assert (answer[0], answer[1]["error"]["code"]) == (status, code), answer
    await until(lambda: proxy.in_flight == 0, "nothing runs")
    assert (await heard(proxy, form("model", "file")))[0] == 200


async def test_a_form_reaches_the_engine_while_it_still_comes_in(start_proxy: StartProxy) -> None:
    arrived = asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/audio" in head:
            await reader.readuntil(b"first half")
            arrived.set()
            await reader.readuntil(b"0\r\n\r\n")
        body = b'{"text":"heard"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async with await asyncio.start_server(engine, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        proxy = await start_proxy(document(m=one(url, "m", task="transcribe")))

        async def halves() -> AsyncIterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nfirst half'
            yield b"." * 100
            await asyncio.wait_for(arrived.wait(), 20)
            yield b"\r\n--b--\r\n"

        status, data, _ = await heard(proxy, halves(), headers=FORM)
    assert (status, data) == (200, {"text": "heard"})


async def test_speech(proxy: Proxy) -> None:
    status, data, response = await proxy.post("/v1/audio/speech", {"model": "speak", "input": "say"})
    assert (status, data, response.content_type) == (200, b"say", "audio/wav")


async def test_a_client_never_names_an_upstream(proxy: Proxy) -> None:
    away = "http://127.0.0.1:9"
    elsewhere = {"api_base": away, "base_url": away, "user_config": {}, "extra_headers": {"a": "b"}}
    body = {"model": "v", "messages": [{"role": "user", "content": "a"}], **elsewhere}
    status, _, response = await proxy.post("/v1/chat/completions", body)
    assert (status, response.headers["x-modelyard-replica"]) == (200, "h.v")


async def test_a_form_is_sent_on_only_while_no_engine_has_got_any_of_it(
    echo: StartEcho, start_proxy: StartProxy
) -> None:
    good = await echo("good")
    served = {"engine": "vllm", "served_name": "served"}
    taken: list[bytes] = []

    async def cutting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/audio" in head:
            taken.append(await reader.read(10))
            writer.transport.abort()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(cutting, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        endpoints = [{"id": "h.cuts", "url": url, **served}, {"id": "h.good", "url": good, **served}]
        model = {"task": "transcribe", "policy": "round_robin", "endpoints": endpoints}
        proxy = await start_proxy(document(m=model))
        answers = [await heard(proxy, form("model", "file", model="m")) for _ in range(2)]
    assert sorted(status for status, _, _ in answers) == [200, 502]
    assert len(taken) == 1
    # now nobody listens there: the whole form is still ours to send
    for _ in range(2):
        status, _, replica = await heard(proxy, form("model", "file", model="m"))
        assert (status, replica) == (200, "h.good")
