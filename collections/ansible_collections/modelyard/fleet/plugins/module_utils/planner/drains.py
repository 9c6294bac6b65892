"""What the operator has taken out of use until further notice: hosts, models, replicas. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KINDS = ("host", "model", "replica")

Rule = Mapping[str, Any]
"""``kind``, ``name`` and ``since`` (seconds since the epoch)."""


def is_drained(rules: Iterable[Rule], replica: str, model: str, host: str) -> bool:
    """Whether a rule takes this replica out."""
    names = {"host": host, "model": model, "replica": replica}
    return any(names[rule["kind"]] == rule["name"] for rule in rules)


def added(rules: Iterable[Rule], asked: Mapping[str, str], now: float) -> list[dict[str, Any]]:
    """The rules with what is asked for; what is there already keeps its ``since``."""
    kept = [dict(rule) for rule in rules]
    known = {(rule["kind"], rule["name"]) for rule in kept}
    kept += [
        {"kind": kind, "name": name, "since": int(now)}
        for kind, name in asked.items()
        if (kind, name) not in known
    ]
    return sorted(kept, key=lambda rule: (rule["kind"], rule["name"]))


def taken_back(rules: Iterable[Rule], asked: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rules without what is asked for; ``{"all": ...}`` is every one of them."""
    if "all" in asked:
        return []
    return [dict(rule) for rule in rules if asked.get(rule["kind"]) != rule["name"]]


def still_drained(
    rules: Iterable[Rule], asked: Mapping[str, str], replicas: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Sentences about replicas that were asked back by name, and that another rule keeps out."""
    found = []
    for item in replicas:
        if asked.get("replica") == item["replica"]:
            found += [
                f"{item['replica']} stays drained, for its {rule['kind']} {rule['name']} is: undrain that"
                for rule in rules
                if rule["kind"] != "replica" and item[rule["kind"]] == rule["name"]
            ]
    return found


def read(document: Any) -> list[dict[str, Any]]:
    """The rules of a remembered document. Raises ``ValueError`` for what is none."""
    rules = document.get("drained") if isinstance(document, dict) and document.get("version") == 1 else None
    if not isinstance(rules, list) or any(
        not isinstance(rule, dict) or rule.get("kind") not in KINDS or not isinstance(rule.get("name"), str)
        for rule in rules
    ):
        raise ValueError("it holds no list of what is drained")
    return rules
