"""What a finding is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CRITICAL, WARNING, UNKNOWN, NOTE = "critical", "warning", "unknown", "note"
Finding = dict[str, Any]


def finding(code: str, severity: str, text: str, gpu: str | None = None) -> Finding:
    """``gpu`` is a PCI address, or None where it concerns the host. Sentences begin with a capital letter."""
    return {"code": code, "severity": severity, "gpu": gpu, "text": text[:1].upper() + text[1:]}


def named(gpu: Mapping[str, Any]) -> str:
    """A GPU as sentences call it: number, name, address, as far as known."""
    number = f"GPU {gpu['index']}" if gpu["index"] is not None else "a GPU"
    more = ", ".join(str(one) for one in (gpu["name"], gpu["address"]) if one)
    return f"{number} ({more})" if more else number
