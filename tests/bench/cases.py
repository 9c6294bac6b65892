"""What is measured of one system in one round. Milliseconds, microseconds and MiB, as the names of the figures say."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .load import Job, Result
from .processes import EngineHandle, cpu_s, load, resident_mib

Figures = dict[str, float]
# no end but that of time
_MANY = 10**9


@dataclass(frozen=True, slots=True)
class Size:
    """How much load makes one figure.

    Plain requests go on for ``plain_s`` seconds, over one connection for ``alone_s``: a fast system and a slow one are
    looked at for as long, so that both even the machine's moods out. Streams are counted; ``stream_s`` is about how long
    each lasts.
    """

    plain_s: float = 1.5
    alone_s: float = 0.7
    streams: int = 200
    chunks: int = 100
    first_streams: int = 256
    open_streams: int = 1000
    stream_s: float = 2.0

    def part(self, share: float) -> Size:
        """The load for a system that needs only a part of it."""
        if share == 1:
            return self
        return replace(
            self,
            streams=max(4, int(self.streams * share)),
            first_streams=max(4, int(self.first_streams * share)),
            open_streams=max(20, int(self.open_streams * share)),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A running system. ``pid`` is the root of its processes, ``None`` where the engine is asked directly."""

    name: str
    port: int
    pid: int | None
    share: float = 1.0


def _spent(target: Target, job: Job) -> tuple[float, Result]:
    """Processor seconds of the system for a job, and the job's result."""
    before = cpu_s(target.pid) if target.pid else 0.0
    result = load(job)
    return (cpu_s(target.pid) - before if target.pid else 0.0), result


def _cuts(seconds: Sequence[float], name: str) -> Figures:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}


def plain(target: Target, engine: EngineHandle, size: Size) -> Figures:
    """Short answers over 64 connections."""
    spent, result = _spent(target, Job(target.port, 64, _MANY, seconds=size.plain_s))
    count = len(result.seconds)
    found = {"requests_per_s": count / result.took_s, **_cuts(result.seconds, "c64")}
    return {**found, "cpu_request_us": spent / count * 1e6} if target.pid else found


def alone(target: Target, engine: EngineHandle, size: Size) -> Figures:
    """Short answers over one connection."""
    return _cuts(load(Job(target.port, 1, _MANY, seconds=size.alone_s)).seconds, "c1")


def chunks(target: Target, engine: EngineHandle, size: Size) -> Figures:
    """Many streams of many chunks, 10 ms apart."""
    engine.pace(interval_ms=10)
    job = Job(target.port, size.streams, 2 * size.streams, max_tokens=size.chunks, ramp_s=0.2)
    spent, result = _spent(target, job)
    if not target.pid:
        return {}
    return {
        "cpu_chunk_us": spent / (2 * size.streams * size.chunks) * 1e6,
        # how much longer than the engine needs: a system at its limit falls behind the rhythm
        "stream_stretch": statistics.median(result.seconds) / (size.chunks * 0.01),
    }


def first(target: Target, engine: EngineHandle, size: Size) -> Figures:
    """Time to the first token while 256 streams of 20 tokens a second go on."""
    engine.pace(interval_ms=50)
    tokens = int(size.stream_s / 0.05)
    count = size.first_streams
    job = Job(target.port, count, 2 * count, max_tokens=tokens, ramp_s=size.stream_s)
    return _cuts(load(job).first_s, "ttft")


def open_streams(target: Target, engine: EngineHandle, size: Size) -> Figures:
    """Memory while 1,000 streams are open."""
    if not target.pid:
        return {}
    pid = target.pid
    engine.pace(interval_ms=500)
    tokens = int(2 * size.stream_s / 0.5) + 4
    peak = 0.0

    def look() -> None:
        nonlocal peak
        peak = max(peak, resident_mib(pid))

    count = size.open_streams
    load(Job(target.port, count, count, max_tokens=tokens, ramp_s=size.stream_s), during=look)
    name = "resident_1000_mib" if count == 1000 else f"resident_{count}_mib"
    return {name: peak}


EVERY_ROUND: Sequence[Callable[[Target, EngineHandle, Size], Figures]] = (plain, alone, chunks, first)
ONCE: Sequence[Callable[[Target, EngineHandle, Size], Figures]] = (open_streams,)
