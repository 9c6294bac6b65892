"""Metrics of several workers as those of one proxy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from ..metric_rows import METRICS
from ..metrics import Metrics, Quiet

# one family: name, type, help, samples (name, labels, value)
Family = list[Any]
_OVER_WORKERS = {row.name: row.over_workers for row in METRICS}


def families(registry: CollectorRegistry) -> list[Family]:
    """What ``registry`` shows now, to be sent."""
    return [
        [
            metric.name,
            metric.type,
            metric.documentation,
            [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        ]
        for metric in registry.collect()
    ]


def merged(parts: Iterable[Sequence[Family]], truth: Sequence[Family] = ()) -> list[Family]:
    """The families of all ``parts`` in one: counts are added, gauges as their row says. What ``truth`` has
    counts alone.
    """
    known = {family[0]: family for family in truth}
    sums: dict[str, tuple[Family, dict[tuple[Any, ...], list[Any]]]] = {}
    for part in parts:
        for family in part:
            name, kind, text, samples = family
            if name in known:
                continue
            if name not in sums:
                sums[name] = ([name, kind, text, []], {})
            rule = "sum" if kind != "gauge" else _OVER_WORKERS.get(name, "max")
            seen = sums[name][1]
            for sample in samples:
                key = (sample[0], *sorted(sample[1].items()))
                other = seen.get(key)
                if other is None:
                    seen[key] = list(sample)
                elif rule == "sum":
                    other[2] += sample[2]
                else:
                    other[2] = (min if rule == "min" else max)(other[2], sample[2])
    together = [[name, kind, text, list(seen.values())] for (name, kind, text, _), seen in sums.values()]
    return [*together, *known.values()]


def counts(part: Sequence[Family]) -> list[Family]:
    """What stays true of a worker that has ended: its counters and histograms."""
    return [family for family in part if family[1] != "gauge"]


class _Given(Quiet):
    def __init__(self, given: Iterable[Family]) -> None:
        self._given = given

    def collect(self) -> Iterable[Metric]:
        for name, kind, text, samples in self._given:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric


def rendered(given: Iterable[Family]) -> bytes:
    """The text exposition format."""
    return Metrics(_Given(given)).render()
