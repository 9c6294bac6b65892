"""One request of a client, as the metrics, the access log and the list of running requests tell of it."""

from __future__ import annotations

from .pursuit import Pursuit
from .trace import Trace


class Visit:
    """From a request's head to the end of its answer. Made by whoever reads the request, filled on the way.

    ``started`` (the head was there) and ``arrived`` (the whole request was there) are ``perf_counter``
    seconds. ``route`` comes from the route table and ``model`` from the registry, never from the client;
    ``pursuit`` is there once a replica was sought, ``error`` is the stable code of what went wrong.
    ``trace`` is there where traces are wanted and its client's is recorded.
    """

    __slots__ = (
        "arrived",
        "client",
        "error",
        "method",
        "model",
        "pursuit",
        "request_id",
        "route",
        "size",
        "started",
        "trace",
    )

    def __init__(self, request_id: str, method: str, route: str, client: str, started: float) -> None:
        self.request_id = request_id
        self.method = method
        self.route = route
        self.client = client
        self.started = started
        self.arrived = started
        self.model = ""
        self.pursuit: Pursuit | None = None
        self.size = 0
        self.error = ""
        self.trace: Trace | None = None
