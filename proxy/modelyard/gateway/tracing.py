"""Spans of requests and their attempts, sent to a collector by a thread of its own (OTLP over HTTP).

This module alone imports OpenTelemetry, and it is imported only where traces are wanted. A span tells what a
line of the access log tells: never prompts, answers, keys or query strings. The ids of a span are chosen when
its request begins, so that engines can be told them; the span itself is made when all is over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from .trace import Attempt, Parent, Trace
from .visit import Visit

_log = logging.getLogger(__name__)

# a collector that does not answer must not hold up the end of the program
_FLUSH_S = 5.0
_PATH = "/v1/traces"
_SAMPLED = api.TraceFlags(api.TraceFlags.SAMPLED)
_FAILED = 500
_REFUSED = 400
Attributes = dict[str, str | int | float]


def exporter_for(endpoint: str) -> SpanExporter:
    """Sends to the collector whose base URL is ``endpoint``; what else there is to say about it stands in the
    variables ``OTEL_EXPORTER_OTLP_...``.
    """
    return OTLPSpanExporter(endpoint=endpoint.rstrip("/").removesuffix(_PATH) + _PATH)


class Tracing:
    """Makes spans of requests. ``exporter`` makes the way out, once ``running`` is entered; ``clock`` gives
    seconds since the epoch.
    """

    def __init__(
        self, exporter: Callable[[], SpanExporter], clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._exporter = exporter
        self._clock = clock
        self._rng = rng
        self._ids = _ChosenIds()
        self._tracer: api.Tracer = api.NoOpTracer()

    def begin(self, parent: Parent | None) -> Trace | None:
        """Where a request stands whose client named ``parent``; ``None``: its trace is not recorded."""
        if parent is None:
            return Trace(None, self._new_id(128), self._new_span_id)
        return Trace(parent, parent.trace_id, self._new_span_id) if parent.sampled else None

    def ended(self, visit: Visit, status: int, now: float) -> None:
        """``visit`` has ended with ``status``; ``now`` is a ``perf_counter`` reading."""
        trace = visit.trace
        if trace is None or (visit.pursuit is None and visit.method != "POST"):
            # looks at the proxy itself, by load balancers and metric collectors, are no work
            return
        offset = self._clock() - now
        end = _nanoseconds(now, offset)
        parent = trace.parent
        context = Context() if parent is None else _below(parent.trace_id, parent.span_id, remote=True)
        self._ids.trace_id, self._ids.span_id = trace.trace_id, trace.span_id
        span = self._tracer.start_span(
            f"{visit.method} {visit.route}",
            context,
            api.SpanKind.SERVER,
            _attributes(visit, status),
            start_time=_nanoseconds(visit.started, offset),
        )
        broken = visit.error != "" and status < _REFUSED
        if broken or status >= _FAILED:
            span.set_status(api.StatusCode.ERROR)
        if trace.attempts:
            inner = _below(trace.trace_id, trace.span_id, remote=False)
            for attempt in trace.attempts:
                self._attempt(attempt, inner, visit.error if broken else "", offset, end)
        span.end(end)

    def _attempt(self, attempt: Attempt, context: Context, cut: str, offset: float, end: int) -> None:
        error = attempt.error or (cut if attempt.ended is None else "")
        attributes: Attributes = {
            "modelyard.replica": attempt.replica_id,
            "gen_ai.request.model": attempt.model_id,
        }
        if error:
            attributes["error.type"] = error
        self._ids.span_id = attempt.span_id
        span = self._tracer.start_span(
            "attempt",
            context,
            api.SpanKind.CLIENT,
            attributes,
            start_time=_nanoseconds(attempt.began, offset),
        )
        if error:
            span.set_status(api.StatusCode.ERROR)
        span.end(end if attempt.ended is None else _nanoseconds(attempt.ended, offset))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send what ends, in batches, until the end; what is left then is sent for a few seconds."""
        exporter = self._exporter()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            # what the operator says in OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES comes last
            resource=Resource.create({"service.name": "modelyard", "process.pid": os.getpid()}).merge(
                OTELResourceDetector().detect()
            ),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = provider.get_tracer("modelyard")
        try:
            yield
        finally:
            self._tracer = api.NoOpTracer()
            # no thread of the loop's: the interpreter waits for those
            last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
            last.start()
            await asyncio.to_thread(last.join, _FLUSH_S)
            if last.is_alive():
                _log.warning("the collector of traces has not taken the last spans; they are dropped")
                exporter.shutdown()

    def _new_span_id(self) -> int:
        return self._new_id(64)

    def _new_id(self, bits: int) -> int:
        # 0 is no id
        return self._rng.getrandbits(bits) or 1


class _ChosenIds(IdGenerator):
    """Gives the next span the ids that were chosen for it."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_span_id(self) -> int:
        """See ``IdGenerator``."""
        return self.span_id

    def generate_trace_id(self) -> int:
        """See ``IdGenerator``."""
        return self.trace_id


def _below(trace_id: int, span_id: int, *, remote: bool) -> Context:
    context = api.SpanContext(trace_id, span_id, is_remote=remote, trace_flags=_SAMPLED)
    return api.set_span_in_context(api.NonRecordingSpan(context), Context())


def _nanoseconds(moment: float, offset: float) -> int:
    return int((moment + offset) * 1e9)


def _attributes(visit: Visit, status: int) -> Attributes:
    found: Attributes = {
        "http.request.method": visit.method,
        "http.route": visit.route,
        "http.response.status_code": status,
        "modelyard.request_id": visit.request_id,
    }
    if visit.error:
        found["error.type"] = visit.error
    if visit.model:
        found["gen_ai.request.model"] = visit.model
    pursuit = visit.pursuit
    if pursuit is None:
        return found
    found["gen_ai.response.model"] = pursuit.serving.id
    found["modelyard.attempts"] = pursuit.attempts
    found["modelyard.queued_s"] = round(pursuit.queued_s, 6)
    if pursuit.replica is not None:
        found["modelyard.replica"] = pursuit.replica.id
    if pursuit.first_byte_at is not None:
        found["modelyard.first_byte_s"] = round(pursuit.first_byte_at - pursuit.started, 6)
    usage = pursuit.usage
    if usage is not None and usage.prompt_tokens is not None:
        found["gen_ai.usage.input_tokens"] = usage.prompt_tokens
    if usage is not None and usage.completion_tokens is not None:
        found["gen_ai.usage.output_tokens"] = usage.completion_tokens
    return found
