"""The plan for people: a table; and results for programs: a file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Action -> sign and colour, in the order in which they are shown.
_LOOK = {
    "stop": ("-", "red"),
    "start": ("+", "green"),
    "replace": ("~", "yellow"),
    "unknown": ("?", "magenta"),
    "keep": ("=", "bright gray"),
}
_MOST_KEPT = 40


def write_json(path: str, data: Mapping[str, Any]) -> None:
    """Write a result whole or not at all; readable by its owner only."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with os.fdopen(
        os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump(data, file, indent=2, sort_keys=True)
        file.write("\n")
    part.replace(target)


def count(findings: Iterable[Mapping[str, Any]], severity: str) -> int:
    """How many findings are of this severity."""
    return Counter(item["severity"] for item in findings)[severity]


def by_host(
    findings: Iterable[Mapping[str, Any]],
    words: Callable[[Mapping[str, Any]], str],
    colours: Mapping[str, str],
) -> list[tuple[str, str | None]]:
    """Findings as text, one host after the other, each line with the colour of its severity."""
    told: list[tuple[str, str | None]] = []
    host = None
    for item in findings:
        if item["host"] != host:
            host = item["host"]
            told += [("", None), (host, "bright blue")]
        told.append((f"  {words(item)}", colours[item["severity"]]))
    return told


def table(report: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Lines of text with their colours (None is the usual one)."""
    order = list(_LOOK)
    changes = sorted(
        report["changes"],
        key=lambda one: (order.index(one["action"]), one["host"], one["replica"]),
    )
    kept = [one for one in changes if one["action"] == "keep"]
    shown = changes if len(kept) <= _MOST_KEPT else [one for one in changes if one["action"] != "keep"]
    if shown:
        widths = [max(len(one[key]) for one in shown) for key in ("action", "replica")]
        yield f"  {'':1} {'action':<{widths[0]}}  {'replica':<{widths[1]}}  why", None
        for one in shown:
            sign, colour = _LOOK[one["action"]]
            line = f"  {sign} {one['action']:<{widths[0]}}  {one['replica']:<{widths[1]}}  {one['reason']}"
            yield line.rstrip(), colour
    if len(kept) > _MOST_KEPT:
        yield f"  = {len(kept)} replicas stay as they are", _LOOK["keep"][1]
    yield "", None
    silent = [name for name, host in report["hosts"].items() if host["state"] == "unknown"]
    if silent:
        yield f"Not seen, left as they are: {', '.join(silent)}", "magenta"
    for note in report["notes"]:
        yield f"Note: {note}", "bright yellow"
    for problem in report["problems"]:
        yield f"Problem: {problem}", "bright red"
    counts = report["counts"]
    yield (
        f"Plan: {counts['start']} to start, {counts['stop']} to stop, {counts['replace']} to replace, "
        f"{counts['keep']} stay, {counts['unknown']} unknown.",
        "bright blue" if counts["start"] + counts["stop"] + counts["replace"] else "green",
    )
