"""Values as GPU tools write them -> numbers, truth values, addresses. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

ABSENT_WORDS = frozenset(
    {
        "",
        "-",
        "n/a",
        "[n/a]",
        "none",
        "not supported",
        "[not supported]",
        "not available",
        "[not available]",
        "requested functionality has been deprecated",
        "[requested functionality has been deprecated]",
    }
)
"""What tools say where a card does not have something, in lower case. Anything else that is no value is unknown."""

_NUMBER = re.compile(r"^([+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([A-Za-z%°/]{0,8})$")
_BYTES = {
    "": 1,
    "b": 1,
    "kib": 1024,
    "kb": 1024,
    "mib": 1024**2,
    "mb": 1024**2,
    "gib": 1024**3,
    "gb": 1024**3,
}
_ADDRESS = re.compile(r"^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?$")
_YES = frozenset({"yes", "enabled", "active", "true", "1", "on"})
_NO = frozenset({"no", "disabled", "not active", "false", "0", "off"})
MEMORY_LIMIT = 64 * 1024**4


def absent(text: str | None) -> bool:
    """Whether a tool says that the card does not have this."""
    return text is None or text.strip().lower() in ABSENT_WORDS


def address(text: str | None) -> str | None:
    """A PCI address as ``0000:3b:00.0`` from any of the forms in use; None when it is none."""
    found = _ADDRESS.match((text or "").strip().lower())
    if not found:
        return None
    domain = (found.group(1) or "0000").lstrip("0").rjust(4, "0")
    return f"{domain}:{found.group(2)}:{found.group(3)}.{found.group(4) or '0'}"


def hexadecimal(text: str | None) -> str | None:
    """Four hexadecimal digits of a PCI id, with ``0x`` before them or not; None when it is none."""
    found = re.match(r"^(?:0x)?([0-9a-f]{1,4})$", (text or "").strip().lower())
    return found.group(1).rjust(4, "0") if found else None


def number(text: str) -> tuple[float, str] | None:
    """A number and its unit in lower case."""
    found = _NUMBER.match(text.strip())
    return (float(found.group(1)), found.group(2).lower()) if found else None


def json_in(text: str) -> Any:
    """The JSON value in a tool's output, warnings before and after it left out; None when there is none."""
    for start in _starts(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, (dict, list)):
            return value
    return None


def _starts(text: str) -> Iterator[int]:
    """Where a line begins with a bracket; a few of them, since each costs a parse of the rest."""
    for count, found in enumerate(re.finditer(r"^[ \t]*([{\[])", text, re.MULTILINE)):
        if count == 20:
            return
        yield found.start(1)


class Reader:
    """Reads the fields of one GPU and notes those that cannot be understood, with the reason."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self.unknown: dict[str, str] = {}

    def doubt(self, field: str, reason: str) -> None:
        """Note that nothing is known of a field; the first reason stays."""
        self.unknown.setdefault(field, reason)

    def quantity(
        self, field: str, text: str | None, low: float, high: float, *, needed: bool = False
    ) -> float | None:
        """A number between two bounds, its unit left aside. ``needed``: that it is absent is unknown too."""
        if text is None or absent(text):
            if needed:
                self.doubt(field, f"{self.tool} does not tell it")
            return None
        found = number(text)
        if found is None:
            self.doubt(field, f'{self.tool} says "{_short(text)}", which is no number')
            return None
        if not low <= found[0] <= high:
            self.doubt(field, f"{self.tool} says {_short(text)}, which cannot be")
            return None
        return found[0]

    def count(self, field: str, text: str | None) -> int | None:
        """A whole number from 0 on."""
        found = self.quantity(field, text, 0, 2**62)
        return None if found is None else int(found)

    def size(self, field: str, text: str | None, *, unit: str = "", needed: bool = False) -> int | None:
        """Bytes. ``unit`` is what a number without one is in. Tools' MB are 1024 x 1024."""
        if self.quantity(field, text, 0, MEMORY_LIMIT, needed=needed) is None or text is None:
            return None
        value, own = number(text) or (0.0, "")
        factor = _BYTES.get(own or unit.lower())
        if factor is None or value * factor > MEMORY_LIMIT:
            self.doubt(field, f"{self.tool} says {_short(text)}, which is no size of a memory")
            return None
        return int(value * factor)

    def truth(self, field: str, text: str | None) -> bool | None:
        """Yes or no, on or off."""
        word = (text or "").strip().lower()
        if word in _YES or word in _NO:
            return word in _YES
        if not absent(text):
            self.doubt(field, f'{self.tool} says "{_short(word)}", which is neither yes nor no')
        return None

    def memory(self, total: int | None, used: int | None) -> tuple[int | None, int | None]:
        """Total and used memory, if they can be true together."""
        if total == 0:
            self.doubt("memory_total", f"{self.tool} says that it has no memory")
            total = None
        if total is not None and used is not None and used > total:
            self.doubt("memory_used", f"{self.tool} says that more memory is used than there is")
            used = None
        return total, used


def blank(vendor: str) -> dict[str, Any]:
    """A GPU of which nothing is known yet. Bytes, watts and degrees Celsius."""
    return {
        "vendor": vendor,
        "index": None,
        "uuid": None,
        "address": None,
        "device": None,
        "name": None,
        "generation": None,
        "compute": None,
        "driver_rule": {},
        "memory_total": None,
        "memory_used": None,
        "mig": {"mode": None, "pending": None, "instances": []},
        "temperature": None,
        "temperature_slowdown": None,
        "temperature_margin": None,
        "power": None,
        "power_limit": None,
        "throttle": None,
        "ecc": {
            "mode": None,
            "volatile_uncorrected": None,
            "aggregate_uncorrected": None,
            "retirement_pending": None,
            "remap_pending": None,
            "remap_failed": None,
            "repair_pending": None,
        },
        "recovery_action": None,
        "persistence": None,
        "fabric": {"state": None, "status": None},
        "processes": None,
        "xids": [],
        "numa_node": None,
        "kernel_driver": None,
        "state": "unknown",
        "reason": "",
        "unknown": {},
    }


def _short(text: str) -> str:
    words = " ".join("".join(char if char.isprintable() else "?" for char in text).split())
    return words if len(words) <= 60 else words[:57] + "..."
