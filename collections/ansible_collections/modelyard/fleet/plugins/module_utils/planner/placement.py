"""Which replica of which model goes where: stable, spread over hosts, packed on GPUs.

The order of the input never matters. A replica that still fits keeps its host, GPUs, port and index. A
replica whose state is unknown keeps what it holds whatever is wished. Places that the inventory names come first: who is
in the way of one is placed anew. What is missing is placed on the host with the fewest replicas of the same model (spread),
among those on one whose GPUs are joined best, among those on the one with the fewest free GPUs that fits (pack). GPUs that
are not well, or have too little memory, are not given.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from ansible_collections.modelyard.fleet.plugins.module_utils.planner import pins, reasons
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
    replica_id,
)

Refusal = Callable[[Model, Host], str | None]
"""Why a host cannot run a model at all ("has no image for rocm"), or None when it can."""

Surges = Callable[[Model, Slot], bool]
"""Whether a replica that is replaced is to be started at another place, where there is one, before it stops."""

Renews = Callable[[Model, Slot], bool]
"""Whether a running replica would be started anew if it stayed at this place of its own."""

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
    renews: Renews = lambda _model, _slot: False,
) -> Placement:
    """Decide where every wished replica goes.

    ``current`` holds what runs or lies stopped (``up``, ``down``), what is in an unknown state, and what the
    last deploy applied and is gone (``absent``).
    """
    return _Placer(models, hosts, current, refusal, renews).run(surges)


class _Placer:
    """One run of the algorithm; the ledgers are its only mutable state."""

    def __init__(
        self,
        models: Iterable[Model],
        hosts: Iterable[Host],
        current: Iterable[Current],
        refusal: Refusal,
        renews: Renews,
    ) -> None:
        # those that are hardest to place come first
        self.models = sorted(models, key=lambda model: (-model.gpus, -(model.need.at_least or 0), model.id))
        self.hosts: Mapping[str, Host] = {
            host.name: host for host in sorted(hosts, key=lambda host: host.name)
        }
        self.ledgers = {name: Ledger(host) for name, host in self.hosts.items()}
        self.current: dict[str, list[Current]] = defaultdict(list)
        for replica in sorted(current, key=lambda item: item.replica):
            self.current[replica.model].append(replica)
        self.refusal = refusal
        self.renews = renews
        self.here: dict[str, Counter[str]] = defaultdict(Counter)
        self.indexes: dict[str, set[int]] = defaultdict(set)
        self.slots: list[Slot] = []
        self.dropped: list[Current] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.pinned: set[str] = set()
        self.met: Counter[str] = Counter()  # by model how many pins are met, and how many are not
        self.unmet: Counter[str] = Counter()
        self.heirs: dict[str, str] = {}

    def run(self, surges: Surges) -> Placement:
        """Hold what is unknown, give what is named, keep what fits, then place what is missing, and last what needs a
        second place.
        """
        self._hold_unknown()
        for model in self.models:
            if model.pins:
                self._pin(model)
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
            notes=tuple(self.notes),
        )

    def _surge(self, surges: Surges) -> None:
        """Give second places to what is replaced, from what is left over; what it has now stays reserved until then."""
        models = {model.id: model for model in self.models}
        left: set[str] = set()
        for replica in (one for many in self.current.values() for one in many):
            if replica.state == UP and replica.host in self.ledgers:
                # it may be about to give some of this up, but has it still
                self.ledgers[replica.host].reserve(replica.gpus, replica.port, replica.replica)
        for slot in sorted(self.slots, key=lambda one: one.replica):
            model, was = models.get(slot.model), slot.was
            if model is None or model.pins or was is None or was.state != UP or not surges(model, slot):
                continue
            for name in sorted(model.hosts, key=lambda host: (host != slot.host, host)):
                ledger = self.ledgers.get(name)
                if ledger is None or ledger.host.state != UP or self.refusal(model, ledger.host) is not None:
                    continue
                gpus, port = ledger.pick_gpus(model), ledger.next_port()
                if gpus is None or port is None:
                    continue
                left.add(slot.replica)
                self._give(model, name, self._new_index(model), gpus, port, None)
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
                    self.ledgers[replica.host].reserve(replica.gpus, replica.port, replica.replica)
                elif replica.kept_as_it_is:
                    # before anybody is given a place
                    self.ledgers[replica.host].block(replica.gpus, replica.replica)

    def _pin(self, model: Model) -> None:
        """Give the model's named places to its first replicas, also those that nobody else would get."""
        wished = model.pins[: model.replicas]
        places = [
            (pin.host, pins.resolved(pin, self.hosts[pin.host]) if pin.host in self.hosts else pin.gpus)
            for pin in wished
        ]
        mine = [
            replica
            for replica in self.current.get(model.id, ())
            if replica.host in self.hosts
            and (replica.fixed or self.hosts[replica.host].runtime_of(model) == replica.runtime)
        ]
        for pin, (name, gpus), was in zip(wished, places, pins.matched(places, mine), strict=True):
            ledger = self.ledgers.get(name)
            if was is not None and was.fixed:
                self.pinned.add(was.replica)
                self.met[model.id] += 1
                self._hold(was, wished=True)
                continue
            why = pins.trouble(model, pin, gpus, ledger, was)
            if why is None and ledger is not None and not (was and was.kept_as_it_is):
                refused = self.refusal(model, ledger.host)
                why = f"{name} {refused}" if refused is not None else None
            port = ledger.port_for(was) if ledger is not None and why is None else None
            if why is None and port is None:
                why = f"{name} has no free port"
            if why is not None or ledger is None:
                self.unmet[model.id] += 1
                self.problems.append(
                    f"model {model.id}: its pin to GPU {', '.join(pin.gpus)} of {pin.host} cannot be met: {why}"
                )
                continue
            self.notes += pins.doubts(model, pin, gpus, ledger.host)
            index = was.index if was is not None else self._new_index(model)
            if was is not None:
                self.pinned.add(was.replica)
            self.met[model.id] += 1
            self._give(model, name, index, gpus, port, was)

    def _new_index(self, model: Model) -> int:
        """A number that no replica of the model has."""
        taken = self.indexes[model.id] | {replica.index for replica in self.current.get(model.id, ())}
        return next(number for number in count() if number not in taken)

    def _keep(self, model: Model) -> list[_Wanted]:
        """Give the replicas that stay their places; return those that need another one."""
        allowed = set(model.hosts)
        eligible: list[Current] = []
        others: list[Current] = []
        for replica in self.current.get(model.id, ()):
            if replica.replica in self.pinned:
                continue
            host = self.hosts.get(replica.host)
            fits = host is not None and replica.host in allowed
            if fits and host is not None and not replica.fixed:
                fits = host.runtime_of(model) == replica.runtime and (
                    replica.kept_as_it_is or self.refusal(model, host) is None
                )
            (eligible if fits else others).append(replica)
        eligible.sort(key=lambda replica: (_KEEP_ORDER[replica.state], replica.index, replica.host))
        room = model.replicas - self.met[model.id]
        kept, surplus = eligible[:room], eligible[room:]

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
        used = {replica.index for replica in kept} | self.indexes[model.id]
        used.update(replica.index for replica in (*surplus, *others) if replica.fixed)
        index = 0
        # what has a pin that cannot be met gets no other place; what runs is not stopped for it
        for _ in range(room - self.unmet[model.id] - len(kept)):
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
                and not self._better_elsewhere(model, replica)
            )
        return ledger.can_take(replica.gpus, model) and ledger.port_is_free(replica.port)

    def _better_elsewhere(self, model: Model, replica: Current) -> bool:
        """Whether a running replica is to be started anew anyhow and its GPUs are such that no new one would get them.

        One that stays as it is stays where it is, whatever is said of its GPUs.
        """
        host = self.hosts[replica.host]
        bad = any(gpu in host.unwell_gpus and host.health_of(gpu) == DOWN for gpu in replica.gpus)
        if not bad and all(model.need.met_by(host.memory_of(gpu)) for gpu in replica.gpus):
            return False
        runtime, port = host.runtime_of(model), replica.port or 0
        stays = Slot(model.id, replica.host, replica.index, replica.gpus, port, runtime, was=replica)
        return self.renews(model, stays)

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
        self.ledgers[host].reserve(gpus, port, replica_id(host, model.id, index))
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
            if ledger is not None and ledger.host.state == UP and len(ledger.free_for(model)) >= model.gpus:
                heap.append(self._rank(model, ledger))
        heapq.heapify(heap)
        for index in self._free_indexes(model, fresh):
            if not self._place_one(model, index, heap):
                placed = sum(slot.model == model.id and slot.wished for slot in self.slots)
                self.problems.append(reasons.why_not(model, placed, self.ledgers, self.refusal))
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
        same = len(before.gpus) == model.gpus and ledger.can_take(before.gpus, model)
        gpus = before.gpus if same else ledger.pick_gpus(model)
        port = ledger.port_for(before)
        if gpus is None or port is None:
            return False
        self._give(model, before.host, before.index, gpus, port, before)
        return True

    def _place_one(
        self,
        model: Model,
        index: int,
        heap: list[tuple[int, int, int, str]],
    ) -> bool:
        while heap:
            *_, name = heapq.heappop(heap)
            ledger = self.ledgers[name]
            if self.refusal(model, ledger.host) is not None:
                continue
            gpus, port = ledger.pick_gpus(model), ledger.next_port()
            if gpus is None or port is None:
                continue  # it only gets fuller: out for this model
            self._give(model, name, index, gpus, port, None)
            heapq.heappush(heap, self._rank(model, ledger))
            return True
        return False

    def _rank(self, model: Model, ledger: Ledger) -> tuple[int, int, int, str]:
        """By what a host is chosen; the lowest is."""
        name = ledger.host.name
        load = ledger.free_gpus if model.gpus else ledger.replicas
        return self.here[model.id][name], ledger.tier(model), load, name
