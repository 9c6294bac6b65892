"""The table of the proxy's metrics: the one list that rendering, the documentation and the tests read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. ``name`` is what is scraped, ``labels`` in order, ``help`` the line that documents it.
    ``over_workers``: how the gauges of several workers make one.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    over_workers: Literal["sum", "min", "max"] = "max"


REQUESTS = Row(
    "modelyard_requests_total",
    "counter",
    ("route", "model", "status"),
    "Requests answered; 499: the client left.",
)
REQUEST_SECONDS = Row(
    "modelyard_request_seconds",
    "histogram",
    ("route", "model"),
    "Whole duration, from a request's head to the end of its answer.",
)
FIRST_BYTE = Row(
    "modelyard_first_byte_seconds",
    "histogram",
    ("model",),
    "From the whole request to the first byte of the engine's answer, failed attempts included.",
)
FIRST_TOKEN = Row(
    "modelyard_time_to_first_token_seconds",
    "histogram",
    ("model",),
    "The same for streamed answers only: until the first event.",
)
PER_TOKEN = Row(
    "modelyard_time_per_output_token_seconds",
    "histogram",
    ("model",),
    "Of streamed answers: time between two tokens after the first, on average over the answer.",
)
TOKENS = Row(
    "modelyard_tokens_total",
    "counter",
    ("model", "kind", "source"),
    "Tokens by kind (prompt, completion); source `usage`: the engine said so, `counted`: events of a stream.",
)
QUEUE_SECONDS = Row(
    "modelyard_queue_seconds",
    "histogram",
    ("model",),
    "Of requests that had to wait for a free replica: how long.",
)
OVERHEAD = Row(
    "modelyard_overhead_seconds",
    "histogram",
    ("model",),
    "Time in the proxy from the whole request to the choice of its first replica, the queue left out.",
)
RETRIES = Row("modelyard_retries_total", "counter", ("model",), "Attempts beyond the first of a request.")
FALLBACKS = Row(
    "modelyard_fallbacks_total",
    "counter",
    ("model",),
    "Requests for the model that one of its fallbacks answered.",
)
ATTEMPTS = Row(
    "modelyard_attempts_total",
    "counter",
    ("model", "replica", "result"),
    "Attempts by result: `ok` or an error code.",
)
BROKEN = Row(
    "modelyard_broken_streams_total", "counter", ("model", "replica"), "Answers cut after their first byte."
)
RUNNING = Row(
    "modelyard_requests_running",
    "gauge",
    ("model", "state"),
    "Requests for a model now: waiting (for the first byte), queued, streaming.",
    over_workers="sum",
)
IN_FLIGHT = Row("modelyard_replica_in_flight", "gauge", ("model", "replica"), "Requests on a replica now.")
REPLICA_STATE = Row(
    "modelyard_replica_state",
    "gauge",
    ("model", "replica", "state"),
    "1 for the state it is in; other states are left out.",
)
HUNG = Row(
    "modelyard_replica_hung",
    "gauge",
    ("model", "replica"),
    "1 while it has work and makes no progress, whatever `MODELYARD_HUNG_ACTION` says.",
)
ENGINE_RUNNING = Row(
    "modelyard_replica_engine_running",
    "gauge",
    ("model", "replica"),
    "Requests that its engine says it works on; left out where it does not say.",
)
ENGINE_WAITING = Row(
    "modelyard_replica_engine_waiting",
    "gauge",
    ("model", "replica"),
    "Requests that its engine says wait in its own queue.",
)
ENGINE_KV_USAGE = Row(
    "modelyard_replica_engine_kv_usage",
    "gauge",
    ("model", "replica"),
    "Share of its cache that its engine says is full.",
)
OLDEST_PROBE = Row(
    "modelyard_oldest_probe_age_seconds",
    "gauge",
    (),
    "Age of the last look at the replica that has waited longest for one.",
)
LOG_DROPPED = Row(
    "modelyard_access_log_dropped_total",
    "counter",
    (),
    "Lines of the access log that could not be written.",
)
BREAKER = Row(
    "modelyard_replica_breaker",
    "gauge",
    ("model", "replica", "state"),
    "1 for a replica whose circuit breaker is open or half open; closed ones are not shown.",
)
WAITING = Row(
    "modelyard_queue_requests",
    "gauge",
    ("model",),
    "Requests that wait because no replica can take them.",
    over_workers="sum",
)
SUSPECTS = Row(
    "modelyard_suspects",
    "gauge",
    ("state",),
    "Kinds of requests under which a replica died (suspected), or that are refused for it (condemned).",
)
BUDGET_REFUSED = Row(
    "modelyard_retry_budget_refused_total",
    "counter",
    (),
    "Retries that were not made because too many had not helped.",
)
MIRRORED = Row("modelyard_mirrored_total", "counter", (), "Copies of requests sent to another model.")
MIRRORED_NOT = Row(
    "modelyard_mirror_left_out_total", "counter", (), "Copies not sent: the other model is too slow, or gone."
)
GENERATION = Row("modelyard_registry_generation", "gauge", (), "Generation in force.", over_workers="min")
MODELS = Row("modelyard_registry_models", "gauge", (), "Models in force.")
TAKEN = Row("modelyard_registry_taken", "gauge", (), "Registries taken since the start.")
REFUSED = Row("modelyard_registry_refused", "gauge", (), "Registries refused since the start.")
IN_STEP = Row(
    "modelyard_registry_in_step",
    "gauge",
    (),
    "1 while the registry in force is what the file says, 0 while the file is refused or missing.",
    over_workers="min",
)
COMPILED = Row(
    "modelyard_data_path_compiled",
    "gauge",
    (),
    "1 where the path of requests runs as machine code, 0 where it is interpreted.",
)

METRICS: tuple[Row, ...] = (
    REQUESTS,
    REQUEST_SECONDS,
    FIRST_BYTE,
    FIRST_TOKEN,
    PER_TOKEN,
    TOKENS,
    QUEUE_SECONDS,
    OVERHEAD,
    RETRIES,
    FALLBACKS,
    ATTEMPTS,
    BROKEN,
    RUNNING,
    IN_FLIGHT,
    REPLICA_STATE,
    HUNG,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    ENGINE_KV_USAGE,
    BREAKER,
    OLDEST_PROBE,
    WAITING,
    SUSPECTS,
    BUDGET_REFUSED,
    MIRRORED,
    MIRRORED_NOT,
    LOG_DROPPED,
    GENERATION,
    MODELS,
    TAKEN,
    REFUSED,
    IN_STEP,
    COMPILED,
)
