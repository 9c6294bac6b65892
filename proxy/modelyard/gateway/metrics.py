"""Prometheus metrics of one proxy, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.model import Model

from .replicas import Replica, ReplicaPool, ReplicaState

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts requests and attempts; ``Observer`` of the forwarder. Labels come from the registry and the
    route table only, never from what a client sent.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "modelyard_requests",
            "Requests answered, by route, model and status (499: the client left).",
            ["route", "model", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "modelyard_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_byte = Histogram(
            "modelyard_first_byte_seconds",
            "Time to the first byte of an engine's answer, failed attempts included.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._attempts = Counter(
            "modelyard_attempts",
            "Attempts on replicas by result: ok or an error code.",
            ["model", "replica", "result"],
            registry=registry,
        )
        self._broken = Counter(
            "modelyard_broken_streams",
            "Answers cut after their first byte had gone out.",
            ["model", "replica"],
            registry=registry,
        )

    def attempt(self, replica: Replica, result: str) -> None:
        """See ``forward.Observer``."""
        self._attempts.labels(replica.model_id, replica.id, result).inc()

    def first_byte(self, model: Model, seconds: float) -> None:
        """See ``forward.Observer``."""
        self._first_byte.labels(model.id).observe(seconds)

    def broken_stream(self, replica: Replica) -> None:
        """An answer of ``replica`` was cut in the middle."""
        self._broken.labels(replica.model_id, replica.id).inc()

    def request(self, route: str, model: str, status: int, seconds: float) -> None:
        """One request has ended."""
        self._requests.labels(route, model, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def forget(self, replica: Replica) -> None:
        """Drop the series of a replica that the registry no longer has."""
        self._attempts.remove_by_labels({"replica": replica.id})
        self._broken.remove_by_labels({"replica": replica.id})

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)


class StateCollector(Collector):
    """Reads gauges from the live objects at scrape time, so that they cannot drift from them."""

    def __init__(self, pool: ReplicaPool, keeper: RegistryKeeper, now: Callable[[], datetime]) -> None:
        self._pool = pool
        self._keeper = keeper
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Nothing: naming the metrics beforehand would mean collecting them."""
        return []

    def collect(self) -> Iterable[Metric]:
        """One snapshot."""
        labels = ["model", "replica"]
        in_flight = GaugeMetricFamily(
            "modelyard_replica_in_flight", "Requests on a replica now.", labels=labels
        )
        state = GaugeMetricFamily(
            "modelyard_replica_state", "1 for the state that a replica is in.", labels=[*labels, "state"]
        )
        now = self._now()
        counts: dict[str, Replica] = {}
        for replica in self._pool.everyone():
            # a replica that moved shares its id with its successor until its last request ends
            if replica.id in counts:
                continue
            counts[replica.id] = replica
            in_flight.add_metric([replica.model_id, replica.id], replica.in_flight)
            current = replica.state(now)
            for each in ReplicaState:
                state.add_metric([replica.model_id, replica.id, each.value], float(each is current))
        status = self._keeper.status
        yield in_flight
        yield state
        yield _gauge("modelyard_registry_generation", "Generation in force.", self._keeper.current.generation)
        yield _gauge("modelyard_registry_models", "Models in force.", len(self._keeper.current.models))
        yield _gauge("modelyard_registry_taken", "Registries taken since the start.", status.taken)
        yield _gauge("modelyard_registry_refused", "Registries refused since the start.", status.refused)
        yield _gauge(
            "modelyard_registry_in_step",
            "1 while the registry in force is what the file says, 0 while the file is refused or missing.",
            int(status.in_step),
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
