"""Ports for what a test starts later, which no test beside it is given: other workers', another checkout's.

A port that is only found free, as by binding to 0, may be given away again before the test uses it: to another test, or to
an outgoing connection. So these lie below the ephemeral ports, and each belongs to the process that asked first.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# what systems give to outgoing connections begins at 32768
_PORTS = range(20000, 32000)


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens now; see :func:`free_range`."""
    first, last = free_range(count)
    return list(range(first, last + 1))


def free_range(width: int) -> tuple[int, int]:
    """First and last of ``width`` neighbouring ports on which nobody listens now.

    They are this process's until it ends.
    """
    starts = list(range(_PORTS.start, _PORTS.stop - width, width))
    random.SystemRandom().shuffle(starts)
    for first in starts:
        ports = range(first, first + width)
        if _claimed(ports):
            return ports[0], ports[-1]
    raise RuntimeError(f"no {width} neighbouring ports are free from {_PORTS.start} to {_PORTS.stop - 1}")


def _claimed(ports: range) -> bool:
    """Claim the ports, all or none.

    A name in the abstract namespace of Unix sockets stands for each: like the ports it belongs to the network namespace,
    only one socket can have it, and it goes with the process, however that ends.
    """
    claims = []
    with ExitStack() as given_up:
        for port in ports:
            claim = given_up.enter_context(socket.socket(socket.AF_UNIX))
            try:
                claim.bind(f"\0modelyard-test-port-{port}")
                with socket.socket() as probe:
                    probe.bind(("", port))
            except OSError:
                return False
            claims.append(claim)
        given_up.pop_all()
    for claim in claims:
        claim.detach()  # open until the process ends
    return True
