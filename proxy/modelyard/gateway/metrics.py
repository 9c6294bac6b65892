"""Prometheus metrics of one proxy, rendered from what was counted and what is true when they are asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from modelyard.registry.keep import RegistryKeeper

from .access_log import AccessLog
from .breaker import BreakerState
from .build import is_compiled
from .metric_rows import (
    ATTEMPTS,
    BREAKER,
    BROKEN,
    BUDGET_REFUSED,
    COMPILED,
    ENGINE_KV_USAGE,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    FALLBACKS,
    FIRST_BYTE,
    FIRST_TOKEN,
    GENERATION,
    HUNG,
    IN_FLIGHT,
    IN_STEP,
    LOG_DROPPED,
    MIRRORED,
    MIRRORED_NOT,
    MODELS,
    OLDEST_PROBE,
    OVERHEAD,
    PER_TOKEN,
    QUEUE_SECONDS,
    REFUSED,
    REPLICA_STATE,
    REQUEST_SECONDS,
    REQUESTS,
    RETRIES,
    RUNNING,
    SUSPECTS,
    TAKEN,
    TOKENS,
    WAITING,
    Row,
)
from .mirror import Mirror
from .pursuits import Pursuits
from .replicas import ReplicaPool
from .tally import Histogram, Tally


class Metrics:
    """The registry of one proxy. Whoever has metrics of its own registers a collector with it."""

    def __init__(self, *collectors: Collector) -> None:
        self._turn = asyncio.Lock()
        self.registry = CollectorRegistry()
        for collector in collectors:
            self.registry.register(collector)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)

    def render_model(self, model_id: str) -> bytes:
        """The same, of one model only."""
        return generate_latest(_OfModel(self.registry, model_id))

    async def page(self, model_id: str | None = None) -> bytes:
        """``render`` or ``render_model`` beside the loop, one at a time: of ten thousand replicas it takes half
        a second, in which streams go on.
        """
        async with self._turn:
            if model_id is None:
                return await asyncio.to_thread(self.render)
            return await asyncio.to_thread(self.render_model, model_id)


class _OfModel(Collector):
    """The samples of another collector that carry one model's label."""

    def __init__(self, whole: Collector, model_id: str) -> None:
        self._whole = whole
        self._model_id = model_id

    def collect(self) -> Iterable[Metric]:
        for metric in self._whole.collect():
            mine = [sample for sample in metric.samples if sample.labels.get("model") == self._model_id]
            if mine:
                part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
                part.samples = mine
                yield part


class Quiet(Collector):
    """Collects in a thread beside the loop that counts: what may change its size is copied in one step."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: naming the metrics beforehand would mean collecting them."""
        return []


