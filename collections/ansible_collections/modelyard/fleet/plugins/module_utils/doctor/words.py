"""What the doctor's findings look like, and how sentences write sizes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.findings import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    WARNING,
)

__all__ = ["CRITICAL", "NOTE", "UNKNOWN", "WARNING", "Facts", "Finding", "finding", "size", "some"]

Facts = Mapping[str, Any]
Finding = dict[str, Any]
"""``severity``, ``host``, ``kind``, ``code``, ``subject`` (a GPU's address, a replica, a directory ...) and ``text``."""
KINDS = (
    "host", "gpu", "engine", "toolkit", "disk", "memory", "load", "clock", "ports", "image", "weights", "replica", "proxy",
    "edge",
)  # fmt: skip
"""What findings are about; every one has one of these, and findings of one severity stand in this order."""


def finding(code: str, severity: str, host: str, kind: str, text: str, subject: str = "") -> Finding:
    """One finding. ``text`` says what is wrong and what to do, in whole sentences; names keep their letters."""
    named = bool(subject) and text.startswith(subject)
    return {
        "severity": severity,
        "host": host,
        "kind": kind,
        "code": code,
        "subject": subject,
        "text": text if named else text[:1].upper() + text[1:],
    }


def size(count: float) -> str:
    """Bytes as people write them."""
    for unit, length in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few of several names."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
