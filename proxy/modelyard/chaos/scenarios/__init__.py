"""Every scenario, in the order in which they run."""

from __future__ import annotations

from ..scenario import Scenario
from . import clients, connections, errors, fleet, health, lies, resilience, silence, streams, translated

SCENARIOS: tuple[Scenario, ...] = (
    *silence.SCENARIOS,
    *streams.SCENARIOS,
    *lies.SCENARIOS,
    *errors.SCENARIOS,
    *translated.SCENARIOS,
    *connections.SCENARIOS,
    *clients.SCENARIOS,
    *health.SCENARIOS,
    *resilience.SCENARIOS,
    *fleet.SCENARIOS,
)
