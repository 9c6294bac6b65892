"""TCP ports that something on this host listens on."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"


def listening(proc: str) -> set[int]:
    """Ports in state LISTEN, IPv4 and IPv6, from the kernel's own table."""
    found = set()
    for name in ("tcp", "tcp6"):
        try:
            with Path(proc, "net", name).open(encoding="ascii") as table:
                next(table, None)
                for line in table:
                    fields = line.split()
                    if len(fields) > 3 and fields[3] == _LISTEN:
                        found.add(int(fields[1].rpartition(":")[2], 16))
        except FileNotFoundError:
            continue  # a kernel without IPv6
    return found
