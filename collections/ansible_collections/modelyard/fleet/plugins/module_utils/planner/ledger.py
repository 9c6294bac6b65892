"""What is free and what is given on each host while a placement is made."""

from __future__ import annotations

from collections.abc import Iterable

from ansible_collections.modelyard.fleet.plugins.module_utils.planner import joined
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    UP,
    Current,
    Host,
    Model,
    Need,
)


class Ledger:
    """The GPUs and ports of one host. Nothing is ever given twice."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._free = set(host.gpus) - set(host.blocked_gpus) - set(host.unwell_gpus)
        known = [memory for gpu in host.gpus if (memory := host.memory_of(gpu)) is not None]
        self._least_memory = min(known, default=2**63)
        self._tiers: dict[tuple[int, Need], int] = {}  # of what is free now
        self._holders: dict[str, str] = {}
        self._given: set[str] = set()
        self._ports: set[int] = set()
        self._next_port = host.first_port
        self.replicas = 0

    @property
    def free_gpus(self) -> int:
        """How many GPUs can still be given."""
        return len(self._free)

    def free_for(self, model: Model) -> set[str]:
        """The GPUs that can still be given and have the memory that the model needs."""
        least = model.need.at_least
        if least is None or least <= self._least_memory:
            return self._free
        return {gpu for gpu in self._free if model.need.met_by(self.host.memory_of(gpu))}

    def reserve(self, gpus: tuple[str, ...], port: int | None, who: str = "") -> None:
        """Count what is held by a replica that stays, whoever else claims it."""
        self.block(gpus, who)
        self._given.update(gpus)
        if port is not None:
            self._ports.add(port)
        self.replicas += 1

    def block(self, gpus: Iterable[str], who: str = "") -> None:
        """Take GPUs out of what is free, without counting who has them."""
        self._free.difference_update(gpus)
        self._tiers.clear()
        self._holders |= dict.fromkeys(gpus, who)

    def holder(self, gpu: str) -> str | None:
        """Which replica has a GPU in this placement, None for nobody."""
        return self._holders.get(gpu)

    def holds_nothing_of(self, gpus: tuple[str, ...], port: int) -> bool:
        """Whether neither the GPUs nor the port have been given in this placement."""
        return self._given.isdisjoint(gpus) and port not in self._ports

    def can_take(self, gpus: tuple[str, ...], model: Model) -> bool:
        """Whether exactly these GPUs exist here, are well, are free and have enough memory."""
        return self.free_for(model).issuperset(gpus)

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

    def port_for(self, was: Current | None) -> int | None:
        """The port of a replica that stays on its host: its own, if it may have it, else one that can be given."""
        if was is None or was.port is None:
            return self.next_port()
        if was.kept_as_it_is:
            return was.port
        if was.state != UP:
            return was.port if self.port_is_free(was.port) else self.next_port()
        in_range = self.host.first_port <= was.port <= self.host.last_port
        return was.port if in_range and self.holds_nothing_of((), was.port) else self.next_port()

    def tier(self, model: Model) -> int:
        """How well the GPUs that the model would get here are joined; 0 is best."""
        if model.gpus < 2:
            return 0
        if not self.host.gpu_groups:
            return joined.APART
        free = self.free_for(model)
        key = (model.gpus, Need() if free is self._free else model.need)
        if key not in self._tiers:
            self._tiers[key] = joined.tier(self.host, model.gpus, free)
        return self._tiers[key]

    def pick_gpus(self, model: Model) -> tuple[str, ...] | None:
        """Free GPUs for one replica of the model, those that are joined best; None where there are too few."""
        return joined.choose(self.host, model.gpus, self.free_for(model))
