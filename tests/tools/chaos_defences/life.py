"""Connections, clients, health and the fleet: the rows of what lives longer than one answer."""

from __future__ import annotations

from .edits import Defence, Edit, off
from .shared import (
    BREAKER,
    CONNECTION,
    EXCHANGE,
    FORWARD,
    FRAMING,
    GUARD,
    KEEPS_LEFT_OVER,
    LANE,
    LANE_RUN,
    MONITOR,
    NO_CANCEL,
    NO_RETRY,
    OUTCOMES,
    PROGRESS,
    PURSUIT,
    QUEUE,
    REPLICAS,
    RULES,
    SERVER,
    STAYS_IN_LANE,
    SUSPECTS,
    TRANSPORT,
)

_CONNECTIONS = (
    off(
        "stale-connection",
        "a stale connection is replaced",
        Edit(
            EXCHANGE,
            "return not connection.heard and connection.uses > 1 and not self.resent",
            "return False and not self.resent",
        ),
    ),
    off(
        "fresh-connection-breaks",
        "only used connections are stale",
        Edit(EXCHANGE, "not connection.heard and connection.uses > 1 and", "not connection.heard and"),
    ),
    off(
        "bytes-for-nobody",
        "bytes that nobody asked for end the connection",
        Edit(
            CONNECTION,
            "            self.abort()\n            return\n        self.heard",
            "            self.parser._partial += data\n            return\n        self.heard",
        ),
        *KEEPS_LEFT_OVER,
    ),
    off(
        "clients-leave",
        "an answer that nobody reads ends its connection",
        Edit(
            EXCHANGE,
            "            connection = self._leave()\n            if connection is not None:\n"
            "                connection.abort()",
            "            connection = self._leave()\n            if connection is not None:\n"
            "                self._home.give_back(connection, None)",
        ),
        Edit(
            CONNECTION,
            "            self.abort()\n            return\n        self.heard",
            "            return\n        self.heard",
        ),
    ),
    off(
        "connection-close",
        "Connection: close is believed",
        Edit(
            FRAMING,
            'head.keep_alive = modern if not tokens else b"close" not in tokens and (modern or b"keep-alive" in tokens)',
            "head.keep_alive = True",
        ),
    ),
    off(
        "pipelined",
        "a connection is kept for what the client has sent",
        Edit(GUARD, "if gateway.lifecycle.draining:\n", "if True:\n"),
    ),
    off(
        "pipelined",
        "the lane keeps what came with a request",
        Edit(LANE, "        self._ahead = data[whole:]\n", '        self._ahead = b""\n'),
    ),
    off(
        "pipelined",
        "the lane keeps what comes behind one that runs",
        Edit(LANE, "            self._ahead += data\n", ""),
    ),
    off(
        "pipelined",
        "the lane answers one after the other",
        Edit(
            LANE,
            "        if self._run is not None:\n            self._ahead",
            "        if False:\n            self._ahead",
        ),
    ),
)

_CLIENTS = (
    off(
        "floods",
        "a fast engine is held back",
        Edit(TRANSPORT, "if self._size > _HIGH_WATER and not self._paused:", "if False:"),
    ),
    off(
        "floods",
        "so it is in the lane",
        Edit(
            LANE,
            "        self.writable = False\n        if self._run is not None:\n            self._run.pause()\n",
            "        self.writable = False\n",
        ),
    ),
    off(
        "slow-reader",
        "idle_s does not run while the client pauses",
        Edit(EXCHANGE, "(self.fresh or self._paused)", "self.fresh"),
    ),
    off(
        "crumbs",
        "a request may come in pieces",
        Edit(LANE, "            self._unread.append(data)\n            self._size", "            self._size"),
    ),
    off("leaves-during-prefill", "a client that leaves is noticed at once", NO_CANCEL),
    off("leaves-during-prefill", "so it is in the lane", STAYS_IN_LANE),
    off("leaves-no-retry", "a client that leaves is noticed at once", NO_CANCEL),
    off("leaves-no-retry", "so it is in the lane", STAYS_IN_LANE),
    off(
        "slow-body",
        "the deadline of request bodies",
        Edit("gateway/dialects/bodies.py", "asyncio.timeout(within_s)", "asyncio.timeout(None)"),
    ),
    off(
        "slow-body",
        "the same in the lane",
        Edit(
            LANE,
            "self._due = self._lane.loop.time() + self._lane.body_timeout_s",
            "self._due = self._lane.loop.time() + 3600",
        ),
    ),
)

