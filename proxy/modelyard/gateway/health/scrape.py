"""The few figures that matter, out of an engine's metrics page.

A page of vLLM has hundreds of kilobytes, most of them histograms. Lines are found by name, so that reading
one costs a search and not a parse of all of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelyard.catalog.loader import EngineMetrics

# labels (a quoted value may hold anything, braces and spaces too), then the value
_SAMPLE = re.compile(rb'(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*+")*+\})?[ \t]+(\S+)')
# more label sets than data-parallel ranks or methods could ever make
_MOST_SAMPLES = 512
_LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class Figures:
    """One scrape; ``None`` where the engine does not say (never zero: unknown is neutral)."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    progress: float | None = None


def read_figures(page: bytes, names: EngineMetrics) -> Figures:
    """The figures in ``page``, which is in Prometheus' text format or anything at all.

    An engine with data-parallel ranks shows a sample for each: requests add up, the fullest cache counts.
    """
    lines = b"\n" + page
    return Figures(
        running=_first(lines, names.running, sum),
        waiting=_first(lines, names.waiting, sum),
        kv_usage=_first(lines, names.kv_usage, max),
        progress=_first(lines, names.progress, sum),
    )


def _first(lines: bytes, names: Sequence[str], join: Callable[[Iterable[float]], float]) -> float | None:
    for name in names:
        samples = _samples(lines, b"\n" + name.encode())
        if samples:
            return join(samples)
    return None


def _samples(lines: bytes, name: bytes) -> list[float]:
    """The values of all lines that begin with ``name``; none at all where one of them makes no sense."""
    found: list[float] = []
    at = lines.find(name)
    while at >= 0:
        start = at + len(name)
        if lines[start : start + 1] in (b"{", b" ", b"\t"):
            value = _value(lines[start : start + _LONGEST_LINE])
            if value is None or len(found) == _MOST_SAMPLES:
                return []
            found.append(value)
        at = lines.find(name, start)
    return found


def _value(rest: bytes) -> float | None:
    match = _SAMPLE.match(rest.partition(b"\n")[0])
    if match is None:
        return None
    try:
        value = float(match[1])
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
