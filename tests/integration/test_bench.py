"""The benchmark's own engine and clients: what they count is what was sent."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from subprocess import Popen

import pytest

from tests.bench.load import Job, request_bytes
from tests.bench.processes import EngineHandle, cpu_s, fetch, load, mock_engine, resident_mib, tree


@pytest.fixture
def engine() -> Iterator[EngineHandle]:
    with mock_engine() as handle:
        yield handle


def test_plain_requests_are_answered_and_timed(engine: EngineHandle) -> None:
    result = load(Job(engine.ports[1], connections=4, total=50))
    assert len(result.seconds) == 50
    assert all(0 < first <= whole for first, whole in zip(result.first_s, result.seconds, strict=True))
    assert engine.seen()["requests"] == 50


def test_a_load_may_end_by_time(engine: EngineHandle) -> None:
    result = load(Job(engine.ports[0], connections=2, total=10**9, seconds=0.05))
    assert len(result.seconds) == engine.seen()["requests"] > 0


def test_every_event_of_every_stream_is_counted(engine: EngineHandle) -> None:
    engine.pace(interval_ms=1)
    result = load(Job(engine.ports[0], connections=3, total=6, max_tokens=20))
    # the usage and [DONE] come on top
    assert result.events == 6 * 22
    assert engine.seen()["unfinished"] == 0


def test_an_engine_that_floods_stops_for_a_reader_that_does_not_read(engine: EngineHandle) -> None:
    engine.pace(interval_ms=0, event_bytes=65536)
    with socket.create_connection(("127.0.0.1", engine.ports[0]), timeout=10) as client:
        client.sendall(request_bytes(Job(engine.ports[0], 1, 1, max_tokens=1000)))
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert engine.seen()["unfinished"] == 1
    assert load(Job(engine.ports[0], 1, 1, max_tokens=100)).events == 102


def test_an_answer_that_is_no_answer_fails_the_load() -> None:
    with pytest.raises(RuntimeError, match="no connection"):
        load(Job(1, 1, 1))


def test_metrics_have_the_names_of_a_vllm(engine: EngineHandle) -> None:
    text = fetch(f"http://127.0.0.1:{engine.ports[0]}/metrics").decode()
    assert "vllm:num_requests_running{" in text
    assert "vllm:iteration_tokens_total_count{" in text


def test_a_process_tree_is_accounted_with_its_children() -> None:
    child = "import time; sum(range(3_000_000)); print(flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with Popen([sys.executable, "-c", parent], stdout=-1, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            pids = tree(process.pid)
            assert len(pids) == 2
            assert cpu_s(process.pid) > cpu_s(pids[1]) > 0.01
            assert resident_mib(process.pid) > resident_mib(pids[1]) > 1
        finally:
            os.killpg(process.pid, signal.SIGKILL)
