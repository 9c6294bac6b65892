"""What a request costs in the proxy: processor time, and time added to a direct request.

    python -m tests.bench.bench_proxy [--requests 4000] [--connections 64] [--json FILE]

One echo engine on loopback is asked directly and through `modelyard serve`, with health checks and metrics on. Processor
time is the proxy's own, user and system, as the system accounts it. Absolute figures drift with the machine: compare
the two rows of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TICK = os.sysconf("SC_CLK_TCK")
# about 500 bytes, as a short chat is
BODY = json.dumps(
    {"model": "echo", "max_tokens": 16, "messages": [{"role": "user", "content": "benchmark " * 40}]}
).encode()
STREAM = json.dumps(
    {
        "model": "echo",
        "max_tokens": 100,
        "stream": True,
        "messages": [{"role": "user", "content": "words " * 20}],
    }
).encode()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(port: int, *arguments: str) -> Iterator[int]:
    """A `modelyard` command in the background, ready to answer; yields its process id."""
    with subprocess.Popen(
        [sys.executable, "-m", "modelyard", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/v1/models"), process)
            yield process.pid
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_until(condition: Any, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Poll until the condition holds; fail when the process ends or time runs out."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args!r} does not answer")
        time.sleep(0.05)


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Connection:
    """One keep-alive connection that knows just enough HTTP for the answers it gets."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def ask(self, body: bytes) -> tuple[float, int]:
        """Seconds until the answer was whole, and the number of events in it."""
        begun = time.perf_counter()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if not answer.startswith(b"http/1.1 200"):
            raise SystemExit(f"the answer was {answer.splitlines()[0].decode()}")
        if b"transfer-encoding: chunked" in answer:
            return time.perf_counter() - begun, await self._chunks()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return time.perf_counter() - begun, 0

    async def _chunks(self) -> int:
        events = 0
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            events += (await self._reader.readexactly(size + 2)).count(b"data:")
        await self._reader.readexactly(2)
        return events

    def close(self) -> None:
        self._writer.close()


async def load(port: int, connections: int, total: int, body: bytes) -> tuple[list[float], int]:
    """Latencies in seconds and the number of events, over this many connections at once."""
    latencies: list[float] = []
    events = 0
    left = iter(range(total))

    async def one() -> None:
        nonlocal events
        connection = await Connection(port).open()
        for _ in left:
            seconds, seen = await connection.ask(body)
            latencies.append(seconds)
            events += seen
        connection.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return latencies, events


def case(port: int, pid: int, connections: int, total: int, body: bytes) -> dict[str, float]:
    """One row of the table; processor time is that of ``pid``."""
    asyncio.run(load(port, connections, max(connections, total // 10), body))
    before, begun = cpu_s(pid), time.perf_counter()
    latencies, events = asyncio.run(load(port, connections, total, body))
    took, used = time.perf_counter() - begun, cpu_s(pid) - before
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "requests_per_s": round(total / took, 1),
        "p50_ms": round(cuts[49] * 1e3, 3),
        "p99_ms": round(cuts[98] * 1e3, 3),
        "cpu_us_per_request": round(used / total * 1e6, 1),
        "cpu_us_per_event": round(used / events * 1e6, 2) if events else 0.0,
        "resident_mib": round(resident_mib(pid), 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    engine_port, proxy_port = free_port(), free_port()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        registry = Path(directory, "endpoints.yml")
        endpoint = {"id": "bench", "url": f"http://127.0.0.1:{engine_port}", "engine": "echo"}
        registry.write_text(json.dumps({"version": 1, "models": {"echo": {"endpoints": [endpoint]}}}))
        with (
            running(engine_port, "echo", "--model", "echo", "--port", str(engine_port)) as engine,
            running(
                proxy_port,
                "serve",
                "--registry",
                str(registry),
                "--port",
                str(proxy_port),
                "--log-level",
                "warning",
            ) as proxy,
        ):
            for name, body, connections, total in (
                ("c=1", BODY, 1, options.requests // 4),
                (f"c={options.connections}", BODY, options.connections, options.requests),
                ("streams", STREAM, options.connections, options.requests // 20),
            ):
                results[f"direct {name}"] = case(engine_port, engine, connections, total, body)
                results[f"proxy {name}"] = case(proxy_port, proxy, connections, total, body)
    columns = list(next(iter(results.values())))
    print(f"{'':<16}" + "".join(f"{column:>20}" for column in columns))
    for name, row in results.items():
        print(f"{name:<16}" + "".join(f"{row[column]:>20}" for column in columns))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
