"""Whether a TCP port can be reached from here, and from which address this machine would ask. Sends nothing."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

OPEN, CLOSED = "open", "closed"
_SIDE_BY_SIDE = 32
# what says that no packet comes through, which is an answer; anything else is a failure to look
_ANSWERS = (
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ECONNRESET,
    errno.EACCES,
    errno.EPERM,
)


def source_of(address: str) -> str | None:
    """The address that connections to ``address`` would come from, by this machine's own routes; None without one."""
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)  # a datagram socket sends nothing when it is connected
                return str(probe.getsockname()[0])
    except OSError:
        pass
    return None


def reaches(address: str, port: int, timeout_s: float) -> str:
    """``open``, ``closed`` (refused, or silent for so long), or why it could not be tried."""
    try:
        with socket.create_connection((address, port), timeout=timeout_s):
            return OPEN
    except TimeoutError:
        return CLOSED
    except OSError as error:
        return CLOSED if error.errno in _ANSWERS else f"{type(error).__name__}: {error}"


def look(targets: Iterable[Mapping[str, Any]], timeout_s: float) -> list[dict[str, Any]]:
    """Every ``address`` of ``targets`` (each with ``host`` and ``ports``), with ``source`` and a result for each port."""
    found = []
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        for target in targets:
            address = str(target["address"])
            tried = [
                (int(port), pool.submit(reaches, address, int(port), timeout_s)) for port in target["ports"]
            ]
            found.append({"host": target["host"], "address": address, "tried": tried})
    return [
        {
            "host": one["host"],
            "address": one["address"],
            "source": source_of(one["address"]),
            "ports": [{"port": port, "result": result.result()} for port, result in one["tried"]],
        }
        for one in found
    ]
