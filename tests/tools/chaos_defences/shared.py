"""Files and edits that several rows name."""

from __future__ import annotations

from .edits import Edit

BREAKER = "gateway/breaker.py"
QUEUE = "gateway/queue.py"
SUSPECTS = "gateway/suspects.py"
CONNECTION = "gateway/wire/connection.py"
EXCHANGE = "gateway/wire/exchange.py"
FORWARD = "gateway/forward.py"
LANE = "gateway/lane/protocol.py"
LANE_RUN = "gateway/lane/run.py"
FRAMING = "gateway/wire/framing.py"
GUARD = "gateway/guard.py"
HEADERS = "gateway/headers.py"
MONITOR = "gateway/health/monitor.py"
PROGRESS = "gateway/health/progress.py"
PURSUIT = "gateway/pursuit.py"
PURSUITS = "gateway/pursuits.py"
RULES = "gateway/health/rules.py"
OUTCOMES = "gateway/outcomes.py"
RELAY = "gateway/relay.py"
REPLICAS = "gateway/replicas.py"
SERVER = "gateway/server.py"
STREAMS = "gateway/dialects/streams.py"
TO_TGI = "gateway/dialects/tgi/stream.py"
TRANSLATED = "gateway/dialects/translated.py"
TRANSPORT = "gateway/wire/transport.py"

NO_RETRY = Edit(
    PURSUIT,
    'if last is not None and last.code == "deadline_exceeded":',
    "if last is not None:",
)
NOT_PEEKED = Edit(
    FORWARD,
    "first = await (whole(metered) if wish.buffered else metered.chunk())",
    'first = await (whole(response) if wish.buffered else asyncio.sleep(0, b": begun\\n\\n"))',
)
NOT_PEEKED_IN_LANE = Edit(
    LANE_RUN,
    "        self._head = head\n        if status == FAILED:\n",
    "        self._head = head\n        if head.streams:\n"
    "            self._transport.write(self._begin_answer())\n        if status == FAILED:\n",
)
POLITE_END = Edit(
    RELAY,
    "        except UpstreamError as exc:\n            opened.pursuit.finish(exc)\n",
    "        except UpstreamError as exc:\n            opened.pursuit.finish(exc)\n            return response\n",
)
POLITE_END_IN_LANE = Edit(
    LANE_RUN,
    "        if self._started:\n            self._broken(error)\n            return\n",
    "        if self._started:\n            self.on_end()\n            return\n",
)
STAYS_IN_LANE = Edit(
    LANE_RUN,
    "        exchange, self._exchange = self._exchange, None\n        if exchange is not None:\n"
    "            exchange.abort()\n        if self._task",
    "        if self._task",
)
NO_CANCEL = Edit(SERVER, "handler_cancellation=True", "handler_cancellation=False")
# what is kept of one answer is read as the beginning of the next
KEEPS_LEFT_OVER = (
    Edit(
        FRAMING,
        '        self._partial = b""\n        self._interim = 0\n        self._bodiless = bodiless\n',
        "        self._interim = 0\n        self._bodiless = bodiless\n",
    ),
    Edit(
        FRAMING,
        "        known = len(self._partial)\n        if known:\n",
        "        known = 0\n        if self._partial:\n",
    ),
)
