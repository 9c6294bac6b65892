"""Lists of targets: Prometheus' ``file_sd`` and the endpoints file of llm-d's endpoint picker."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from modelyard.catalog.loader import load_engines
from modelyard.registry.exports.common import HEADER, address_of, comment, shares, unsaid, word
from modelyard.registry.model import Model
from modelyard.yaml_text import yaml_text


def file_sd(models: Collection[Model]) -> str:
    """Every replica as a target for its engine's metrics; one that drains or is disabled has that as its ``state``.

    Labels: ``model``, ``replica``, ``engine``, ``task``, ``state`` and, where it is known, ``host``.
    """
    groups: list[dict[str, Any]] = []
    engines = load_engines()
    for model in models:
        for item in model.endpoints:
            address = address_of(item)
            if address is None or item.engine not in engines:
                continue
            labels = {
                "__metrics_path__": address.path + engines[item.engine].metrics.path,
                "__scheme__": address.scheme,
                "engine": item.engine,
                "model": model.id,
                "replica": item.id,
                "state": item.state,
                "task": model.task,
            }
            if item.host:
                labels["host"] = item.host
            groups.append({"targets": [address.authority], "labels": labels})
    return json.dumps(groups, indent=2, sort_keys=True) + "\n"


def llm_d(models: Collection[Model]) -> str:
    """The file of llm-d's plugin ``file-discovery``: active replicas at literal IPv4 addresses, without TLS.

    It refuses its whole file for one address of another kind, so those are left out. It chooses among all
    endpoints of the file: one picker wants a file of one base model.
    """
    remarks: list[str] = []
    endpoints: list[dict[str, Any]] = []
    names: set[str] = set()
    for model in models:
        parts = shares(model)
        remarks += unsaid(model, weights=False)
        for item in model.endpoints:
            if not parts.get(item.id):
                continue
            address = address_of(item)
            if address is None or not address.is_ipv4 or address.scheme != "http" or address.path:
                remarks.append(f"{item.id}: left out, it is not http:// and a literal IPv4 address")
                continue
            name = word(item.id)
            while name in names:
                name += "-"
            names.add(name)
            endpoints.append(
                {
                    "name": name,
                    "address": address.host,
                    "port": str(address.port),
                    "labels": {"model": word(model.id), "engine": word(item.engine)},
                }
            )
    if len(models) > 1:
        remarks.append("several models in one file: one endpoint picker wants the replicas of one model")
    lines = [comment(HEADER), *(comment(remark) for remark in remarks)]
    return "\n".join(lines) + "\n" + yaml_text({"endpoints": endpoints})
