"""Which replica of which model goes where: stable, spread over hosts, packed on GPUs.

The order of the input never matters. A replica that still fits keeps its host, GPUs, port and index. A
replica whose state is unknown keeps what it holds whatever is wished. What is missing is placed on the host
with the fewest replicas of the same model (spread), among those on the one with the fewest free GPUs that
fits (pack).
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.ledger import Ledger
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    ABSENT,
    DOWN,
    UNKNOWN,
    UP,
    Current,
    Host,
    Model,
    Placement,
    Slot,
)

Refusal = Callable[[Model, Host], str | None]
"""Why a host cannot run a model at all ("has no image for rocm"), or None when it can."""

Surges = Callable[[Model, Slot], bool]
"""Whether a replica that is replaced is to be started at another place, where there is one, before it stops."""

_KEEP_ORDER = {UP: 0, UNKNOWN: 1, DOWN: 2, ABSENT: 3}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A replica that still needs a place, with the one it had before, if any."""

    index: int
    before: Current | None = None


def place(
    models: Iterable[Model],
    hosts: Iterable[Host],
    current: Iterable[Current],
    refusal: Refusal = lambda _model, _host: None,
    surges: Surges = lambda _model, _slot: False,
) -> Placement:
    """Decide where every wished replica goes.

    ``current`` holds what runs or lies stopped (``up``, ``down``), what is in an unknown state, and what the
    last deploy applied and is gone (``absent``).
    """
    return _Placer(models, hosts, current, refusal).run(surges)


