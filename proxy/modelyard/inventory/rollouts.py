"""Checks of how models are moved: ``rollout`` and ``golden``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.inventory.problems import KeyPath, Problem
from modelyard.inventory.source import is_known, mapping


def check_rollout(at: int, model: Mapping[str, Any], name: str) -> Iterator[Problem]:
    """Whether ``min_ready`` leaves a replica to be moved, and the golden answer can be looked for."""
    path: KeyPath = ("models", at)
    least = mapping(model.get("rollout")).get("min_ready")
    replicas = mapping(model.get("placement")).get("replicas", 1)
    if _number(least) and _number(replicas) and least >= max(replicas, 1):
        yield Problem(
            "min-ready-too-high",
            f"{least} of {replicas} replicas must serve at every moment, so none could ever be replaced.",
            (*path, "rollout", "min_ready"),
            f"Give at most {max(replicas - 1, 0)}, or raise placement.replicas.",
            model=name,
        )
    golden = mapping(model.get("golden"))
    if golden and model.get("task", "generate") != "generate" and is_known(model.get("task")):
        yield Problem(
            "golden-task",
            f"a golden answer is a text, and the task is {model['task']}.",
            (*path, "golden"),
            "Remove golden; smoke proves that the replica works.",
            model=name,
        )
    if "expect" in golden and "pattern" in golden:
        yield Problem(
            "golden-ambiguous",
            "expect and pattern are both given.",
            (*path, "golden", "pattern"),
            "Keep one of them.",
            model=name,
        )
    pattern = golden.get("pattern")
    if isinstance(pattern, str) and is_known(pattern):
        try:
            re.compile(pattern)
        except re.error as error:
            yield Problem(
                "bad-pattern",
                f"{pattern!r} is no regular expression: {error}.",
                (*path, "golden", "pattern"),
                "Escape what is meant literally with a backslash.",
                model=name,
            )


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
