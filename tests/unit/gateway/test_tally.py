from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from modelyard.errors import UpstreamBrokenError
from modelyard.gateway.metric_rows import METRICS
from modelyard.gateway.metrics import Metrics, TallyCollector
from modelyard.gateway.pursuit import Pursuit
from modelyard.gateway.tally import SECONDS, Histogram, Tally
from modelyard.gateway.usage import AnswerMeter
from modelyard.gateway.visit import Visit
from modelyard.registry.load import load_text

from .stage import Stage

REGISTRY = """
version: 1
generation: 1
models:
  m: {endpoints: [{id: a, url: "http://10.0.0.1:1", engine: vllm}, {id: b, url: "http://10.0.0.2:1", engine: vllm}]}
  n: {endpoints: [{id: c, url: "http://10.0.0.3:1", engine: vllm}]}
"""
SMALLER = """
version: 1
generation: 2
models:
  m: {endpoints: [{id: a, url: "http://10.0.0.1:1", engine: vllm}]}
"""
USAGE = b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}'


class Site:
    """The data path's parts that count, without I/O."""

    def __init__(self) -> None:
        self.tally = Tally()
        stage = Stage(REGISTRY, observer=self.tally, ready=False)
        self.registry, self.pool, self.pursuits = stage.registry, stage.pool, stage.pursuits
        self.tally.follow(self.registry.models, ())

    def visit(self, model: str) -> tuple[Visit, Pursuit]:
        visit = Visit("id", "POST", "/v1/chat/completions", "127.0.0.1", 100.0)
        visit.arrived, visit.model = 101.0, model
        visit.pursuit = self.pursuits.begin(self.registry.models[model], request_id="id", origin=visit)
        return visit, visit.pursuit

    def answer(self, model: str, *pieces: bytes, streamed: bool = False) -> None:
        """One answered request: leased at 101.002, first byte at 102, over at 104."""
        visit, pursuit = self.visit(model)
        pursuit.next()
        pursuit.meter = AnswerMeter(streamed=streamed)
        pursuit.answered()
        pursuit.leased_at, pursuit.first_byte_at = 101.002, 102.0
        for piece in pieces:
            pursuit.meter.feed(piece)
        pursuit.finish()
        self.tally.ended(visit, 200, now=104.0)

    def apply(self, text: str) -> None:
        self.registry = load_text(text, "test")
        self.tally.follow(self.registry.models, self.pool.apply(self.registry)[1])

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        text = Metrics(TallyCollector(self.tally)).render().decode()
        order = [*dict.fromkeys(label for row in METRICS for label in row.labels), "le"]
        return {
            (sample.name, tuple(sample.labels[name] for name in order if name in sample.labels)): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def site() -> Site:
    return Site()


def test_an_answer_is_counted_once_everywhere(site: Site) -> None:
    site.answer("m", USAGE)
    route = "/v1/chat/completions"
    samples = site.samples()
    assert samples["modelyard_requests_total", (route, "m", "200")] == 1
    assert samples["modelyard_request_seconds_sum", (route, "m")] == pytest.approx(4.0)
    assert samples["modelyard_request_seconds_bucket", (route, "m", "2.5")] == 0
    assert samples["modelyard_request_seconds_bucket", (route, "m", "5.0")] == 1
    assert samples["modelyard_request_seconds_bucket", (route, "m", "+Inf")] == 1
    assert samples["modelyard_overhead_seconds_sum", ("m",)] == pytest.approx(0.002)
    assert samples["modelyard_first_byte_seconds_count", ("m",)] == 1
    assert samples["modelyard_tokens_total", ("m", "prompt", "usage")] == 5
    assert samples["modelyard_tokens_total", ("m", "completion", "usage")] == 7
    assert samples["modelyard_attempts_total", ("m", "a", "ok")] == 1
    # a plain answer has no first token and no time between two
    assert ("modelyard_time_to_first_token_seconds_count", ("m",)) not in samples
    assert ("modelyard_time_per_output_token_seconds_count", ("m",)) not in samples
    assert site.pursuits.running == set()


def test_a_stream_without_usage_is_counted_by_its_events(site: Site) -> None:
    site.answer("m", *[b"data: {}\n\n"] * 5, b"data: [DONE]\n\n", streamed=True)
    samples = site.samples()
    assert samples["modelyard_tokens_total", ("m", "completion", "counted")] == 5
    assert samples["modelyard_tokens_total", ("m", "completion", "usage")] == 0
    # two seconds after the first byte, four tokens after the first
    assert samples["modelyard_time_per_output_token_seconds_sum", ("m",)] == pytest.approx(0.5)
    assert samples["modelyard_time_to_first_token_seconds_count", ("m",)] == 1


def test_retries_fallbacks_and_cut_answers(site: Site) -> None:
    visit, pursuit = site.visit("m")
    pursuit.next()
    pursuit.failed(UpstreamBrokenError("gone"))
    pursuit.next()
    pursuit.meter = AnswerMeter(streamed=True)
    pursuit.answered()
    pursuit.finish(UpstreamBrokenError("cut"))
    pursuit.finish()
    site.tally.ended(visit, 200)
    samples = site.samples()
    assert samples["modelyard_retries_total", ("m",)] == 1
    assert samples["modelyard_attempts_total", ("m", "a", "upstream_broken")] == 1
    assert samples["modelyard_attempts_total", ("m", "b", "ok")] == 1
    assert samples["modelyard_broken_streams_total", ("m", "b")] == 1
    assert ("modelyard_broken_streams_total", ("m", "a")) not in samples


def test_a_request_that_sought_no_replica(site: Site) -> None:
    site.tally.ended(Visit("id", "GET", "/v1/models", "127.0.0.1", 100.0), 200, now=100.5)
    samples = site.samples()
    assert samples["modelyard_requests_total", ("/v1/models", "", "200")] == 1
    assert not any("m" in labels for _, labels in samples)


def test_series_of_what_is_gone_are_dropped_and_do_not_return(site: Site) -> None:
    for model in ("m", "m", "n"):
        site.answer(model, USAGE)
    visit, pursuit = site.visit("n")
    pursuit.next()
    site.apply(SMALLER)
    pursuit.failed(UpstreamBrokenError("gone"))
    site.tally.ended(visit, 502)
    labels = {label for _, labels in site.samples() for label in labels}
    assert not labels & {"n", "b", "c"}
    assert {"m", "a"} <= labels


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (0.005, 0), (0.0051, 1), (300.0, 14), (301.0, 15)])
def test_a_bound_belongs_to_its_bucket(value: float, place: int) -> None:
    histogram = Histogram(SECONDS)
    histogram.observe(value)
    assert histogram.counts.index(1) == place


def test_answered_takes_its_time_from_the_whole_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Callable[[], float] = lambda: 103.5  # noqa: E731
    monkeypatch.setattr("modelyard.gateway.pursuit.time.perf_counter", clock)
    _, pursuit = site.visit("m")
    pursuit.next()
    pursuit.meter = AnswerMeter(streamed=True)
    pursuit.answered()
    assert site.samples()["modelyard_time_to_first_token_seconds_sum", ("m",)] == pytest.approx(2.5)
    pursuit.finish()