class TallyCollector(Quiet):
    """What has been counted since the start."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterable[Metric]:
        """One snapshot."""
        yield from self._of_routes()
        yield from self._of_models()
        attempts, broken = counter(ATTEMPTS), counter(BROKEN)
        for replica, seen in list(self._tally.replicas.items()):
            for result, count in list(seen.results.items()):
                attempts.add_metric([seen.model_id, replica, result], count)
            if seen.broken:
                broken.add_metric([seen.model_id, replica], seen.broken)
        yield attempts
        yield broken

    def _of_routes(self) -> Iterator[Metric]:
        requests, seconds = counter(REQUESTS), _histogram(REQUEST_SECONDS)
        for (route, model), seen in list(self._tally.routes.items()):
            for status, count in list(seen.statuses.items()):
                requests.add_metric([route, model, str(status)], count)
            _add(seconds, [route, model], seen.seconds)
        yield requests
        yield seconds

    def _of_models(self) -> Iterator[Metric]:
        models = list(self._tally.models.items())
        for row, name in (
            (FIRST_BYTE, "first_byte"),
            (FIRST_TOKEN, "first_token"),
            (PER_TOKEN, "per_token"),
            (QUEUE_SECONDS, "queued"),
            (OVERHEAD, "overhead"),
        ):
            family = _histogram(row)
            for model, seen in models:
                _add(family, [model], getattr(seen, name))
            yield family
        tokens, retries, fallbacks = counter(TOKENS), counter(RETRIES), counter(FALLBACKS)
        for model, seen in models:
            tokens.add_metric([model, "prompt", "usage"], seen.prompt_tokens)
            tokens.add_metric([model, "completion", "usage"], seen.completion_told)
            tokens.add_metric([model, "completion", "counted"], seen.completion_counted)
            retries.add_metric([model], seen.retries)
            fallbacks.add_metric([model], seen.served_by_fallback)
        yield from (tokens, retries, fallbacks)


class FleetCollector(Quiet):
    """What is true of the replicas, read from the live objects, so that it cannot drift from them."""

    def __init__(
        self, pool: ReplicaPool, now: Callable[[], datetime], oldest_look_s: Callable[[], float]
    ) -> None:
        self._pool = pool
        self._now = now
        self._oldest_look_s = oldest_look_s

    def collect(self) -> Iterable[Metric]:
        """One snapshot."""
        oldest = gauge(OLDEST_PROBE)
        oldest.add_metric([], self._oldest_look_s())
        yield oldest
        in_flight, state, hung = gauge(IN_FLIGHT), gauge(REPLICA_STATE), gauge(HUNG)
        breaker = gauge(BREAKER)
        figures = {
            "running": gauge(ENGINE_RUNNING),
            "waiting": gauge(ENGINE_WAITING),
            "kv_usage": gauge(ENGINE_KV_USAGE),
        }
        now = self._now()
        seen: set[str] = set()
        for replica in self._pool.everyone():
            # a replica that moved shares its id with its successor until its last request ends
            if replica.id in seen:
                continue
            seen.add(replica.id)
            labels = [replica.model_id, replica.id]
            in_flight.add_metric(labels, replica.in_flight)
            # the others are not shown as 0: ten lines more for each of perhaps thousands
            state.add_metric([*labels, replica.state(now).value], 1.0)
            if replica.breaker.state is not BreakerState.CLOSED:
                breaker.add_metric([*labels, replica.breaker.state.value], 1.0)
            hung.add_metric(labels, float(replica.health.hung_since is not None))
            load = replica.load
            for name, family in figures.items():
                value = getattr(load, name, None)
                if value is not None:
                    family.add_metric(labels, value)
        yield from (in_flight, state, hung, breaker, *figures.values())


class ProxyCollector(Quiet):
    """What is true of this process: its requests and its registry."""

    def __init__(
        self, pursuits: Pursuits, keeper: RegistryKeeper, access_log: AccessLog | None, mirror: Mirror
    ) -> None:
        self._pursuits = pursuits
        self._mirror = mirror
        self._keeper = keeper
        self._access_log = access_log

    def collect(self) -> Iterable[Metric]:
        """One snapshot."""
        running = gauge(RUNNING)
        counts = Counter((pursuit.model.id, pursuit.state) for pursuit in list(self._pursuits.running))
        for labels, count in counts.items():
            running.add_metric(labels, count)
        yield running
        waiting = gauge(WAITING)
        for model, count in self._pursuits.rooms.lengths().items():
            waiting.add_metric([model], count)
        yield waiting
        suspects = gauge(SUSPECTS)
        for state, count in Counter(
            "condemned" if case.condemned else "suspected" for case in self._pursuits.suspects.all().values()
        ).items():
            suspects.add_metric([state], count)
        yield suspects
        for row, value in (
            (BUDGET_REFUSED, self._pursuits.budget.refused),
            (MIRRORED, self._mirror.sent),
            (MIRRORED_NOT, self._mirror.left_out),
        ):
            total = counter(row)
            total.add_metric([], value)
            yield total
        dropped = counter(LOG_DROPPED)
        dropped.add_metric([], self._access_log.dropped if self._access_log else 0)
        yield dropped
        status, registry = self._keeper.status, self._keeper.current
        for row, value in (
            (GENERATION, registry.generation),
            (MODELS, len(registry.models)),
            (TAKEN, status.taken),
            (REFUSED, status.refused),
            (IN_STEP, int(status.in_step)),
            (COMPILED, int(is_compiled())),
        ):
            family = gauge(row)
            family.add_metric([], value)
            yield family


def counter(row: Row) -> CounterMetricFamily:
    """An empty family of ``row``, a counter."""
    return CounterMetricFamily(row.name, row.help, labels=row.labels)


def gauge(row: Row) -> GaugeMetricFamily:
    """An empty family of ``row``, a gauge."""
    return GaugeMetricFamily(row.name, row.help, labels=row.labels)


def _histogram(row: Row) -> HistogramMetricFamily:
    return HistogramMetricFamily(row.name, row.help, labels=row.labels)


def _add(family: HistogramMetricFamily, labels: list[str], seen: Histogram) -> None:
    """One series of ``family``; each bucket counts what the smaller ones do too."""
    buckets: list[tuple[str, float]] = []
    so_far = 0
    for bound, count in zip((*map(str, seen.bounds), "+Inf"), seen.counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    if so_far:
        family.add_metric(labels, buckets, sum_value=seen.total)
