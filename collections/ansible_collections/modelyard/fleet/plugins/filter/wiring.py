"""Filters that hand the plan on to the roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import rolling, sweeping, weights_share, wiring
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor import gpus

DOCUMENTATION = r"""
name: wiring
short_description: The plan as the roles take it
description: See the functions of module_utils/wiring.py.
"""


def weights_shares(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """``offers`` of those hosts that made one, and ``shares``: who fetches what, and who copies from whom."""
    offers = {
        host: dict(offer)
        for host in hosts
        if (offer := hostvars[host].get("__model_weights_offer")) is not None
    }
    return {"offers": offers, "shares": weights_share.shares(offers)}


def weights_listing(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """What the hosts that looked (``__weights_sweep``) could remove together, and the value that confirms it."""
    looks = {host: dict(look) for host in hosts if (look := hostvars[host].get("__weights_sweep"))}
    return sweeping.listing({host: look["found"] for host, look in looks.items() if "found" in look})


def proved_before(plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> int:
    """How many replicas have given their generation when they were compared (``__fleet_compared``)."""
    return sum(
        len(wiring.to_run(entry["replicas"]))
        - len(wiring.to_prove(plan, host, hostvars[host].get("__fleet_compared") or {}))
        for host, entry in plan["hosts"].items()
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "weights_items": wiring.weights_items,
            "weights_shares": weights_shares,
            "weights_in_use": wiring.weights_in_use,
            "weights_listing": weights_listing,
            "weights_peer": weights_share.peer,
            "weights_rate": weights_share.rate,
            "weights_sizes": weights_share.sizes,
            "proved_before": proved_before,
            "to_prove": wiring.to_prove,
            "to_run": wiring.to_run,
            "holders": wiring.holders,
            "gpus_expected": gpus.expected,
            "kept_on": wiring.kept_on,
            "unknown_model": wiring.unknown_model,
            "without_model": wiring.without_model,
            "stops": wiring.stops,
            "proxy_targets": wiring.proxy_targets,
            "registry_at": rolling.registry_at,
            "used_of_step": rolling.used_of_step,
            "of_step": rolling.of_step,
            "stops_of_step": rolling.stops_of_step,
            "ends_of": rolling.ends_of,
            "to_confirm": rolling.to_confirm,
            "not_back": rolling.not_back,
            "earlier": rolling.earlier,
            "failed_word": rolling.failed_word,
            "images_of": rolling.images_of,
        }
