"""What is free and what is given on each host while a placement is made."""

from __future__ import annotations

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host


class Ledger:
    """The GPUs and ports of one host. Nothing is ever given twice."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._order = {gpu: at for at, gpu in enumerate(host.gpus)}
        self._free = set(host.gpus) - set(host.blocked_gpus)
        self._given: set[str] = set()
        self._ports: set[int] = set()
        self._next_port = host.first_port
        self.replicas = 0

    @property
    def free_gpus(self) -> int:
        """How many GPUs can still be given."""
        return len(self._free)

    def reserve(self, gpus: tuple[str, ...], port: int | None) -> None:
        """Count what is held by a replica that stays, whoever else claims it."""
        self._free.difference_update(gpus)
        self._given.update(gpus)
        if port is not None:
            self._ports.add(port)
        self.replicas += 1

    def block(self, gpus: tuple[str, ...]) -> None:
        """Take GPUs out of what is free, without counting who has them."""
        self._free.difference_update(gpus)

    def holds_nothing_of(self, gpus: tuple[str, ...], port: int) -> bool:
        """Whether neither the GPUs nor the port have been given in this placement."""
        return self._given.isdisjoint(gpus) and port not in self._ports

    def can_take(self, gpus: tuple[str, ...]) -> bool:
        """Whether exactly these GPUs exist here and are free."""
        return self._free.issuperset(gpus)

    def port_is_free(self, port: int | None) -> bool:
        """Whether a replica may begin to listen on the port."""
        return (
            port is not None
            and self.host.first_port <= port <= self.host.last_port
            and port not in self._ports
            and port not in self.host.listening
        )

    def next_port(self) -> int | None:
        """The lowest port that can be given, or None when the range is used up."""
        while self._next_port <= self.host.last_port:
            if self.port_is_free(self._next_port):
                return self._next_port
            self._next_port += 1
        return None

    def pick_gpus(self, count: int) -> tuple[str, ...] | None:
        """``count`` free GPUs; aligned neighbours if there are (they share the fast links)."""
        if count == 0:
            return ()
        if len(self._free) < count:
            return None
        if count > 1:
            names = self.host.gpus
            for start in range(0, len(names) - count + 1, count):
                block = names[start : start + count]
                if self._free.issuperset(block):
                    return block
        return tuple(sorted(self._free, key=self._order.__getitem__)[:count])
