"""Edge hosts and the addresses that move, as an operator wants to read them. Pure functions over plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import Facts, answered
from ansible_collections.modelyard.fleet.plugins.module_utils.fleet_status import why_silent

Row = dict[str, Any]
UP, DOWN, UNKNOWN = "up", "down", "unknown"


def edge_row(host: str, seen: Facts, declared: Facts, certificates: Sequence[Facts]) -> Row:
    """One edge host. ``state`` is HAProxy's; ``certificate`` the one that ends first, ``days_left`` until it does."""
    row: Row = {
        "host": host, "state": UNKNOWN, "address_service": UNKNOWN, "holds": [], "generation": None, "certificate": None,
        "days_left": None, "proxies_up": [], "proxies_down": [], "reason": "",
    }  # fmt: skip
    if not answered(seen):
        return row | {"reason": why_silent(seen)}
    running = seen["haproxy"]
    here = seen["addresses"]["here"]
    ends = sorted(
        (one for one in certificates if one["days_left"] is not None), key=lambda one: one["days_left"]
    )
    first: Facts = ends[0] if ends else {"name": None, "days_left": None}
    return row | {
        "state": running["state"],
        "address_service": _service(seen, declared),
        "holds": [one for one in declared.get("addresses") or () if one in (here or ())],
        "generation": running["generation"],
        "certificate": first["name"],
        "days_left": first["days_left"],
        "proxies_up": sorted(name for name, state in running["proxies"].items() if state == UP),
        "proxies_down": sorted(name for name, state in running["proxies"].items() if state != UP),
        "reason": running["reason"] if running["state"] != UP else "",
    }


def _service(seen: Facts, declared: Facts) -> str:
    """keepalived's: ``up``, ``down``, ``unknown``, or ``none`` where no address moves."""
    if not declared.get("moves"):
        return "none" if declared else UNKNOWN
    unit = seen["units"].get("address")
    return UNKNOWN if unit is None else UP if unit["active"] in ("active", "reloading") else DOWN


def address_rows(seen: Mapping[str, Facts], addresses: Iterable[str]) -> list[Row]:
    """Every address that moves, with who has it (``holders``).

    ``up``: exactly one host has it. ``down``: all hosts were seen and none has it, or several have it (no matter who was
    not seen). ``unknown``: none of those that were seen has it, and some were not.
    """
    here = {host: one["addresses"]["here"] if answered(one) else None for host, one in seen.items()}
    silent = sorted(host for host, found in here.items() if found is None)
    rows = []
    for address in dict.fromkeys(addresses):
        holders = sorted(host for host, found in here.items() if address in (found or ()))
        state, reason = UP, ""
        if len(holders) > 1:
            state, reason = DOWN, f"{len(holders)} hosts have it"
        elif not holders and silent:
            state, reason = UNKNOWN, f"nobody that was seen has it; not seen: {', '.join(silent)}"
        elif not holders:
            state, reason = DOWN, "no edge host has it"
        rows.append({"address": address, "state": state, "holders": holders, "reason": reason})
    return rows
