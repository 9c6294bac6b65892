from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog.loader import EngineMetrics, load_engine
from modelyard.gateway.health import scrape
from modelyard.gateway.health.scrape import Figures, read_figures

VLLM = load_engine("vllm").metrics
TGI = load_engine("tgi").metrics

PAGE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a} b"} 3.0
vllm:num_requests_running{engine="1",model_name="say \\"hi\\" {"} 4.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:num_requests_waiting_created{engine="0"} 1.7e9
vllm:num_requests_waiting{engine="1"} 0.0 1700000000000
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:gpu_cache_usage_perc 0.99
vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 5.0
vllm:iteration_tokens_total_count{engine="0"} 10.0
vllm:iteration_tokens_total_count{engine="1"} 1.5e+01
"""


def test_requests_add_up_and_the_fullest_cache_counts() -> None:
    assert read_figures(PAGE, VLLM) == Figures(running=7.0, waiting=2.0, kv_usage=0.75, progress=25.0)


def test_an_older_name_counts_where_the_newer_is_missing() -> None:
    page = b'vllm:gpu_cache_usage_perc{a="b"} 0.5\nvllm:generation_tokens_total 9\n'
    assert read_figures(page, VLLM) == Figures(kv_usage=0.5, progress=9.0)


def test_tgi_steps_of_all_methods_add_up() -> None:
    page = (
        b'tgi_batch_inference_count{method="prefill"} 2\ntgi_batch_inference_count{method="decode"} 40\n'
        b"tgi_batch_current_size 1\ntgi_queue_size 0\n"
    )
    assert read_figures(page, TGI) == Figures(running=1.0, waiting=0.0, progress=42.0)


def test_what_makes_no_sense_is_unknown_and_not_zero() -> None:
    nonsense = [b"nan", b"-1", b"+Inf", b"one", b"", b"{", b"\xff"]
    for value in nonsense:
        page = b"vllm:num_requests_running " + value + b'\nvllm:num_requests_running{a="b"} 1\n'
        assert read_figures(page, VLLM) == Figures()
    assert read_figures(b"", VLLM) == Figures()
    assert read_figures(b"# vllm:num_requests_running 3\n<html>", VLLM) == Figures()


@given(st.binary(max_size=400), st.binary(max_size=60))
def test_no_page_is_too_strange(noise: bytes, rest: bytes) -> None:
    for page in (noise, noise + b"\nvllm:num_requests_running" + rest):
        figures = read_figures(page, VLLM)
        assert figures.running is None or figures.running >= 0


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
        st.text(st.characters(codec="utf-8", exclude_characters="\n\\"), max_size=10),
        max_size=3,
    ),
    st.floats(0, 1e12),
)
def test_any_label_may_hold_anything(labels: dict[str, str], value: float) -> None:
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items() if '"' not in text)
    page = f"x 1\nsize{{{inside}}} {value!r}\ny 2".encode()
    names = EngineMetrics("/metrics", running=("size",), waiting=(), kv_usage=(), progress=())
    assert read_figures(page, names) == Figures(running=value)


def test_of_a_large_page_only_the_wanted_lines_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    value = scrape._value
    monkeypatch.setattr(scrape, "_value", lambda rest: (read.append(rest), value(rest))[1])
    histogram = b"".join(
        b'vllm:e2e_request_latency_seconds_bucket{engine="0",le="%d",model_name="m"} %d.0\n' % (n, n)
        for n in range(4000)
    )
    assert len(histogram) > 300 * 1024
    assert read_figures(histogram + PAGE + histogram, VLLM).running == 7.0
    assert len(read) == 8
    assert max(map(len, read)) <= 4096


def test_a_page_that_is_all_one_metric_is_not_read_through() -> None:
    flood = b"".join(b'vllm:num_requests_running{n="%d"} 1\n' % n for n in range(100_000))
    assert read_figures(flood, VLLM) == Figures()
