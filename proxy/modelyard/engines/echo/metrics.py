"""What the echo engine counts, under the names that ``catalog/engines/echo.yml`` declares."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class EchoMetrics:
    """The engine's metrics in one injected registry.

    ``running`` and ``waiting`` are requests, ``tokens`` generated tokens, ``prompt_tokens`` read ones,
    ``cancelled`` requests whose client left before the end.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.running = Gauge(
            "modelyard_echo_requests_running", "Requests that generate now.", registry=registry
        )
        self.waiting = Gauge(
            "modelyard_echo_requests_waiting", "Requests that wait for a free place.", registry=registry
        )
        self.tokens = Counter("modelyard_echo_tokens", "Tokens generated.", registry=registry)
        self.prompt_tokens = Counter(
            "modelyard_echo_prompt_tokens", "Tokens read from prompts.", registry=registry
        )
        self.served = Counter(
            "modelyard_echo_requests_served", "Generations answered to the end.", registry=registry
        )
        self.refused = Counter(
            "modelyard_echo_requests_refused", "Generations refused because all places were taken.",
            registry=registry,
        )  # fmt: skip
        self.cancelled = Counter(
            "modelyard_echo_requests_cancelled",
            "Generations stopped because the client left.",
            registry=registry,
        )

    def render(self) -> bytes:
        """The registry in Prometheus' text format."""
        return generate_latest(self._registry)
