"""Counts that all workers see: memory shared between processes, one column for each worker.

A worker writes its own column only and reads the others, so that no lock is needed: numbers of eight aligned
bytes are written whole. Rows follow the order of the registry; a column begins with a mark of the registry
that it is laid out for, and columns laid out for another one are left out until they have caught up.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from modelyard.catalog.loader import Engine
from modelyard.registry.model import Registry

from ..breaker import BreakerRules
from ..replicas import Confinement, Lease, Replica, ReplicaPool

_WORD = 8
_HEADER = 8
_KINDS = 4
_IN_FLIGHT, _OWED, _HEARD, _CONFINED = range(_KINDS)
# how confinements are written: in milliseconds of the steady clock, which all processes share
_MS = 1000
# Pages that nobody writes cost nothing. Replicas beyond are counted by each worker for itself.
ROWS = 65_536


class CountTable:
    """The memory. ``columns`` are the workers' places."""

    def __init__(self, fd: int, columns: int) -> None:
        size = columns * self.column_words() * _WORD
        self._memory = mmap.mmap(fd, size)
        self._words = memoryview(self._memory).cast("q")
        step = self.column_words()
        self.columns = [self._words[n * step : (n + 1) * step] for n in range(columns)]

    @staticmethod
    def column_words() -> int:
        """The length of one column in words of eight bytes."""
        return _HEADER + _KINDS * ROWS

    @classmethod
    def make(cls, columns: int) -> tuple[CountTable, int]:
        """A new table and its file descriptor, for the workers to inherit."""
        fd = os.memfd_create("modelyard counts")
        os.ftruncate(fd, columns * cls.column_words() * _WORD)
        return cls(fd, columns), fd

    def clear(self, column: int) -> None:
        """The worker of this column is gone, and so is what it had."""
        place = self.columns[column]
        place[0] = 0
        used = _HEADER + _KINDS * ROWS
        for start in range(0, used, 4096):
            part = place[start : min(start + 4096, used)]
            if any(part):
                part[:] = memoryview(bytes(len(part) * _WORD)).cast("q")

    def close(self) -> None:
        """Let go of the memory."""
        for column in self.columns:
            column.release()
        self._words.release()
        self._memory.close()


