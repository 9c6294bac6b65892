"""One request's way through the replicas: every decision, and no I/O but waiting.

Two drivers carry a pursuit out, ``forward`` with coroutines and the lane with callbacks, so that what is
tried, in which order and how often is decided in one place only:

    pursuit = pursuits.begin(model, ...)    # raises for a request that is known to end engines
    while True:
        lease = pursuit.next()              # raises when there is nothing left to try
        if lease is None:
            await pursuit.wait()            # none can take it now; raises when waiting was in vain
            continue
        ...send the request to lease.replica...
        pursuit.failed(error)               # no byte has reached the client: the next replica, or
        pursuit.answered(status)            # the answer goes to the client, no way back
        break
    pursuit.finish(error or None)           # always, exactly once or more
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelyard.errors import (
    NoReplicaError,
    QueryOfDeathError,
    UpstreamBusyError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamLostError,
    UpstreamTimeoutError,
)
from modelyard.registry.model import Model, Queue

from .fallbacks import fallback_chain
from .losses import MOST_DEATHS, Losses
from .outcomes import FAILED, Blame, blame_for, gave_up
from .policies import most_tokens
from .replicas import Confinement, Lease, Replica
from .suspects import EARLY_S, fingerprint
from .trace import Origin
from .usage import AnswerMeter, Usage

if TYPE_CHECKING:
    from .pursuits import Pursuits

_log = logging.getLogger(__name__)

DEFAULT_QUEUE = Queue()
_SUSPECT_LOOKS_S = 0.02
_SUSPECT_WAITS_S = 60.0


class Pursuit:
    """One request: what it has tried, what it holds, and what its answer was like.

    Holds at most one lease. The drivers hang a ``meter`` on it before ``answered`` and feed it the bytes of the
    answer that is used, for the list of running requests and the metrics. Times are ``perf_counter`` seconds:
    ``started`` (the whole request was there), ``leased_at`` (the first replica was chosen), ``queued_s`` (spent
    in the queue until then). ``serving`` is the model whose replicas are tried now: the asked one, or one of its
    fallbacks.
    """

    __slots__ = (
        "_chain",
        "_confined",
        "_document",
        "_heard",
        "_last",
        "_last_replica",
        "_leased_last",
        "_losses",
        "_mark",
        "_only",
        "_paid",
        "_pursuits",
        "_queued",
        "_tried",
        "_until",
        "_woken",
        "attempts",
        "first_byte_at",
        "key",
        "lease",
        "leased_at",
        "meter",
        "model",
        "origin",
        "queued_s",
        "request_id",
        "serving",
        "started",
        "suspected",
        "usage",
    )

    def __init__(
        self,
        pursuits: Pursuits,
        model: Model,
        request_id: str,
        key: str | None,
        origin: Origin | None,
        document: Mapping[str, Any],
        only: Replica | None = None,
    ) -> None:
        self._pursuits = pursuits
        self._only = only
        self._chain: Iterator[Model] | None = None
        self.serving: Model = model
        self._tried: list[Replica] = []
        self._last: UpstreamError | None = None
        self._last_replica: Replica | None = None
        self._document = document
        self._mark: str | None = None
        self._losses: Losses | None = None
        self._confined: Confinement | None = None
        self._queued = self._woken = self.suspected = False
        self._until: float | None = None
        self.model = model
        self.request_id, self.key = request_id, key
        self.lease: Lease | None = None
        self.attempts = self._paid = self._heard = 0
        self.origin = origin
        self.started = time.perf_counter() if origin is None else origin.arrived
        self._leased_last = 0.0
        self.leased_at: float | None = None
        self.queued_s = 0.0
        self.first_byte_at: float | None = None
        self.meter: AnswerMeter | None = None
        self.usage: Usage | None = None

    @property
    def replica(self) -> Replica | None:
        """The replica that has the request or had it last."""
        return self._tried[-1] if self._tried else None

    @property
    def state(self) -> str:
        """``queued``, ``waiting`` or ``streaming``."""
        waits = "queued" if self._queued else "waiting"
        return waits if self.first_byte_at is None else "streaming"

    @property
    def mark(self) -> str:
        """Its fingerprint."""
        if self._mark is None:
            route = self.origin.route if self.origin is not None else ""
            self._mark = fingerprint(self.model.id, route, self._document)
        return self._mark

    @property
    def accountable(self) -> bool:
        """Whether its like can be told from others: not where nobody has read its body (an upload)."""
        return bool(self._document) and self._pursuits.suspects.enabled

    def suspect(self, deaths: int) -> None:
        """Its like has ended ``deaths`` replicas before."""
        self._losses = Losses(deaths)
        self.suspected = True

    def stays_s(self, token_s: float) -> float | None:
        """See ``Demand``."""
        most = most_tokens(self._document)
        return None if most is None else most * token_s

    def time_left_s(self) -> float | None:
        """Seconds until ``total_s`` is over (0 or less: it is); ``None`` without such a limit."""
        total_s = self.serving.timeouts.total_s
        return total_s - (time.perf_counter() - self.started) if total_s else None

    def next(self) -> Lease | None:
        """A counted replica to send the request to; ``None``: there is none now, but ``wait`` may help.

        Replicas of the wished model come first, then those of its fallbacks. Raises the last replica's error
        in words for the client, ``QueryOfDeathError`` for a request that ends engines, or ``NoReplicaError``
        when none could be tried.
        """
        pursuits = self._pursuits
        if not self.attempts and self._only is None and not pursuits.rooms.used:
            # nothing has gone wrong yet, and nobody has ever had to wait: nearly always
            lease = pursuits.balancer.acquire(self.model, (), self)
            if lease is not None:
                return self._took(lease)
        if self._last is not None and self._must_judge():
            return None
        if self._only is not None:
            if self.attempts:
                raise self.given_up()
            return self._took(pursuits.balancer.hold(self._only))
        if (
            not self._woken
            and not self.attempts
            and pursuits.rooms.crowded(self.model.id)
            and self._may_wait()
        ):
            # those who came earlier go first
            return None
        lease = self._lease_of(self.model) if self.serving is self.model else None
        if lease is None:
            lease = self._fall_back()
        if lease is not None:
            return lease
        if self._may_wait():
            self.serving, self._chain = self.model, None
            return None
        raise self.given_up()

    def _lease_of(self, model: Model) -> Lease | None:
        pursuits, tried = self._pursuits, self._tried
        if tried and sum(replica.model_id == model.id for replica in tried) >= pursuits.max_attempts:
            return None
        lease = pursuits.balancer.acquire(model, tried, self)
        if lease is None:
            return None
        self.serving = model
        return self._took(lease)

    def _took(self, lease: Lease) -> Lease:
        pursuits, replica = self._pursuits, lease.replica
        self.lease = lease
        self._queued = False
        self._leased_last = time.perf_counter()
        if self.leased_at is None:
            self.leased_at = self._leased_last
        self._tried.append(replica)
        self.attempts += 1
        if self.suspected:
            self._heard = replica.heard
            self._confined = pursuits.balancer.confine(replica, self)
        if self._woken:
            # there may be room for one more
            self._woken = False
            pursuits.rooms.passed(self.model.id)
        return lease

    def _fall_back(self) -> Lease | None:
        if self._chain is None:
            self._chain = fallback_chain(self._pursuits.registry(), self.model)
            next(self._chain)
        elif self.serving is not self.model and (lease := self._lease_of(self.serving)) is not None:
            return lease
        for model in self._chain:
            if (lease := self._lease_of(model)) is not None:
                return lease
            self.serving = model
        return None

    def _must_judge(self) -> bool:
        """After a failure: whether a verdict is needed first. Raises when there must be no further attempt."""
        last, pursuits = self._last, self._pursuits
        if last is not None and last.code == "deadline_exceeded":
            # no time is left for anybody else, the fallbacks included
            raise self.given_up()
        losses, known = self._losses, 0
        if losses is not None:
            if losses.doubtful:
                return True
            if losses.doubt is not None:
                losses.silent.append(self._tried[-1])
                if losses.was_dead():
                    self._lost(losses)
                elif self._confined is not None:
                    losses.note_silence(self._tried[-1], self._heard)
            deaths = losses.deaths()
            if deaths is None:
                return True
            known = deaths
        if known >= MOST_DEATHS:
            raise self._condemned()
        if self._paid < self.attempts:
            self._paid = self.attempts
            # one that was turned away at the door has cost an engine nothing
            turned_away = isinstance(last, UpstreamConnectError | UpstreamBusyError)
            if not turned_away and not pursuits.budget.take(len(pursuits.running)):
                raise self.given_up(" (no retries are left for now: too many requests fail)")
        return False

    def may_go_elsewhere(self) -> bool:
        """Whether another replica might take the request instead of the one that it holds."""
        tried, pursuits = self._tried, self._pursuits
        if self._only is not None or len(tried) >= pursuits.max_attempts:
            return False
        return bool(pursuits.balancer.usable(self.serving.id, tried))

    def failed(self, error: UpstreamError) -> None:
        """The replica did not answer, and nothing has reached the client: it is given back."""
        lease, pursuits = self._held(), self._pursuits
        replica = lease.replica
        self._last, self._last_replica = error, replica
        pursuits.observer.attempt(replica, error.code)
        if self.origin is not None and self.origin.trace is not None:
            self.origin.trace.failed(error.code)
        _log.warning("request %s: replica %s failed: %s", self.request_id, replica.id, error.message)
        if isinstance(error, UpstreamConnectError):
            pursuits.unreachable(replica, error.message)
        blame = blame_for(error)
        if blame is Blame.FAULT:
            pursuits.fault(lease)
        elif blame is Blame.BUSY:
            pursuits.busy(replica, error.message)
        if self.accountable and isinstance(error, UpstreamLostError | UpstreamTimeoutError):
            losses = self._losses if self._losses is not None else Losses()
            self._losses = losses
            losses.alone = pursuits.balancer.is_alone(replica, self._confined)
            if isinstance(error, UpstreamLostError):
                self._lost(losses, replica)
            elif blame is Blame.FAULT:
                losses.doubt = pursuits.look(replica)
        self._release()

    def _lost(self, losses: Losses, *replicas: Replica) -> None:
        self.suspected = True
        # those that were only silent then may have died of it since
        silent, losses.silent = losses.silent, []
        for each in (*silent, *replicas):
            losses.add(self._pursuits.lost(each, self.mark, self.model.id))

    def answered(self, status: int = 200) -> None:
        """The answer has begun and goes to the client."""
        self.first_byte_at = time.perf_counter()
        pursuits, lease = self._pursuits, self.lease or self._held()
        lease.answered()
        if status >= FAILED:
            pursuits.fault(lease)
        elif lease.trial or lease.replica.breaker.marked:
            pursuits.well(lease)
        if self._paid:
            pursuits.budget.helped()
        if self.suspected:
            # it may still end its replica: what clears its like is an answer that ends well
            self._free()
        if self.meter is None or self.meter.streamed or self.origin is None:
            # any other is counted whole when it ends, which is soon
            pursuits.observer.answered(self)

    async def is_dying(self) -> bool:
        """See ``Pursuits.is_dying``, of the replica that it holds."""
        return await self._pursuits.is_dying(self._held().replica)

    def finish(self, error: UpstreamError | None = None) -> None:
        """The request is over: it ended well, was given up, its client left, or ``error`` cut its answer.

        Doing so again changes nothing.
        """
        lease, pursuits = self.lease, self._pursuits
        if error is not None and self.first_byte_at is not None and lease is not None:
            pursuits.observer.broken(lease.replica)
            if blame_for(error) is Blame.FAULT:
                pursuits.fault(lease)
            if isinstance(error, UpstreamLostError) and self.accountable:
                pursuits.lost(lease.replica, self.mark, self.model.id, early=self._is_early())
        elif (
            pursuits.suspects.watching
            and self.accountable
            and lease
            and self.first_byte_at is not None
            and not self._losses
        ):
            # its like may have been lost with a replica; here it harmed none
            pursuits.suspects.cleared(self.mark)
        pursuits.running.discard(self)
        self._release()

    def _may_wait(self) -> bool:
        pursuits, model = self._pursuits, self.model
        queue = model.queue or DEFAULT_QUEUE
        if not queue.size or len(self._tried) >= pursuits.max_attempts:
            return False
        may_come = pursuits.balancer.may_come(model.id, self._tried)
        return may_come or (model.queue is not None and not self._tried)

    async def wait(self) -> None:
        """Wait for a verdict, or until a replica may be free. Raises ``QueueFullError`` or ``NoReplicaError``
        when there is no place to wait or it was in vain.
        """
        began = time.perf_counter()
        self._queued = True
        try:
            losses = self._losses
            if losses is not None and (losses.doubtful or losses.deaths() is None):
                await losses.judged()
            else:
                await self._wait_for_room()
        finally:
            self._queued = False
            self.queued_s += time.perf_counter() - began

    async def _wait_for_room(self) -> None:
        pursuits, queue = self._pursuits, self.model.queue or DEFAULT_QUEUE
        now = pursuits.steady()
        if self._until is None:
            wait_s = _SUSPECT_WAITS_S if self.suspected else queue.wait_s
            self._until = now + wait_s
        again, self._woken = self._woken, False
        if self.suspected and now < self._until and (again or not pursuits.rooms.crowded(self.model.id)):
            # it waits for other suspects, not for a place; one that it got and cannot use is for the next in line
            if again:
                pursuits.rooms.passed(self.model.id)
            await pursuits.sleep(_SUSPECT_LOOKS_S)
            return
        why = pursuits.balancer.explain(self.model.id)
        # where others wait, it lines up with them, or they would always be faster; it was let in long ago
        admitted = again or (self.attempts > 0 and self.suspected)
        await pursuits.rooms.of(self.model.id).wait(
            self.model, queue, self._until, why, again=again, admitted=admitted
        )
        self._woken = True

    def _condemned(self) -> QueryOfDeathError | UpstreamError | NoReplicaError:
        """The request has ended its engines; it is to blame where it was the only suspect on the last one."""
        if self._losses is None or not self._losses.alone:
            return self.given_up(" (two replicas ended while they worked on it)")
        return self._pursuits.condemned(self.mark, self.request_id, self._tried)

    def _is_early(self) -> bool:
        """Whether its replica has had it only for as long as a request takes that ends engines."""
        return time.perf_counter() - self._leased_last <= EARLY_S

    def _held(self) -> Lease:
        if self.lease is None:
            raise RuntimeError("the pursuit holds no replica")
        return self.lease

    def _free(self) -> None:
        """Others that are suspected may have its replica now."""
        if self.replica is not None:
            self._pursuits.balancer.free(self.replica, self)

    def _release(self) -> None:
        lease, self.lease = self.lease, None
        if lease is not None:
            if self.suspected:
                self._free()
            if lease.trial:
                lease.replica.breaker.left(trial=True)
            lease.release()
        if self._woken:
            # woken for a place that it does not take
            self._woken = False
            self._pursuits.rooms.passed(self.model.id)

    def given_up(self, more: str = "") -> UpstreamError | NoReplicaError:
        """The error for the client when nothing more is tried; ``more`` says why."""
        last, replica = self._last, self._last_replica
        if last is None or replica is None:
            return self._pursuits.nobody(self.model)
        return gave_up(last, self.model.id, replica.id, self.attempts, more)
