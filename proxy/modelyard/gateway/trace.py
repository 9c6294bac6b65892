"""Where a request stands in a trace (W3C Trace Context, https://www.w3.org/TR/trace-context/), and when its
attempts were made. Needs nothing of OpenTelemetry: ``tracing`` makes spans of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from multidict import CIMultiDict, MultiMapping

# any version but ff, of which only later ones may say more
_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Parent:
    """The client's span. ``sampled``: it is recorded, and so what belongs to it should be."""

    trace_id: int
    span_id: int
    sampled: bool


def parent_of(headers: MultiMapping[str]) -> Parent | None:
    """The span that the client names in ``traceparent``, where it names one in good form."""
    named = headers.getall("traceparent", [])
    found = _TRACEPARENT.fullmatch(named[0].strip()) if len(named) == 1 else None
    if found is None or (found["version"] == "00" and found["more"] is not None):
        return None
    return Parent(int(found["trace"], 16), int(found["span"], 16), bool(int(found["flags"], 16) & _SAMPLED))


class Attempt:
    """One try on one replica. ``ended`` and ``error`` stay empty for the one whose answer was used."""

    __slots__ = ("began", "ended", "error", "model_id", "replica_id", "span_id")

    def __init__(self, span_id: int, replica_id: str, model_id: str, began: float) -> None:
        self.span_id = span_id
        self.replica_id = replica_id
        self.model_id = model_id
        self.began = began
        self.ended: float | None = None
        self.error = ""


class Trace:
    """The ids of one request's span and of its attempts. Times are ``perf_counter`` seconds."""

    __slots__ = ("_new_span_id", "attempts", "parent", "span_id", "trace_id")

    def __init__(self, parent: Parent | None, trace_id: int, new_span_id: Callable[[], int]) -> None:
        self.parent = parent
        self.trace_id = trace_id
        self.span_id = new_span_id()
        self.attempts: list[Attempt] = []
        self._new_span_id = new_span_id

    def attempt(self, replica_id: str, model_id: str) -> str:
        """A replica is asked now. Returns the ``traceparent`` that it gets."""
        attempt = Attempt(self._new_span_id(), replica_id, model_id, time.perf_counter())
        self.attempts.append(attempt)
        return f"00-{self.trace_id:032x}-{attempt.span_id:016x}-01"

    def failed(self, error: str) -> None:
        """The last attempt has failed with the code ``error``, and another may follow."""
        if self.attempts:
            attempt = self.attempts[-1]
            attempt.ended = time.perf_counter()
            attempt.error = error

    def retold(self, headers: CIMultiDict[str], traceparent: str) -> CIMultiDict[str]:
        """A copy of ``headers`` with ``traceparent`` in place of what the client said."""
        told = without_client(headers, self.parent)
        told["traceparent"] = traceparent
        return told


def without_client(headers: CIMultiDict[str], parent: Parent | None) -> CIMultiDict[str]:
    """A copy of ``headers`` without the client's ``traceparent``, and without the ``tracestate`` that belongs to
    it where there was none that holds.
    """
    told = CIMultiDict(headers)
    told.popall("traceparent", None)
    if parent is None:
        told.popall("tracestate", None)
    return told


class Origin(Protocol):
    """The client's request that a pursuit is for. ``arrived``: ``perf_counter`` seconds, when it was whole;
    ``trace``: what is noted of its attempts, if anything.
    """

    route: str
    client: str
    arrived: float
    trace: Trace | None
