"""Facts of a host's GPUs with what is wrong with them, and whether they are well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.collect import collect
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.health import diagnose, verdict, verdict_of
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host


def observe(host: Host, catalog: Mapping[str, Any], expect: Mapping[str, Any]) -> dict[str, Any]:
    """Facts, findings and verdicts, as plain data. ``catalog``: see ``generations``, ``expect``: see ``diagnose``."""
    facts = collect(host, catalog)
    findings = diagnose(facts, expect)
    for gpu in facts["gpus"]:
        gpu["health"] = verdict_of(gpu, findings)
    return {**facts, "findings": findings, "health": verdict(facts, findings)}
