"""The single attempt loop: pick a replica, open it, and keep trying only while no byte has reached the
client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict

from modelyard.errors import (
    NoReplicaError,
    UpstreamBrokenError,
    UpstreamBusyError,
    UpstreamConnectError,
    UpstreamError,
)
from modelyard.registry.model import Model, Registry

from .balancer import Balancer
from .replicas import Lease, Replica
from .upstream import Transport, UpstreamRequest, UpstreamResponse, whole

_log = logging.getLogger(__name__)

# A replica that answers one of these did not do the work; any other answer is an answer.
_TRY_ELSEWHERE = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Call:
    """What to send to one replica."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Wish:
    """What a dialect wants done, independent of the replica that will do it.

    ``plan`` makes the call for a replica's engine and raises ``ModelyardError`` where that engine cannot do
    it. ``buffered`` reads the whole answer before anything is returned, so that a cut answer is still
    retried.
    """

    model: Model
    plan: Callable[[Replica], Call]
    headers: CIMultiDict[str]
    request_id: str
    key: str | None = None
    buffered: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that has begun. ``first`` holds its first bytes, or all of them when the wish was
    buffered.
    """

    model: Model
    replica: Replica
    response: UpstreamResponse
    first: bytes
    attempts: int


class Observer(Protocol):
    """Whoever wants to know how attempts end."""

    def attempt(self, replica: Replica, result: str) -> None:
        """One attempt's head arrived (``ok``) or failed (an error code)."""

    def first_byte(self, model: Model, seconds: float) -> None:
        """Time from the request's acceptance to the first byte of the answer that was used."""


class Forwarder:
    """Turns wishes into open answers."""

    def __init__(
        self,
        balancer: Balancer,
        transport: Transport,
        *,
        registry: Callable[[], Registry],
        max_attempts: int,
        observer: Observer,
        unreachable: Callable[[Replica, str], None],
    ) -> None:
        self._balancer = balancer
        self._transport = transport
        self._registry = registry
        self._max_attempts = max_attempts
        self._observer = observer
        self._unreachable = unreachable

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[Opened]:
        """An answer to ``wish`` from the first replica that gives one.

        Replicas of the wished model come first, then those of its fallbacks. Raises the last replica's
        error, or ``NoReplicaError`` when none could be tried. Leaving the context ends the upstream request
        and gives the replica back, on every path.
        """
        async with AsyncExitStack() as stack:
            yield await self._first_answer(wish, stack)

    async def _first_answer(self, wish: Wish, stack: AsyncExitStack) -> Opened:
        began = time.perf_counter()
        started = asyncio.get_running_loop().time()
        attempts = 0
        last: UpstreamError | None = None
        last_replica: Replica | None = None
        for model in fallback_chain(self._registry(), wish.model):
            tried: set[Replica] = set()
            while len(tried) < self._max_attempts:
                lease = self._balancer.acquire(model, tried, wish.key)
                if lease is None:
                    break
                attempts += 1
                tried.add(lease.replica)
                try:
                    opened = await self._attempt(wish, model, lease, started, attempts, stack)
                except UpstreamError as exc:
                    last, last_replica = exc, lease.replica
                    self._failed(wish, lease.replica, exc)
                    if exc.code == "deadline_exceeded":
                        # no time is left for anybody else, the fallbacks included
                        raise self._given_up(wish, attempts, exc, lease.replica) from exc
                    continue
                self._observer.attempt(opened.replica, "ok")
                self._observer.first_byte(wish.model, time.perf_counter() - began)
                return opened
        if last is None or last_replica is None:
            raise NoReplicaError(
                f"no replica of model {wish.model.id!r} can be used now: "
                f"{self._balancer.explain(wish.model.id)}; try again shortly",
                retry_after_s=5,
            )
        raise self._given_up(wish, attempts, last, last_replica)

    async def _attempt(
        self, wish: Wish, model: Model, lease: Lease, started: float, number: int, stack: AsyncExitStack
    ) -> Opened:
        replica, limits = lease.replica, model.timeouts
        async with AsyncExitStack() as attempt:
            attempt.enter_context(lease)
            call = wish.plan(replica)
            response = await attempt.enter_async_context(
                self._transport.open(
                    UpstreamRequest(
                        url=replica.endpoint.url + call.path,
                        headers=wish.headers,
                        body=call.body,
                        timeouts=limits,
                        deadline=started + limits.total_s if limits.total_s else None,
                    )
                )
            )
            if response.status in _TRY_ELSEWHERE:
                raise UpstreamBusyError(
                    f"it answered {response.status}",
                    status=response.status,
                    retry_after_s=_retry_after(response),
                )
            if not 200 <= response.status < 600:
                # 101 would make a tunnel of the connection; the rest are no statuses
                raise UpstreamBrokenError(
                    f"it answered with the status {response.status}, which answers nothing"
                )
            if 300 <= response.status < 400:
                # never followed (it could lead anywhere) and never passed on (it tells inner addresses)
                raise UpstreamError(
                    f"it answered with a redirect ({response.status})", code="upstream_redirect"
                )
            first = await (whole(response) if wish.buffered else response.chunk())
            stack.push_async_exit(attempt.pop_all())
            return Opened(model, replica, response, first, number)
        raise AssertionError("unreachable: the attempt's stack swallows nothing")

    def _given_up(self, wish: Wish, attempts: int, last: UpstreamError, replica: Replica) -> UpstreamError:
        """The last replica's error in words for the client."""
        tried = "1 replica was" if attempts == 1 else f"{attempts} replicas were"
        return type(last)(
            f"{tried} tried for model {wish.model.id!r}; {replica.id}: {last.message}; try again shortly",
            code=last.code,
            status=last.status,
            retry_after_s=last.retry_after_s,
        )

    def _failed(self, wish: Wish, replica: Replica, error: UpstreamError) -> None:
        self._observer.attempt(replica, error.code)
        _log.warning("request %s: replica %s failed: %s", wish.request_id, replica.id, error.message)
        if isinstance(error, UpstreamConnectError):
            self._unreachable(replica, error.message)


def fallback_chain(registry: Registry, model: Model) -> Iterator[Model]:
    """``model``, its fallbacks in order, then theirs; each once."""
    seen = {model.id}
    queue = [model]
    while queue:
        current = queue.pop(0)
        yield current
        for name in current.fallbacks:
            following = registry.models.get(name)
            # a model reserved for certain clients is not reached through one that is for everyone
            if following is not None and not following.clients and name not in seen:
                seen.add(name)
                queue.append(following)


def _retry_after(response: UpstreamResponse) -> int | None:
    text = response.headers.get("Retry-After", "")
    return min(int(text), 3600) if text.isdecimal() and len(text) < 8 else None
