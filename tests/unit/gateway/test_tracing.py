from __future__ import annotations

import logging
import random
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from multidict import CIMultiDict
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from modelyard.errors import ConfigError, UpstreamConnectError
from modelyard.gateway import tracing as tracing_module
from modelyard.gateway.app import create_app
from modelyard.gateway.lane.heads import template_of
from modelyard.gateway.tally import Tally
from modelyard.gateway.trace import Parent, Trace, parent_of
from modelyard.gateway.tracing import Tracing
from modelyard.gateway.usage import AnswerMeter
from modelyard.gateway.visit import Visit
from modelyard.registry.load import load_text
from modelyard.settings import Settings

from .stage import Stage

REGISTRY = """
version: 1
generation: 1
models:
  m: {endpoints: [{id: a, url: "http://10.0.0.1:1", engine: vllm}, {id: b, url: "http://10.0.0.2:1", engine: vllm}]}
"""
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
USAGE = b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}'


class Site:
    """The parts that make spans, on a clock that stands at 1000 s."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tally = Tally()
        self.stage = Stage(REGISTRY, observer=self.tally)
        self.tracing = Tracing(lambda: self.exporter, lambda: 1000.0, random.Random(1))

    def visit(self, parent: str = "", method: str = "POST") -> Visit:
        visit = Visit("id", method, "/v1/chat/completions", "127.0.0.1", 100.0)
        headers = CIMultiDict({"traceparent": parent} if parent else {})
        visit.trace = self.tracing.begin(parent_of(headers))
        return visit

    def end(self, visit: Visit, status: int, now: float = 104.0) -> None:
        self.tally.ended(visit, status, now)
        self.tracing.ended(visit, status, now)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_and_its_attempts() -> None:
    site = Site()
    async with site.tracing.running():
        visit = site.visit(GOOD)
        trace = visit.trace
        assert trace is not None
        visit.arrived, visit.model = 101.0, "m"
        model = site.stage.registry.models["m"]
        pursuit = visit.pursuit = site.stage.pursuits.begin(model, request_id="id", origin=visit)
        asked = []
        for _ in range(2):
            lease = pursuit.next()
            assert lease is not None
            asked.append(trace.attempt(lease.replica.id, "m"))
            if len(asked) == 1:
                pursuit.failed(UpstreamConnectError("refused"))
        trace.attempts[0].began, trace.attempts[0].ended, trace.attempts[1].began = 101.0, 102.0, 102.5
        pursuit.meter = AnswerMeter(streamed=False)
        pursuit.answered()
        pursuit.first_byte_at, pursuit.queued_s = 103.0, 0.25
        pursuit.meter.feed(USAGE)
        pursuit.finish()
        site.end(visit, 200)
    by_id = {span.context.span_id: span for span in site.spans if span.context is not None}
    failed, used, request = (by_id[item.span_id] for item in (*trace.attempts, trace))
    assert request.name == "POST /v1/chat/completions"
    assert request.kind.name == "SERVER"
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == SPAN
    assert request.parent.is_remote
    assert (request.start_time, request.end_time) == (996 * 10**9, 1000 * 10**9)
    assert request.status.is_unset
    assert told(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "modelyard.request_id": "id",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "modelyard.replica": told(used)["modelyard.replica"],
        "modelyard.attempts": 2,
        "modelyard.queued_s": 0.25,
        "modelyard.first_byte_s": 2.0,
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 7,
    }
    assert {told(failed)["modelyard.replica"], told(used)["modelyard.replica"]} == {"a", "b"}
    assert told(failed)["error.type"] == UpstreamConnectError.code
    assert (failed.status.is_ok or failed.status.is_unset, used.status.is_unset) == (False, True)
    assert (failed.start_time, failed.end_time) == (997 * 10**9, 998 * 10**9)
    assert (used.start_time, used.end_time) == (int(998.5 * 10**9), 1000 * 10**9)
    for span, header in zip((failed, used), asked, strict=True):
        assert span.context is not None
        assert span.parent is not None
        assert span.parent.span_id == trace.span_id
        assert header == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert {f"{span.context.trace_id:032x}" for span in site.spans if span.context} == {TRACE}
    assert request.resource.attributes["service.name"] == "modelyard"


@pytest.mark.parametrize(
    ("status", "error", "failed"),
    [
        (200, "", False),
        (404, "model_not_found", False),
        (499, "client_gone", False),
        (503, "no_replica", True),
        (200, "upstream_lost", True),
    ],
)
async def test_what_counts_as_failed(status: int, error: str, failed: bool) -> None:
    site = Site()
    async with site.tracing.running():
        visit = site.visit()
        visit.error = error
        assert visit.trace is not None
        visit.trace.attempt("a", "m")
        site.end(visit, status)
    attempt, request = site.spans
    assert (request.status.status_code.name == "ERROR") is failed
    assert told(request).get("error.type", "") == error
    # an answer that was cut is its replica's failure
    assert (attempt.status.status_code.name == "ERROR") is (error == "upstream_lost")


async def test_what_makes_no_span() -> None:
    site = Site()
    async with site.tracing.running():
        # the client's trace is not recorded
        unsampled = site.visit(GOOD[:-1] + "0")
        assert unsampled.trace is None
        site.end(unsampled, 200)
        # a look at the proxy itself
        site.end(site.visit(method="GET"), 200)
        assert site.exporter.get_finished_spans() == ()
    assert site.spans == ()


@pytest.mark.parametrize(
    ("said", "parent"),
    [
        ([GOOD], Parent(int(TRACE, 16), int(SPAN, 16), True)),
        ([f"00-{TRACE}-{SPAN}-00"], Parent(int(TRACE, 16), int(SPAN, 16), False)),
        ([f"01-{TRACE}-{SPAN}-03-more"], Parent(int(TRACE, 16), int(SPAN, 16), True)),
        ([], None),
        ([GOOD, GOOD], None),
        ([GOOD + "-more"], None),
        ([GOOD.upper()], None),
        ([f"ff-{TRACE}-{SPAN}-01"], None),
        ([f"00-{'0' * 32}-{SPAN}-01"], None),
        ([f"00-{TRACE}-{'0' * 16}-01"], None),
        ([f"00-{TRACE}-{SPAN}"], None),
        (["x" * 9000], None),
    ],
)
def test_whom_the_client_names(said: Iterable[str], parent: Parent | None) -> None:
    assert parent_of(CIMultiDict([("Traceparent", value) for value in said])) == parent


def test_what_an_engine_is_told_instead() -> None:
    headers = CIMultiDict({"Traceparent": "nonsense", "tracestate": "v=1", "X-Keep": "yes"})
    own = Trace(None, 1, lambda: 2)
    ours = own.attempt("a", "m")
    assert dict(own.retold(headers, ours)) == {"X-Keep": "yes", "traceparent": ours}
    below = Trace(Parent(1, 3, True), 1, lambda: 2)
    assert below.retold(headers, ours)["tracestate"] == "v=1"
    assert headers["traceparent"] == "nonsense"


@pytest.mark.parametrize(
    ("said", "kept"),
    [(GOOD, b"tracestate"), ("nonsense", b""), (GOOD[:-1] + "0", b"traceparent tracestate")],
)
def test_what_the_lane_keeps_of_a_head(said: str, kept: bytes) -> None:
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\ntraceparent: %b\r\ntracestate: v=1\r\nContent-Length: 2\r\n\r\n"
        % said.encode()
    )
    template = template_of(head, trusted=False, origins=(), traced=True)
    plain = template_of(head, trusted=False, origins=())
    assert template is not None
    assert plain is not None
    named = [name for name in (b"traceparent", b"tracestate") if name in template.upstream]
    assert b" ".join(named) == kept
    assert plain.parent is None
    assert b"traceparent: %b\r\n" % said.encode() in plain.upstream


class Stuck(SpanExporter):
    """A collector that never answers."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.stopped.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.stopped.set()


async def test_a_stuck_collector_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing_module, "_FLUSH_S", 0.05)
    site = Site()
    stuck = Stuck()
    tracing = Tracing(lambda: stuck, lambda: 1000.0, random.Random(1))
    with caplog.at_level(logging.WARNING):
        async with tracing.running():
            tracing.ended(site.visit(), 200, 104.0)
    assert stuck.stopped.is_set()
    assert "has not taken the last spans" in caplog.text


def test_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "modelyard.gateway.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings = Settings(otel_endpoint="http://127.0.0.1:4318")
    with pytest.raises(ConfigError, match=r"pip install 'modelyard\[otel\]'"):
        create_app(settings, load_text(REGISTRY, "test"), source="test")