class SharedPool(ReplicaPool):
    """A pool whose ``in_flight`` are those of all workers. ``mine`` is the own column, ``None`` for the
    supervisor, which has no requests.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        table: CountTable,
        mine: int | None,
        breaker: BreakerRules | None = None,
    ) -> None:
        super().__init__(engines, breaker)
        self._table = table
        self._mine = table.columns[mine] if mine is not None else None
        self._others = [column for number, column in enumerate(table.columns) if number != mine]
        self._rows: dict[Replica, int] = {}
        self._own: dict[Replica, int] = {}
        self._mark = 0
        self._seen: list[list[int]] = []
        self._sums: list[int] = []
        self._touched: set[Replica] = set()

    def apply(self, registry: Registry) -> tuple[list[Replica], list[Replica]]:
        """See ``ReplicaPool.apply``."""
        for replica in self._replicas.values():
            # what leaves now is finished here, and only what runs here keeps it
            replica.in_flight = self._own.get(replica, 0)
        changed = super().apply(registry)
        self._lay_out()
        return changed

    def _lay_out(self) -> None:
        present = list(self._replicas.values())[:ROWS]
        self._rows = {replica: number for number, replica in enumerate(present)}
        self._seen, self._sums = [], []
        names = "\n".join(replica.id for replica in present)
        self._mark = int.from_bytes(blake2b(names.encode(), digest_size=7).digest(), "big") + 1
        if self._mine is not None:
            self._mine[0] = 0
            for replica, row in self._rows.items():
                self._mine[_HEADER + row] = self._own.get(replica, 0)
                self._write_confined(replica, row)
            self.publish()
            self._mine[0] = self._mark

    def lease(self, replica: Replica) -> Lease:
        """See ``ReplicaPool.lease``."""
        self._count(replica, 1)
        return super().lease(replica)

    def _give_back(self, replica: Replica) -> None:
        self._count(replica, -1)
        super()._give_back(replica)

    def _count(self, replica: Replica, step: int) -> None:
        self._touched.add(replica)
        count = self._own.get(replica, 0) + step
        if count:
            self._own[replica] = count
        else:
            del self._own[replica]
        row = self._rows.get(replica)
        if row is not None and self._mine is not None:
            self._mine[_HEADER + row] = count

    def of_model(self, model_id: str) -> tuple[Replica, ...]:
        """See ``ReplicaPool.of_model``; their counts are those of this moment."""
        replicas = super().of_model(model_id)
        self._refresh(replicas)
        return replicas

    def count(self, replica: Replica) -> int:
        """See ``ReplicaPool.count``: what the others have is read now, so that a limit holds for all together."""
        self._refresh((replica,))
        return replica.in_flight

    def everyone(self) -> Iterable[Replica]:
        """See ``ReplicaPool.everyone``; their counts are those of this moment."""
        self._refresh(self._replicas.values())
        return super().everyone()

    def _refresh(self, replicas: Iterable[Replica]) -> None:
        others = [column for column in self._others if column[0] == self._mark]
        rows, own = self._rows, self._own
        for replica in replicas:
            count = own.get(replica, 0)
            row = rows.get(replica)
            if row is not None:
                for column in others:
                    count += column[_HEADER + row]
            replica.in_flight = count

    def confine(self, replica: Replica, held: Confinement | None) -> None:
        """See ``ReplicaPool.confine``."""
        super().confine(replica, held)
        row = self._rows.get(replica)
        if row is not None:
            self._write_confined(replica, row)

    def _write_confined(self, replica: Replica, row: int) -> None:
        if self._mine is not None:
            held = replica.confined
            self._mine[_HEADER + _CONFINED * ROWS + row] = 0 if held is None else round(held.until * _MS)

    def confined_elsewhere(self, replica: Replica) -> float:
        """See ``ReplicaPool.confined_elsewhere``."""
        row = self._rows.get(replica)
        if row is None:
            return 0.0
        at = _HEADER + _CONFINED * ROWS + row
        return max((column[at] for column in self._others if column[0] == self._mark), default=0) / _MS

    def follow_others(self) -> None:
        """Take over what the others have now. Cheap where nothing has changed, so that it can be done often."""
        count = len(self._rows)
        columns = [column for column in self._others if column[0] == self._mark]
        now = [column[_HEADER : _HEADER + count].tolist() for column in columns]
        if now == self._seen:
            return
        self._seen = now
        sums = [sum(row) for row in zip(*now, strict=True)] if now else [0] * count
        # not what a replica is seen to have now: a look in between may have taken over the lower count already
        before, self._sums = self._sums or sums, sums
        own = self._own
        for replica, others, more in zip(self._rows, sums, before, strict=True):
            replica.in_flight = own.get(replica, 0) + others
            if others < more and self._freed is not None:
                # a request has left it elsewhere: one that waits here may take the place
                self._freed(replica)

    def touched(self) -> set[Replica]:
        """The replicas that had requests of this worker since they were asked for last."""
        touched, self._touched = self._touched, set()
        return touched

    def publish(self) -> None:
        """Write down what changes too often to be written at once: for a worker, every quarter second."""
        mine = self._mine
        if mine is None:
            return
        owed, heard = _HEADER + _OWED * ROWS, _HEADER + _HEARD * ROWS
        for replica, row in self._rows.items():
            if mine[owed + row] != replica.owed:
                mine[owed + row] = replica.owed
            if mine[heard + row] != replica.heard:
                mine[heard + row] = replica.heard

    def gather(self) -> None:
        """Read what all workers have published: for the supervisor, which judges by it."""
        columns = [column for column in self._others if column[0] == self._mark]
        owed, heard = _HEADER + _OWED * ROWS, _HEADER + _HEARD * ROWS
        for replica, row in self._rows.items():
            replica.owed = sum(column[owed + row] for column in columns)
            replica.heard = sum(column[heard + row] for column in columns)
        self._refresh(self._replicas.values())
