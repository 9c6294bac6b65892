"""The edge against what ``site`` and ``edge`` would make of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.drift.words import (
    DRIFT,
    LOOK,
    SITE,
    UNKNOWN,
    Finding,
    finding,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import (
    answered,
    configuration_differences,
    service_differences,
    unseen,
)

Facts = Mapping[str, Any]
_AT_NEXT_START = f"{SITE}, in force with its next start: a restart would cut streams"


def edge_findings(host: str, seen: Facts, declared: Facts) -> Iterator[Finding]:
    """Everything by which one edge host that answered differs. ``seen`` is a result of the module ``edge_facts``."""
    for problem in declared.get("problems") or ():
        yield finding(
            DRIFT, host, "edge", host, "wish", "one that can be met", problem, f"{LOOK}: mend the inventory"
        )
    if not answered(seen):
        return
    for item in (
        (*service_differences(seen, declared), *configuration_differences(seen, declared)) if declared else ()
    ):
        yield finding(
            DRIFT, host, "edge", item["subject"], item["field"], item["wanted"], item["found"], _mended(item)
        )
    for why in unseen(seen, declared) if not declared.get("problems") else seen["problems"]:
        yield finding(UNKNOWN, host, "edge", host, "comparison", "", why, LOOK)


def _mended(item: Facts) -> str:
    if item["field"] == "unit file":
        return _AT_NEXT_START
    if item["found"] in ("masked", "masked-runtime"):
        return f"{LOOK}: somebody masked it (systemctl unmask)"
    if item["field"] == "generation in force":
        return f"{LOOK}: systemctl reload {item['subject']} lets it read what is there"
    return SITE
