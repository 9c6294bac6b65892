"""What all pursuits of one proxy share, and the rules they go by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from modelyard.errors import NoReplicaError, QueryOfDeathError
from modelyard.registry.model import Model, Registry

from .balancer import Balancer
from .losses import MOST_DEATHS
from .pursuit import Pursuit
from .queue import WaitingRooms
from .replicas import HealthView, Lease, Replica
from .retries import RetryBudget
from .suspects import Suspects
from .trace import Origin

_log = logging.getLogger(__name__)
# one whose answer had begun was not alone on its replica: it takes more than two, none ended well between
_DEATHS_IN_STREAMS = 3
_EMPTY: Mapping[str, Any] = {}
# an engine that has said 500 and is about to die is looked at twice
_SECOND_LOOK_S = 0.25


class Observer(Protocol):
    """Whoever wants to know how attempts and requests go."""

    def attempt(self, replica: Replica, result: str) -> None:
        """One attempt failed, with this error code."""

    def answered(self, pursuit: Pursuit) -> None:
        """The first byte of the answer that is used has arrived from the pursuit's replica. Told of streams, and
        of requests of no client; of all others whoever hears of their end learns it.
        """

    def broken(self, replica: Replica) -> None:
        """An answer of ``replica`` was cut after its first byte."""


class Watch(Protocol):
    """Whoever knows the health of replicas."""

    def mark_unreachable(self, replica: Replica, reason: str) -> None:
        """A request found no connection."""

    def mark_busy(self, replica: Replica, reason: str) -> None:
        """A request was told that the replica has no room."""

    def look_now(self, replica: Replica) -> asyncio.Future[HealthView]:
        """Look at it at once; the future holds what that look showed."""


class Pursuits:
    """Begins pursuits. ``steady`` gives seconds and never goes back, ``clock`` seconds since the epoch."""

    def __init__(
        self,
        balancer: Balancer,
        *,
        registry: Callable[[], Registry],
        max_attempts: int,
        observer: Observer,
        watch: Watch,
        rooms: WaitingRooms,
        suspects: Suspects,
        budget: RetryBudget,
        steady: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.balancer = balancer
        self.registry = registry
        self.max_attempts = max_attempts
        self.observer = observer
        self.rooms = rooms
        self.suspects = suspects
        self.budget = budget
        self.steady = steady
        self.sleep = sleep
        self.running: set[Pursuit] = set()
        self.unreachable = watch.mark_unreachable
        self.busy = watch.mark_busy
        self.look = watch.look_now
        self._clock = clock

    def begin(
        self,
        model: Model,
        *,
        request_id: str,
        key: str | None = None,
        origin: Origin | None = None,
        document: Mapping[str, Any] = _EMPTY,
        only: Replica | None = None,
    ) -> Pursuit:
        """A request for ``model``, ``running`` until it is finished; ``key`` is what the hash policies stick
        to, ``origin`` the client's request that it is for, if any, ``document`` its body;
        ``only`` the one replica that can do it.

        Raises ``QueryOfDeathError`` for a request whose like has ended engines.
        """
        pursuit = Pursuit(self, model, request_id, key, origin, document, only)
        self.budget.requests += 1
        if self.suspects.watching and pursuit.accountable:
            case = self.suspects.case(pursuit.mark)
            if case is not None:
                if case.condemned:
                    case.refused += 1
                    raise self.refusal(pursuit.mark)
                if case.deaths >= MOST_DEATHS and len(self.balancer.usable(model.id)) < MOST_DEATHS:
                    raise NoReplicaError(
                        f"replicas of model {model.id!r} ended while they worked on this request; it is not sent "
                        "to the last one; try again when others are back",
                        retry_after_s=30,
                    )
                pursuit.suspect(case.deaths)
        self.running.add(pursuit)
        return pursuit

    def refusal(self, mark: str) -> QueryOfDeathError:
        """What the client of a condemned request is told."""
        case = self.suspects.case(mark)
        deaths = case.deaths if case is not None else 2
        left_s = max(1, round(case.until - self.steady())) if case is not None else 1
        return QueryOfDeathError(
            f"this request ended {deaths} replicas, one after the other, and is not sent to another one; change "
            f"it, or ask the operator about the fingerprint {mark} (it is refused for {left_s} s)",
        )

    def nobody(self, model: Model) -> NoReplicaError:
        """What the client is told when no replica of ``model`` may be asked."""
        return NoReplicaError(
            f"no replica of model {model.id!r} can be used now: {self.balancer.explain(model.id)}; try again "
            "shortly",
            retry_after_s=5,
        )

    def condemned(self, mark: str, request_id: str, replicas: Sequence[Replica]) -> QueryOfDeathError:
        """The request has ended ``replicas`` and is to blame: its like is refused from now on."""
        self.suspects.condemn(mark)
        _log.error(
            "request %s (fingerprint %s) ended the replicas %s; its like is refused",
            request_id,
            mark,
            ", ".join(replica.id for replica in replicas),
        )
        return self.refusal(mark)

    async def is_dying(self, replica: Replica) -> bool:
        """Whether a replica that answered 500 is about to end, so that its answer means nothing.

        An engine whose core has died (vLLM 0.32: "EngineCore encountered an issue") answers 500 to *every*
        request that it holds, guilty or not, for about half a second; then its /health says 503, then nothing
        listens.
        """
        if (await self.look(replica)).failures:
            return True
        await self.sleep(_SECOND_LOOK_S)
        return bool((await self.look(replica)).failures)

    # --- what an attempt's outcome does to its replica

    def well(self, lease: Lease) -> None:
        """The replica answered."""
        replica = lease.replica
        closed = replica.breaker.succeeded(trial=lease.trial)
        lease.trial = False
        if closed:
            replica.came_back_at = self._clock()
            _log.warning("replica %s: answers again, its breaker is closed", replica.id)
            self._changed(replica)

    def fault(self, lease: Lease) -> None:
        """The replica failed a request."""
        replica = lease.replica
        opened = replica.breaker.failed(self.steady(), trial=lease.trial)
        lease.trial = False
        if opened:
            breaker = replica.breaker
            replica.broke_at = self._clock()
            # whether it lives: if nothing better is left, it is used all the same
            self.look(replica).add_done_callback(lambda _: self._changed(replica))
            _log.warning(
                "replica %s: its breaker opens for %.0f s after %d failures",
                replica.id,
                breaker.until - self.steady(),
                breaker.failures,
            )
            self._changed(replica)

    def lost(
        self, replica: Replica, mark: str, model: str, *, early: bool = False
    ) -> asyncio.Future[HealthView]:
        """A connection to ``replica`` ended under the request ``mark``: whether it died is looked at now.

        ``early``: soon after its answer had begun, so that it could not be sent to another one. Where that
        happens again and again it is to blame.
        """

        def seen(future: asyncio.Future[HealthView]) -> None:
            if not future.cancelled() and future.result().failures:
                case = self.suspects.died(mark, model, replica.id)
                if early and case.deaths >= _DEATHS_IN_STREAMS and not case.condemned:
                    self.suspects.condemn(mark)
                    _log.error(
                        "requests with the fingerprint %s ended the replicas %s in the middle of their answers; "
                        "their like is refused",
                        mark,
                        ", ".join(case.replicas),
                    )

        future = self.look(replica)
        future.add_done_callback(seen)
        return future

    def changed(self, replica: Replica) -> None:
        """What ``replica`` may be used for has changed."""
        self._changed(replica)

    def freed(self, replica: Replica) -> None:
        """A request has left ``replica``."""
        self.rooms.freed(replica.model_id)

    def _changed(self, replica: Replica) -> None:
        self.balancer.changed(replica.model_id)
        self.rooms.changed(replica.model_id)