_HEALTH = (
    off(
        "sick",
        "a failing replica gets nothing",
        Edit(
            REPLICAS,
            "    ReplicaState.READY: Use.READY,\n",
            "    ReplicaState.READY: Use.READY,\n    ReplicaState.FAILING: Use.READY,\n",
        ),
    ),
    off(
        "flaps",
        "one failure takes nobody out",
        Edit(RULES, "seen.failures < rules.failures", "seen.failures < 1"),
    ),
    off(
        "hung-alarm",
        "work without progress is noticed",
        Edit(PROGRESS, "stuck = looks >= _LOOKS and", "stuck = False and"),
    ),
    off(
        "hung-eject",
        "a hung replica is ejected when told so",
        Edit(MONITOR, "eject = self._rules.eject_hung and", "eject = False and"),
    ),
    off(
        "idle-is-not-hung",
        "who has no work cannot hang",
        Edit(PROGRESS, "return bool(self.running or self.waiting or self.owed)", "return True"),
    ),
)

_RESILIENCE = (
    off("breaker", "the breaker", Edit(BREAKER, "if self.failures >= limit or often:", "if False:")),
    off(
        "breaker-ignores-4xx",
        "the client's faults count for no replica",
        Edit(OUTCOMES, "if status in _TRY_ELSEWHERE or", "if status >= 400 or"),
    ),
    off("one-hangs", "the next replica", NO_RETRY),
    off(
        "retry-storm",
        "the retry budget",
        Edit(
            "gateway/retries.py", "if retries >= max(_ALWAYS, requests * self._percent / 100):", "if False:"
        ),
    ),
    off(
        "query-of-death",
        "requests are held to account",
        Edit(SUSPECTS, "return self._hold_s > 0", "return False"),
    ),
    off(
        "slow-death",
        "requests are held to account",
        Edit(SUSPECTS, "return self._hold_s > 0", "return False"),
    ),
    off(
        "slow-death",
        "500 from a replica that dies is a loss",
        Edit(FORWARD, "if await pursuit.is_dying():", "if False:"),
    ),
    off(
        "slow-death",
        "so it is in the lane",
        Edit(LANE_RUN, "        if dying:\n", "        if False:\n"),
    ),
    off(
        "queue",
        "the queue is bounded",
        Edit(QUEUE, "if len(self._waiting) >= queue.size and not (again or admitted):", "if False:"),
    ),
    off(
        "queue-wait",
        "the queue's patience",
        Edit(QUEUE, "left_s = until - self._steady()", "left_s = 3600.0"),
    ),
    off(
        "queue-leaves",
        "who leaves the queue gives up its seat",
        Edit(QUEUE, "            self._pass_on(future)\n            raise", "            raise"),
    ),
)

_FLEET = (
    off(
        "removed",
        "removed replicas get nothing new",
        Edit(
            REPLICAS,
            "self._replicas, self._by_model = plan.after, plan.by_model",
            "self._replicas, self._by_model = plan.after, {**plan.by_model, **self._by_model}",
        ),
        Edit(REPLICAS, "        if self.removed:\n", "        if False:\n"),
    ),
    off(
        "expires",
        "expired replicas get nothing new",
        Edit(
            REPLICAS,
            "if self.endpoint.expires_at is not None and now >= self.endpoint.expires_at:",
            "if False:",
        ),
    ),
    off(
        "reloads",
        "a replica that stays is the same one after a reload",
        Edit(
            REPLICAS,
            "if replica is not None and _same(replica, model.id, endpoint):",
            "if False and replica is not None:",
        ),
    ),
    off(
        "drained-by-hand",
        "what the operator has drained gets nothing new",
        Edit(
            REPLICAS,
            'if self.drained or self.endpoint.state == "draining":',
            'if self.endpoint.state == "draining":',
        ),
    ),
    off(
        "drains",
        "draining replicas get nothing new",
        Edit(REPLICAS, 'if self.drained or self.endpoint.state == "draining":', "if self.drained:"),
    ),
    off(
        "damaged-registry",
        "the registry never goes back",
        Edit("registry/keep.py", "if registry.generation < self._current.generation:", "if False:"),
    ),
    off(
        "falls-back",
        "the fallbacks",
        Edit(
            PURSUIT,
            "for model in self._chain:\n            if",
            "for model in ():\n            if",
        ),
    ),
    off(
        "stops-in-order",
        "a shutdown waits for what has begun",
        Edit(SERVER, "await _either(hurry, lifecycle.idle, settings.shutdown_grace_s)", "pass"),
    ),
    off(
        "stops-in-order",
        "the lane's requests are waited for too",
        Edit(
            LANE,
            "        if not self._entered:\n            lane.gateway.lifecycle.enter()\n        #",
            "        #",
        ),
        Edit(LANE_RUN, "        gateway.lifecycle.leave()\n", ""),
    ),
)

LIFE: tuple[Defence, ...] = (*_CONNECTIONS, *_CLIENTS, *_HEALTH, *_RESILIENCE, *_FLEET)
