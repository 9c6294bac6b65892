"""What stays bounded: memory before a slow reader, memory over time, and the engine's work for clients that left.

python -m tests.bench soak [--minutes 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .cases import Target
from .load import Job, request_bytes
from .peers import PEERS
from .peers.start import start
from .processes import EngineHandle, load, mock_engine, prepare, resident_mib

_MIB = 2**20


def slow_reader(target: Target, engine: EngineHandle, size_mib: int, seconds: float) -> dict[str, float]:
    """Growth of the proxy while an engine writes as fast as it can and the client reads slowly."""
    assert target.pid is not None
    event = 64 * 1024
    engine.pace(interval_ms=0, event_bytes=event)
    job = Job(target.port, 1, 1, max_tokens=size_mib * _MIB // event)
    load(job)  # once at full speed: what the first large stream allocates is no growth
    before = peak = resident_mib(target.pid)
    read, begun = 0, time.monotonic()
    with socket.create_connection(("127.0.0.1", target.port), timeout=30) as client:
        client.sendall(request_bytes(job))
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            data = client.recv(event)
            if not data:
                raise RuntimeError("the stream was cut")
            read += len(data)
            tail = (tail + data)[-5:]
            peak = max(peak, resident_mib(target.pid))
            ahead = read / (size_mib * _MIB) * seconds - (time.monotonic() - begun)
            if ahead > 0:
                time.sleep(ahead)
    engine.pace(interval_ms=10, event_bytes=200)
    return {
        "read_mib": round(read / _MIB, 1),
        "before_mib": round(before, 1),
        "growth_mib": round(peak - before, 2),
    }


def open_streams(target: Target, engine: EngineHandle, streams: int, minutes: float) -> dict[str, float]:
    """Resident memory over time with many open streams: the second minute's share of it against the last's."""
    assert target.pid is not None
    pid = target.pid
    engine.pace(interval_ms=500)
    samples: list[tuple[float, float]] = []
    begun = time.monotonic()

    def look() -> None:
        samples.append((time.monotonic() - begun, resident_mib(pid)))

    seconds = minutes * 60
    load(
        Job(target.port, streams, streams, int(seconds / 0.5), ramp_s=3, limit_s=seconds + 120),
        during=look,
    )
    # the first tenth fills pools, the end closes connections
    early = [mib for at, mib in samples if 0.1 < at / seconds < 0.3]
    late = [mib for at, mib in samples if 0.8 < at / seconds < 1]
    engine.pace(interval_ms=10)
    return {
        "early_mib": round(statistics.median(early), 1),
        "late_mib": round(statistics.median(late), 1),
        "growth_mib": round(statistics.median(late) - statistics.median(early), 2),
    }


def leaving(target: Target, engine: EngineHandle, times: int) -> dict[str, float]:
    """Milliseconds from a client's leaving during prefill to the engine's noticing, the longest and the middle one."""
    engine.pace(prefill_ms=60_000)
    took = []
    for number in range(times):
        known = engine.seen()["left"] + 1
        with socket.create_connection(("127.0.0.1", target.port), timeout=30) as client:
            client.sendall(request_bytes(Job(target.port, 1, 1, max_tokens=100 * (number % 2))))
            _until(lambda: engine.seen()["unfinished"] == 1, "the engine has no request")
            closed = time.monotonic()
        _until(partial(_left, engine, known), "the engine works on")
        took.append((engine.seen()["left_at"] - closed) * 1e3)
    engine.pace(prefill_ms=0)
    return {"median_ms": round(statistics.median(took), 2), "longest_ms": round(max(took), 2)}


def _left(engine: EngineHandle, times: int) -> bool:
    return bool(engine.seen()["left"] == times)


def _until(condition: Callable[[], bool], otherwise: str, limit_s: float = 10) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{otherwise} after {limit_s:g} s")
        time.sleep(0.005)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="how long 1,000 streams stay open")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    prepare()
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        engine = stack.enter_context(mock_engine())
        target = start(PEERS["us"], engine, directory / "us", stack)
        cases: list[tuple[str, Callable[[], dict[str, float]]]] = [
            ("a client leaves during prefill", lambda: leaving(target, engine, 20)),
            ("50 MiB to a slow reader", lambda: slow_reader(target, engine, 50, 10)),
            (
                f"{options.streams} streams, {options.minutes:g} minutes",
                lambda: open_streams(target, engine, options.streams, options.minutes),
            ),
        ]
        for name, measure in cases:
            try:
                results[name] = measure()
            except RuntimeError as exc:
                results[name] = {"failed": str(exc)}
            print(
                f"  {name:<34}" + "   ".join(f"{key} {value}" for key, value in results[name].items()),
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
