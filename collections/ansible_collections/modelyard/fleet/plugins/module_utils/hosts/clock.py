"""Whether something keeps the host's clock right: by systemd, by chrony, or by the kernel's own word."""

from __future__ import annotations

import ctypes
import re
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.command import OK
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
Facts = dict[str, Any]


class _Timex(ctypes.Structure):
    """``struct timex``: only ``modes`` is written, 0 for a look; the rest is room for the answer."""

    _fields_ = [("modes", ctypes.c_uint), ("rest", ctypes.c_long * 64)]


def synchronised(host: Host) -> Facts:
    """``synchronised`` is None when nobody tells, with a reason; ``source`` is who told."""
    reasons = []
    for tool, arguments, parse in (
        ("timedatectl", ("show", "--property=NTPSynchronized"), parse_timedatectl),
        ("chronyc", ("-n", "tracking"), parse_chronyc),
    ):
        asked = host.run(tool, *arguments)
        told = parse(asked.out) if asked.state == OK else None
        if told is not None:
            return {"state": "up", "reason": "", "source": tool, "synchronised": told}
        reasons.append(asked.reason or f"{tool} does not tell it")
    told = _kernel()
    if told is not None:
        return {"state": "up", "reason": "", "source": "adjtimex", "synchronised": told}
    reasons.append("the kernel does not tell it")
    return {"state": "unknown", "reason": "; ".join(reasons), "source": None, "synchronised": None}


def parse_timedatectl(text: str) -> bool | None:
    """``timedatectl show``."""
    found = re.search(r"^NTPSynchronized=(yes|no)$", text, re.MULTILINE)
    return found.group(1) == "yes" if found else None


def parse_chronyc(text: str) -> bool | None:
    """``chronyc tracking``."""
    found = re.search(r"^Leap status\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    if found is None:
        return None
    return found.group(1) in ("Normal", "Insert second", "Delete second")


def _kernel() -> bool | None:
    """What adjtimex(2) says; None where that is not allowed."""
    answer = _Timex()
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(answer))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != _TIME_ERROR)
