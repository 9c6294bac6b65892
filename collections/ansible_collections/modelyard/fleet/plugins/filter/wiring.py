"""Filters that hand the plan on to the roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import wiring

DOCUMENTATION = r"""
name: wiring
short_description: The plan as the roles take it
description: See the functions of module_utils/wiring.py.
"""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "weights_items": wiring.weights_items,
            "to_run": wiring.to_run,
            "unknown_model": wiring.unknown_model,
            "without_endpoints": wiring.without_endpoints,
            "without_model": wiring.without_model,
            "stops": wiring.stops,
            "proxy_targets": wiring.proxy_targets,
        }
