from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import modelyard
from modelyard.errors import UpstreamBusyError
from modelyard.gateway import tracing

from .conftest import StartProxy, at, document, until
from .fake_engine import FakeEngine
from .test_workers import serving

Engines = Callable[[int], Awaitable[list[FakeEngine]]]
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1"}
BODY = {"model": "m", "messages": [{"role": "user", "content": "a secret prompt"}]}
SECRET = {"Authorization": "Bearer k3y"}


class Collector:
    """Takes spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.processes: set[int] = set()
        self.raw = b""
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {item.key: item.value for item in group.resource.attributes}
            assert about["service.name"].string_value == "modelyard"
            self.processes.add(about["process.pid"].int_value)
            self.spans.extend(span for scope in group.scope_spans for span in scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    one = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", one.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield one
    await runner.cleanup()


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes}


@pytest.mark.parametrize("more", [{}, {"Connection": "close"}], ids=["lane", "aiohttp"])
async def test_from_the_client_to_the_engine(
    engines: Engines, start_proxy: StartProxy, collector: Collector, more: dict[str, str]
) -> None:
    (engine,) = await engines(1)
    proxy = await start_proxy(document(1, m=[at(engine, "a")]), otel_endpoint=collector.url)
    async with aiohttp.ClientSession(proxy.url) as client:
        for named in (CLIENT, {}):
            async with client.post(
                "/v1/chat/completions?key=in-the-query", json=BODY, headers={**named, **SECRET}
            ) as response:
                assert response.status == 200
            async with client.post(
                "/v1/chat/completions", json=BODY, headers={**named, **SECRET, **more}
            ) as response:
                assert response.status == 200
    await until(lambda: len(collector.spans) == 8, "all spans are there")
    requests = {span.span_id: span for span in collector.named("POST /v1/chat/completions")}
    attempts = {span.span_id: span for span in collector.named("attempt")}
    assert (len(requests), len(attempts)) == (4, 4)
    for _, heads, _ in engine.requests:
        told = {name.lower(): value for name, value in heads.items()}
        version, trace, span, flags = told["traceparent"].split("-")
        assert (version, flags) == ("00", "01")
        # the engine goes on from the attempt, that from the request, and that from the client
        attempt = attempts.pop(bytes.fromhex(span))
        request = requests.pop(attempt.parent_span_id)
        assert attempt.trace_id == request.trace_id == bytes.fromhex(trace)
        if trace == TRACE:
            assert request.parent_span_id == bytes.fromhex(SPAN)
            assert told["tracestate"] == "vendor=1"
        else:
            assert request.parent_span_id == b""
        assert request.start_time_unix_nano <= attempt.start_time_unix_nano < attempt.end_time_unix_nano
        assert attempt.end_time_unix_nano <= request.end_time_unix_nano
        assert attributes(request)["modelyard.replica"] == "a"
        assert attributes(request)["gen_ai.usage.output_tokens"] == 3
    assert sum(TRACE in head["traceparent"] for _, head, _ in engine.requests) == 2
    for secret in (b"secret prompt", b"k3y", b"in-the-query"):
        assert secret not in collector.raw


@pytest.mark.parametrize("more", [{}, {"Connection": "close"}], ids=["lane", "aiohttp"])
async def test_each_attempt_has_a_span(
    engines: Engines, start_proxy: StartProxy, collector: Collector, more: dict[str, str]
) -> None:
    failing, well = await engines(2)
    failing.script.append(503)
    proxy = await start_proxy(
        # the second is asked only where the first has failed
        document(1, m=[at(failing, "a"), at(well, "b", tier=1)]),
        otel_endpoint=collector.url,
    )
    async with (
        aiohttp.ClientSession(proxy.url) as client,
        client.post("/v1/chat/completions", json=BODY, headers=more) as response,
    ):
        assert response.status == 200
    await until(lambda: len(collector.spans) == 3, "all spans are there")
    (request,) = collector.named("POST /v1/chat/completions")
    tried = sorted(collector.named("attempt"), key=lambda span: int(span.start_time_unix_nano))
    assert {span.parent_span_id for span in tried} == {request.span_id}
    found = [(attributes(span)["modelyard.replica"], attributes(span).get("error.type")) for span in tried]
    assert found == [("a", UpstreamBusyError.code), ("b", None)]


async def test_serving_goes_on_without_the_collector(
    engines: Engines, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_FLUSH_S", 0.1)
    (engine,) = await engines(1)
    gone = await FakeEngine().start()
    await gone.stop()
    proxy = await start_proxy(document(1, m=[at(engine, "a")]), otel_endpoint=gone.url)
    assert [(await proxy.chat())[0] for _ in range(5)] == [200] * 5


async def test_every_worker_sends_its_own(engines: Engines, tmp_path: Path, collector: Collector) -> None:
    (engine,) = await engines(1)
    async with serving(tmp_path, engine, "--otel-endpoint", collector.url) as site:
        assert await asyncio.gather(*(site.chat() for _ in range(24))) == [200] * 24
        workers = set(site.workers())
    # also what ended just before the end
    assert len(collector.named("POST /v1/chat/completions")) == 24
    assert collector.processes <= workers
    assert len(collector.processes) == 2


def test_without_the_setting_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; from modelyard.gateway.app import create_app; from modelyard.registry.load import load_text; "
        "from modelyard.settings import Settings; "
        "create_app(Settings(), load_text('{version: 1, generation: 1, models: {}}', 'x'), source='x'); "
        "import modelyard.cli.serve; "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    package = str(Path(modelyard.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": package}, check=False)
    assert done.returncode == 0
