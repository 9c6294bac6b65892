"""XID errors: what the NVIDIA kernel module writes into the kernel's log, and what the well-known ones mean. Pure.

The meanings are told in our own words after NVIDIA's "XID Errors" documentation (docs.nvidia.com/deploy/xid-errors).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.values import address

CRITICAL, WARNING, NOTE = "critical", "warning", "note"

_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]{4,20})\): ([0-9]{1,6})\b,?\s*(.*)")
_ISO = re.compile(r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8})[,.]?[0-9]*([+-][0-9]{2}:?[0-9]{2}|Z)?")
_UPTIME = re.compile(r"^\[\s*([0-9]{1,12}\.[0-9]{1,9})\]")
_NAME = re.compile(r"\b(?:pid|name)=[^,]*,?\s*")


@dataclass(frozen=True)
class Xid:
    """One code: how bad it is, what it means, what to do."""

    severity: str
    meaning: str
    advice: str


_PROGRAM = "Look at the program that ran there; if different programs meet it on this GPU only, test the GPU."
_RESET = "Drain the GPU and reset it (nvidia-smi --gpu-reset), or reboot the host."
_REPLACE = "Drain the host and reboot it; if it comes back, have the GPU replaced."

XIDS: dict[int, Xid] = {
    13: Xid(
        WARNING,
        "a program did something illegal in the graphics engine, such as an access out of bounds",
        _PROGRAM,
    ),
    31: Xid(WARNING, "a program read or wrote a GPU address that is not mapped", _PROGRAM),
    43: Xid(
        WARNING,
        "the GPU stopped working on a program that had made an error; the GPU itself goes on",
        "Restart that program.",
    ),
    45: Xid(
        NOTE,
        "a program's work was cleaned away, since it was killed or another error came before",
        "Look for the error before it.",
    ),
    48: Xid(CRITICAL, "memory of the GPU had an error in two bits, which ECC cannot correct", _RESET),
    61: Xid(CRITICAL, "the GPU's own controller ran into a breakpoint and complained", _RESET),
    62: Xid(CRITICAL, "the GPU's own controller halted", _RESET),
    63: Xid(
        WARNING,
        "a bad page or row of memory was noted and will be replaced at the next reset",
        "Reset the GPU when it is free.",
    ),
    64: Xid(CRITICAL, "a bad page or row of memory could not be noted for replacement", _REPLACE),
    74: Xid(
        CRITICAL,
        "a connection over NVLink had an error",
        "Look at the link's neighbours and its bridge or cable. " + _RESET,
    ),
    79: Xid(CRITICAL, "the GPU no longer answers on the PCI bus (it has fallen off the bus)", _REPLACE),
    94: Xid(
        WARNING,
        "memory had an error that ECC could not correct, and only the program that met it was hurt",
        "Restart that program, and reset the GPU when it is free.",
    ),
    95: Xid(
        CRITICAL,
        "memory had an error that ECC could not correct, and it may have hurt any program on the GPU",
        _RESET,
    ),
    119: Xid(CRITICAL, "the GPU's system processor (GSP) did not answer the driver in time", _RESET),
    120: Xid(CRITICAL, "the GPU's system processor (GSP) reported an error of its own", _RESET),
}


def describe(code: int) -> Xid:
    """What is known of a code; a warning that says so when nothing is."""
    return XIDS.get(
        code,
        Xid(
            WARNING,
            "an error that Modelyard has no words for",
            "Look it up in NVIDIA's catalog of XID errors.",
        ),
    )


def parse_log(text: str) -> list[dict[str, Any]]:
    """XID errors of a kernel log, one entry for each GPU and code in the order of their last time.

    Understands dmesg with and without ``--time-format iso`` and journalctl's ``short-iso``. ``time`` is as the log has
    it: a date, or seconds since boot, or None. Names and numbers of processes are left out of ``text``.
    """
    found: dict[tuple[str | None, int], dict[str, Any]] = {}
    for line in text.splitlines():
        match = _LINE.search(line)
        if not match:
            continue
        where, code = address(match.group(1)), int(match.group(2))
        entry = found.pop((where, code), {"count": 0})
        found[(where, code)] = {
            "code": code,
            "address": where,
            "count": entry["count"] + 1,
            "time": _time(line.lstrip()),
            "text": " ".join(_NAME.sub("", match.group(3)).split())[:200],
        }
    return list(found.values())


def _time(line: str) -> str | None:
    for pattern in (_ISO, _UPTIME):
        found = pattern.match(line)
        if found:
            return "".join(part or "" for part in found.groups())
    return None
