"""The shape of a finding, and the words that say what to do about it."""

from __future__ import annotations

from typing import Any

Finding = dict[str, Any]
"""``severity``, ``host``, ``kind``, ``subject`` (replica, container, proxy ...), ``field``, ``wanted``, ``found``,
``what`` (what to do, beginning with one of the words below).
"""

DRIFT = "drift"
UNKNOWN = "unknown"
NOTE = "note"

DEPLOY = "deploy mends it"
SITE = "site mends it"
LOOK = "look"
NOTHING = "nothing"

KINDS = (
    "host", "replica", "image", "arguments", "environment", "mounts", "gpus", "ports", "settings", "weights",
    "registry", "proxy", "edge", "leftover", "plan", "adopted", "foreign",
)  # fmt: skip
"""What findings are about; every one has one of these."""


def finding(
    severity: str,
    host: str,
    kind: str,
    subject: str,
    field: str,
    wanted: str | None,
    found: str | None,
    what: str,
) -> Finding:
    """One finding; ``wanted`` and ``found`` are None where that side has nothing."""
    return {
        "severity": severity,
        "host": host,
        "kind": kind,
        "subject": subject,
        "field": field,
        "wanted": wanted,
        "found": found,
        "what": what,
    }