class _Placer:
    """One run of the algorithm; the ledgers are its only mutable state."""

    def __init__(
        self,
        models: Iterable[Model],
        hosts: Iterable[Host],
        current: Iterable[Current],
        refusal: Refusal,
    ) -> None:
        self.models = sorted(models, key=lambda model: (-model.gpus, model.id))
        self.hosts: Mapping[str, Host] = {
            host.name: host for host in sorted(hosts, key=lambda host: host.name)
        }
        self.ledgers = {name: Ledger(host) for name, host in self.hosts.items()}
        self.current: dict[str, list[Current]] = defaultdict(list)
        for replica in sorted(current, key=lambda item: item.replica):
            self.current[replica.model].append(replica)
        self.refusal = refusal
        self.here: dict[str, Counter[str]] = defaultdict(Counter)
        self.indexes: dict[str, set[int]] = defaultdict(set)
        self.slots: list[Slot] = []
        self.dropped: list[Current] = []
        self.problems: list[str] = []
        self.heirs: dict[str, str] = {}

    def run(self, surges: Surges) -> Placement:
        """Hold what is unknown, keep what fits, then place what is missing, and last what needs a second place."""
        self._hold_unknown()
        wanted: list[tuple[Model, list[_Wanted]]] = []
        for model in self.models:
            wanted.append((model, self._keep(model)))
        wished = {model.id for model in self.models}
        for name, replicas in self.current.items():
            if name not in wished:
                self._let_go(replicas)
        for model, missing in wanted:
            if missing:
                self._place_missing(model, missing)
        self._surge(surges)
        return Placement(
            slots=tuple(sorted(self.slots, key=lambda slot: slot.replica)),
            dropped=tuple(sorted(self.dropped, key=lambda replica: replica.replica)),
            problems=tuple(self.problems),
            heirs=self.heirs,
        )

    def _surge(self, surges: Surges) -> None:
        """Give second places to what is replaced, from what is left over; what it has now stays reserved until then."""
        models = {model.id: model for model in self.models}
        left: set[str] = set()
        for replica in (one for many in self.current.values() for one in many):
            if replica.state == UP and replica.host in self.ledgers:
                # it may be about to give some of this up, but has it still
                self.ledgers[replica.host].reserve(replica.gpus, replica.port)
        for slot in sorted(self.slots, key=lambda one: one.replica):
            model, was = models.get(slot.model), slot.was
            if model is None or was is None or was.state != UP or not surges(model, slot):
                continue
            for name in sorted(model.hosts, key=lambda host: (host != slot.host, host)):
                ledger = self.ledgers.get(name)
                if ledger is None or ledger.host.state != UP or self.refusal(model, ledger.host) is not None:
                    continue
                gpus, port = ledger.pick_gpus(model.gpus), ledger.next_port()
                if gpus is None or port is None:
                    continue
                taken = self.indexes[model.id] | {replica.index for replica in self.current[model.id]}
                index = next(number for number in count() if number not in taken)
                left.add(slot.replica)
                self._give(model, name, index, gpus, port, None)
                self.dropped.append(was)
                self.heirs[was.replica] = self.slots[-1].replica
                break
        self.slots = [slot for slot in self.slots if slot.replica not in left]

    def _hold_unknown(self) -> None:
        for replicas in self.current.values():
            for replica in replicas:
                if replica.host not in self.ledgers:
                    continue
                if replica.fixed:
                    self.ledgers[replica.host].reserve(replica.gpus, replica.port)
                elif replica.kept_as_it_is:
                    self.ledgers[replica.host].block(replica.gpus)  # before anybody is given a place

    def _keep(self, model: Model) -> list[_Wanted]:
        """Give the replicas that stay their places; return those that need another one."""
        allowed = set(model.hosts)
        eligible: list[Current] = []
        others: list[Current] = []
        for replica in self.current.get(model.id, ()):
            host = self.hosts.get(replica.host)
            fits = host is not None and replica.host in allowed
            if fits and host is not None and not replica.fixed:
                fits = host.runtime_of(model) == replica.runtime and (
                    replica.kept_as_it_is or self.refusal(model, host) is None
                )
            (eligible if fits else others).append(replica)
        eligible.sort(key=lambda replica: (_KEEP_ORDER[replica.state], replica.index, replica.host))
        kept, surplus = eligible[: model.replicas], eligible[model.replicas :]

        wanted: list[_Wanted] = []
        for replica in kept:
            if replica.fixed:
                self._hold(replica, wished=True)
            elif self._fits_as_it_is(model, replica):
                self._give(model, replica.host, replica.index, replica.gpus, replica.port, replica)
            else:
                wanted.append(_Wanted(replica.index, replica))
        self._let_go([*surplus, *others])

        # Indexes of replicas that are being stopped may come back at once; those of unknown ones may not.
        used = {replica.index for replica in kept}
        used.update(replica.index for replica in (*surplus, *others) if replica.fixed)
        index = 0
        for _ in range(model.replicas - len(kept)):
            while index in used:
                index += 1
            wanted.append(_Wanted(index))
            used.add(index)
        return wanted

    def _let_go(self, replicas: Iterable[Current]) -> None:
        """Stop what nobody wishes any more; what is unknown can only be remembered."""
        for replica in replicas:
            if replica.fixed:
                self._hold(replica, wished=False)
            elif replica.state != ABSENT:
                self.dropped.append(replica)

    def _fits_as_it_is(self, model: Model, replica: Current) -> bool:
        ledger = self.ledgers[replica.host]
        if replica.kept_as_it_is:
            return replica.port is not None
        if len(replica.gpus) != model.gpus or replica.port is None:
            return False
        if replica.state == UP:
            # It holds them already; whoever else is seen on its GPUs or port is itself.
            known = set(ledger.host.gpus)
            in_range = ledger.host.first_port <= replica.port <= ledger.host.last_port
            return (
                in_range
                and known.issuperset(replica.gpus)
                and ledger.holds_nothing_of(replica.gpus, replica.port)
            )
        return ledger.can_take(replica.gpus) and ledger.port_is_free(replica.port)

    def _hold(self, replica: Current, *, wished: bool) -> None:
        self.here[replica.model][replica.host] += 1
        self.indexes[replica.model].add(replica.index)
        self.slots.append(
            Slot(
                model=replica.model,
                host=replica.host,
                index=replica.index,
                gpus=replica.gpus,
                port=replica.port or 0,
                runtime=replica.runtime,
                was=replica,
                wished=wished,
            )
        )

    def _give(
        self,
        model: Model,
        host: str,
        index: int,
        gpus: tuple[str, ...],
        port: int | None,
        was: Current | None,
    ) -> None:
        if port is None:
            raise ValueError(f"replica {index} of {model.id} on {host} has no port")
        self.ledgers[host].reserve(gpus, port)
        self.here[model.id][host] += 1
        self.indexes[model.id].add(index)
        self.slots.append(
            Slot(
                model=model.id,
                host=host,
                index=index,
                gpus=gpus,
                port=port,
                runtime=self.hosts[host].runtime_of(model),
                was=was if was is not None and was.state != ABSENT else None,
            )
        )

    def _place_missing(self, model: Model, missing: Sequence[_Wanted]) -> None:
        here = self.here[model.id]
        fresh: list[_Wanted] = []
        for want in missing:
            if want.before is not None:
                if self._place_back(model, want.before):
                    continue
                if want.before.state != ABSENT:
                    self.dropped.append(want.before)  # its place no longer fits the wish
            fresh.append(want)
        if not fresh:
            return
        heap = []
        for name in set(model.hosts):
            ledger = self.ledgers.get(name)
            if ledger is not None and ledger.host.state == UP and ledger.free_gpus >= model.gpus:
                load = ledger.free_gpus if model.gpus else ledger.replicas
                heap.append((here.get(name, 0), load, name))
        heapq.heapify(heap)
        for at, index in enumerate(self._free_indexes(model, fresh)):
            if not self._place_one(model, index, heap):
                self.problems.append(self._why_not(model, len(fresh) - at))
                break

    def _free_indexes(self, model: Model, fresh: Sequence[_Wanted]) -> list[int]:
        """An index for each replica that gets a new place: its own, unless another one of the model has it.

        Replicas of different hosts may share an index, so one that moves could meet its own id there.
        """
        taken = set(self.indexes[model.id])
        reserved = {want.index for want in fresh}
        found = []
        for want in fresh:
            index = want.index
            if index in taken:
                index = next(number for number in count() if number not in taken and number not in reserved)
            taken.add(index)
            found.append(index)
        return found

    def _place_back(self, model: Model, before: Current) -> bool:
        """Same host and index; the same port and GPUs as far as they are free."""
        ledger = self.ledgers[before.host]
        if ledger.host.state != UP:
            return False
        same = len(before.gpus) == model.gpus and ledger.can_take(before.gpus)
        gpus = before.gpus if same else ledger.pick_gpus(model.gpus)
        port = before.port if self._port_stays(ledger, before) else ledger.next_port()
        if gpus is None or port is None:
            return False
        self._give(model, before.host, before.index, gpus, port, before)
        return True

    @staticmethod
    def _port_stays(ledger: Ledger, before: Current) -> bool:
        if before.state != UP or before.port is None:
            return ledger.port_is_free(before.port)
        in_range = ledger.host.first_port <= before.port <= ledger.host.last_port
        return in_range and ledger.holds_nothing_of((), before.port)

    def _place_one(
        self,
        model: Model,
        index: int,
        heap: list[tuple[int, int, str]],
    ) -> bool:
        while heap:
            *_, name = heapq.heappop(heap)
            ledger = self.ledgers[name]
            if self.refusal(model, ledger.host) is not None:
                continue
            gpus, port = ledger.pick_gpus(model.gpus), ledger.next_port()
            if gpus is None or port is None:
                continue  # it only gets fuller: out for this model
            self._give(model, name, index, gpus, port, None)
            load = ledger.free_gpus if model.gpus else ledger.replicas
            heapq.heappush(heap, (self.here[model.id][name], load, name))
            return True
        return False

    def _why_not(self, model: Model, missing: int) -> str:
        placed = model.replicas - missing
        need = (
            f"{model.gpus} GPU{'s' if model.gpus != 1 else ''} on one host" if model.gpus else "a free port"
        )
        names = sorted(set(model.hosts))
        reasons = [self._host_reason(model, name) for name in names[:6]]
        shown = "; ".join(reasons) + (f"; and {len(names) - 6} more hosts" if len(names) > 6 else "")
        return f"model {model.id}: {placed} of {model.replicas} replicas placed, each needs {need}; " + (
            f"of the hosts matching {model.pattern}: {shown}"
            if reasons
            else f"no host matches {model.pattern}"
        )

    def _host_reason(self, model: Model, name: str) -> str:
        host = self.hosts.get(name)
        if host is None:
            return f"{name} is not an engine host"
        if host.state != UP:
            return f"{name} did not answer"
        refusal = self.refusal(model, host)
        if refusal is not None:
            return f"{name} {refusal}"
        ledger = self.ledgers[name]
        if ledger.free_gpus < model.gpus:
            total, blocked = len(host.gpus), len(host.blocked_gpus)
            foreign = f" ({blocked} used by others)" if blocked else ""
            return f"{name} has {ledger.free_gpus} of {total} GPUs free{foreign}"
        return f"{name} has no free port in {host.first_port}-{host.last_port}"
