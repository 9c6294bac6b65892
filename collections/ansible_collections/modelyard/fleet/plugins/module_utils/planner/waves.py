"""The order of a change: which replicas are started, replaced and stopped in which step.

Pure. Steps follow one another; within a step everything happens side by side. Models go at their own pace and share
steps, so that many models do not make many steps. No step takes away so many serving replicas that fewer than
``min_ready`` of the model are left, and what needs a GPU or a port comes after what gives it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

START, CANARY, PERCENT, STOP = "start", "canary", "percent", "stop"

Resource = tuple[str, str, str]
"""Host, ``gpu`` or ``port``, and which one."""

Holders = dict[Resource, str]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a model moves: replicas that must go on serving, how many go first, how many at a time after them."""

    min_ready: int = 0
    canary: int = 0
    step: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Move:
    """One replica's change. ``action`` is start, replace or stop; ``serves``: it gets requests now.

    ``needs`` is what it takes hold of, ``frees`` what its old self holds until that has stopped. ``heir``: the replica
    that is started elsewhere in place of this one, which stops only after it; ``paced``: such a start, which goes at
    the pace of replaces. ``joins``: it will serve afterwards; what the operator has drained will not.
    """

    action: str
    replica: str
    model: str
    serves: bool = False
    needs: frozenset[Resource] = frozenset()
    frees: frozenset[Resource] = frozenset()
    heir: str = ""
    paced: bool = False
    joins: bool = True


@dataclass(slots=True)
class Part:
    """What one model does in one step: ids to apply, ids to take requests from before, ids to stop."""

    model: str
    kind: str
    replicas: list[str] = field(default_factory=list)
    drain: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Waves:
    """The steps in order, and what cannot be moved without falling below ``min_ready``."""

    steps: tuple[tuple[Part, ...], ...]
    held: tuple[Move, ...]


def waves(moves: Iterable[Move], paces: Mapping[str, Pace], ready: Mapping[str, int]) -> Waves:
    """Put the moves into steps. ``ready`` says how many replicas of each model serve now.

    A model without a pace is one that nobody wishes any more: all of it goes at once. Every move is in exactly one step
    or held, but for a replace in a circle of moves that wait for each other's place: it is stopped in one step and
    started in a later one.
    """
    queues: dict[str, _Queue] = {}
    for move in sorted(moves, key=lambda one: one.replica):
        pace, serving = paces.get(move.model, Pace()), ready.get(move.model, 0)
        queues.setdefault(move.model, _Queue(move.model, pace, serving)).add(move)
    order = [queues[name] for name in sorted(queues)]
    holders: Holders = {
        place: move.replica for queue in order for move in queue.left() for place in move.frees
    }
    steps: list[tuple[Part, ...]] = []
    while order:
        parts = (
            _chosen(order, lambda queue: queue.usual(holders))
            or _chosen(order, _Queue.stops_early)
            or _chosen(order, _Queue.split, most=1)
        )
        if not parts:
            break
        for queue in order:
            for place, replica in queue.settle():
                if holders.get(place) == replica:
                    del holders[place]
        steps.append(tuple(parts))
        order = [queue for queue in order if queue.left()]
    return Waves(tuple(steps), tuple(move for queue in order for move in queue.left()))


class _Queue:
    """What is still to be done for one model, and what the step being made does of it."""

    def __init__(self, model: str, pace: Pace, ready: int) -> None:
        self.model = model
        self.pace = pace
        self.ready = ready
        self.begun = False
        self.idle: list[Move] = []  # take no serving replica away: starts, and replaces of what is down
        self.paced: list[Move] = []
        self.stops: list[Move] = []
        self._now: list[Move] = []

    def add(self, move: Move) -> None:
        if move.action == STOP:
            self.stops.append(move)
        else:
            (self.paced if move.serves or move.paced else self.idle).append(move)

    def left(self) -> list[Move]:
        """Everything that is not done yet."""
        return [*self.idle, *self.paced, *self.stops]

    def usual(self, holders: Holders) -> Part | None:
        """Starts first, then replaces at the model's pace, stops last."""
        down = [move for move in self.stops if not move.serves]
        starts = [move for move in self.idle if _free(move, holders)]
        if starts:
            return self._take(START, starts + down)
        moved = self._replaces(holders)
        budget = self.ready - self.pace.min_ready - sum(move.serves for move in moved)
        waiting = {move.replica for move in (*self.idle, *self.paced)}
        last = not waiting
        due = [
            move
            for move in self.stops
            if move.serves and (last if not move.heir else move.heir not in waiting)
        ][: max(budget, 0)]
        if not moved:
            return self._take(STOP, down + due)
        kind = CANARY if self.pace.canary and not self.begun else PERCENT
        self.begun = True
        return self._take(kind, moved + down + due)

    def _replaces(self, holders: Holders) -> list[Move]:
        most = self.pace.canary if self.pace.canary and not self.begun else self.pace.step
        budget = self.ready - self.pace.min_ready
        chosen: list[Move] = []
        for move in self.paced:
            if len(chosen) == most:
                break
            if _free(move, holders) and (budget > 0 or not move.serves):
                budget -= move.serves
                chosen.append(move)
        return chosen

    def stops_early(self) -> Part | None:
        """Stops before the rest, which needs their places or waits for them."""
        budget = max(self.ready - self.pace.min_ready, 0)
        return self._take(STOP, [move for move in self.stops if not move.heir][:budget])

    def split(self) -> Part | None:
        """One replace of a circle: stopped now, started once its new place is free."""
        if self.ready <= self.pace.min_ready:
            return None
        for move in self.paced:
            if move.serves and move.frees:
                self.idle.append(replace(move, action=START, serves=False, frees=frozenset()))
                return self._take(STOP, [replace(move, action=STOP)])
        return None

    def _take(self, kind: str, moves: list[Move]) -> Part | None:
        if not moves:
            return None
        self._now = moves
        return Part(
            self.model,
            kind,
            replicas=[move.replica for move in moves if move.action != STOP],
            # who frees a place runs, and may have requests left even where it gets no new ones
            drain=[move.replica for move in moves if move.serves or move.frees],
            stops=[move.replica for move in moves if move.action == STOP],
        )

    def settle(self) -> list[tuple[Resource, str]]:
        """The step is made: count it. Returns the places that it frees, each with who held it."""
        done = {move.replica for move in self._now}
        stopped = {move.replica for move in self._now if move.action == STOP}
        for move in self._now:
            if move.action == STOP:
                self.ready -= move.serves
            elif not move.serves and move.joins:
                self.ready += 1
        freed = [(place, move.replica) for move in self._now for place in move.frees]
        # what was split stays among the idle ones, under the same name
        self.idle = [move for move in self.idle if move.replica not in done - stopped]
        self.paced = [move for move in self.paced if move.replica not in done]
        self.stops = [move for move in self.stops if move.replica not in done]
        self._now = []
        return freed


def _free(move: Move, holders: Holders) -> bool:
    """Whether nobody else holds what it needs."""
    return all(holders.get(place, move.replica) == move.replica for place in move.needs)


def _chosen(
    order: list[_Queue], choose: Callable[[_Queue], Part | None], most: int | None = None
) -> list[Part]:
    parts: list[Part] = []
    for queue in order:
        part = choose(queue)
        if part is not None:
            parts.append(part)
            if len(parts) == most:
                break
    return parts
