"""What an engine's answer is, or is not: the rows of silence, streams, lies and errors."""

from __future__ import annotations

from .edits import Defence, Edit, off
from .shared import (
    CONNECTION,
    EXCHANGE,
    FORWARD,
    FRAMING,
    HEADERS,
    KEEPS_LEFT_OVER,
    LANE_RUN,
    NO_RETRY,
    NOT_PEEKED,
    NOT_PEEKED_IN_LANE,
    OUTCOMES,
    POLITE_END,
    POLITE_END_IN_LANE,
    PURSUIT,
    PURSUITS,
    RELAY,
    STREAMS,
    TO_TGI,
    TRANSLATED,
    TRANSPORT,
)

_SILENCE = (
    off(
        "hangs",
        "the first-byte deadline",
        Edit(
            EXCHANGE,
            "self._due = self._loop.time() + self._limits.first_byte_s",
            "self._due = self._loop.time() + 3600",
        ),
    ),
    off(
        "hangs-everywhere",
        "the bound on attempts",
        Edit(
            PURSUIT, ">= pursuits.max_attempts:\n            return None", ">= 99:\n            return None"
        ),
    ),
    off("refuses", "the next replica", NO_RETRY),
    off(
        "refuses-everywhere",
        "errors that name no address",
        Edit(PURSUIT, "self.model.id, replica.id,", "self.model.id, replica.endpoint.url,"),
    ),
    off("resets-on-accept", "the next replica", NO_RETRY),
    off("resets-after-request", "the next replica", NO_RETRY),
    off(
        "half-open",
        "FIN is the end",
        Edit(
            CONNECTION,
            '"""See ``asyncio.Protocol``: the transport closes itself."""\n        self.closed = True',
            '"""See ``asyncio.Protocol``."""\n        return True',
        ),
    ),
    off("cuts-in-head", "the next replica", NO_RETRY),
)

_STREAMS = (
    off(
        "stalls",
        "the idle deadline",
        Edit(EXCHANGE, "self._due = now + self._limits.idle_s", "self._due = now + 3600"),
    ),
    off("cut-before-first-byte", "nothing is sent before the first byte", NOT_PEEKED),
    off("cut-before-first-byte", "nor is it in the lane", NOT_PEEKED_IN_LANE),
    off("silent-after-head", "nothing is sent before the first byte", NOT_PEEKED),
    off("silent-after-head", "nor is it in the lane", NOT_PEEKED_IN_LANE),
    off("cut-after-first-event", "a broken answer is not ended politely", POLITE_END),
    off("cut-after-first-event", "nor is it in the lane", POLITE_END_IN_LANE),
    off("reset-after-first-event", "a broken answer is not ended politely", POLITE_END),
    off("reset-after-first-event", "nor is it in the lane", POLITE_END_IN_LANE),
    off(
        "cut-inside-event",
        "error events stand between events only",
        Edit(RELAY, 'if events and tail.endswith((b"\\n\\n", b"\\r\\n\\r\\n")):', "if events:"),
    ),
    off(
        "cut-inside-event",
        "nor do they elsewhere in the lane",
        Edit(LANE_RUN, " and self._chunked and self._meter.between_events:", " and self._chunked:"),
    ),
    off(
        "pipelined-behind-a-cut",
        "a broken answer is its connection's last",
        Edit(
            RELAY,
            "            if request.transport is not None:\n                request.transport.close()\n",
            "",
        ),
    ),
    off(
        "pipelined-behind-a-cut",
        "so it is in the lane",
        Edit(
            LANE_RUN,
            "        self._protocol.close_after()\n        self._visit.error = error.code\n        self._finish",
            "        self._visit.error = error.code\n        self._finish",
        ),
    ),
    off(
        "drips",
        "a head may come in pieces",
        Edit(
            FRAMING,
            "                self._partial = data\n                return _MORE",
            '                raise MalformedError("in pieces")',
        ),
    ),
    off(
        "at-once",
        "bytes are passed on as they come",
        Edit(
            TRANSPORT,
            "                self.exchange.pause()\n            self._wake()",
            "                self.exchange.pause()",
        ),
    ),
    off(
        "at-once",
        "so they are in the lane",
        Edit(
            LANE_RUN,
            "            self._transport.write(framed)\n",
            "            self.lane.loop.call_later(20, self._transport.write, framed)\n",
        ),
    ),
)

_LIES = (
    off(
        "length-too-long",
        "an answer is whole only when all of it came",
        Edit(
            EXCHANGE,
            "        if whole:\n            self.ended(False)",
            "        if True:\n            self.ended(False)",
        ),
    ),
    off(
        "length-too-short",
        "bytes behind an answer are never kept",
        Edit(
            FRAMING,
            "return _ENDED if size == left else _LEFT_OVER",
            "self._partial = data[left:]\n        return _ENDED",
        ),
        *KEEPS_LEFT_OVER,
    ),
    off(
        "both-framings",
        "two framings are no framing",
        Edit(FRAMING, "if head.chunked and (head.length is not None or not modern):", "if False:"),
        Edit(FRAMING, "        elif head.chunked:\n", "        elif head.chunked and head.length is None:\n"),
    ),
    off(
        "two-lengths",
        "two lengths are none",
        Edit(FRAMING, "if head.length is not None or not value.isdigit()", "if not value.isdigit()"),
    ),
    off("odd-length", "a length is digits", Edit(FRAMING, "or not value.isdigit() or", "or")),
    off("folded-header", "the next replica", NO_RETRY),
    off(
        "nul-in-header",
        "no control characters in headers",
        Edit(FRAMING, 'block.count(b"\\r") != count or b"\\0" in block', 'block.count(b"\\r") != count'),
        Edit(
            HEADERS,
            'or len(value.translate(None, _CONTROLS)) != len(value):\n        return b""',
            'or False:\n        return b""',
        ),
    ),
    off(
        "nul-in-header",
        "nor outside the lane",
        Edit(FRAMING, 'block.count(b"\\r") != count or b"\\0" in block', 'block.count(b"\\r") != count'),
        Edit(HEADERS, " and not _UNPRINTABLE.search(name + value):", ":"),
    ),
    off("huge-head", "the bound on heads", Edit(FRAMING, "LARGEST_HEAD = 64 * 1024", "LARGEST_HEAD = 2**26")),
    off(
        "endless-head",
        "the bound on heads",
        Edit(FRAMING, "LARGEST_HEAD = 64 * 1024", "LARGEST_HEAD = 2**40"),
    ),
    off(
        "bad-chunk-size",
        "a chunk size is a number",
        Edit(FRAMING, "    if size < 0:\n        raise", "    if size < 0:\n        return 0\n        raise"),
    ),
    off(
        "bad-chunk-later",
        "a chunk size is a number",
        Edit(FRAMING, "    if size < 0:\n        raise", "    if size < 0:\n        return 0\n        raise"),
    ),
    off(
        "no-last-chunk",
        "the end of a connection ends no chunked answer",
        Edit(
            FRAMING,
            "if self._state is _State.CLOSE:\n            self._state = _DONE",
            "if True:\n            self._state = _DONE",
        ),
    ),
    off(
        "switches-protocols",
        "101 is no answer",
        Edit(FRAMING, "if head.status >= 200:\n", "if head.status >= 101:\n"),
        Edit(OUTCOMES, "if not 200 <= status < 600:", "if not 101 <= status < 600:"),
    ),
    off(
        "informs-first",
        "interim answers are skipped",
        Edit(FRAMING, "if head.status >= 200:\n", "if head.status >= 100:\n"),
    ),
    off(
        "no-http",
        "what is no HTTP is refused at once",
        Edit(FRAMING, 'if not data.startswith(b"HTTP/1."[: len(data)]):', "if False:"),
    ),
    off(
        "bad-status",
        "a status is three digits",
        Edit(FRAMING, "or not code.isdigit()\n", "or False\n"),
        Edit(FRAMING, "return int(code), line", 'return int(code.replace(b"x", b"0")), line'),
    ),
    off(
        "trailers",
        "chunk extensions are read over",
        Edit(FRAMING, 'plain_size(line.partition(b";")[0].rstrip(b" \\t"))', "plain_size(line)"),
    ),
    off(
        "no-framing",
        "without a length the connection's end is the answer's",
        Edit(
            FRAMING,
            "if self._state is _State.CLOSE:\n            self._state = _DONE",
            "if False:\n            self._state = _DONE",
        ),
    ),
    off(
        "one-packet",
        "bytes behind the head are the body's",
        Edit(FRAMING, "return self.feed(data) if data else _MORE", "return _MORE"),
    ),
    off(
        "body-of-no-content",
        "204 has no body",
        Edit(FRAMING, "if self._bodiless or head.status in (204, 304):", "if self._bodiless:"),
    ),
    off(
        "body-of-no-content",
        "204 has no length",
        Edit(HEADERS, "    if head.status == 204:\n", "    if False:\n"),
    ),
)

_ERRORS = (
    off(
        "busy-503",
        "503 is tried elsewhere",
        Edit(OUTCOMES, "frozenset({502, 503, 504})", "frozenset({502, 504})"),
    ),
    off(
        "bad-gateway-502",
        "502 is tried elsewhere",
        Edit(OUTCOMES, "frozenset({502, 503, 504})", "frozenset({503, 504})"),
    ),
    off(
        "busy-everywhere",
        "Retry-After is passed on",
        Edit(OUTCOMES, "retry_after_s=last.retry_after_s,", "retry_after_s=None,"),
    ),
    off(
        "rate-limited",
        "Retry-After is passed on",
        Edit(HEADERS, '{"alt-svc", "date",', '{"alt-svc", "retry-after", "date",'),
    ),
    off(
        "request-errors",
        "the client's faults are tried nowhere else",
        Edit(OUTCOMES, "if status in _TRY_ELSEWHERE or", "if status >= 400 or"),
    ),
    off(
        "internal-error",
        "500 from a replica that lives is an answer",
        Edit(
            PURSUITS,
            "return bool((await self.look(replica)).failures)",
            "return True",
        ),
    ),
    off("redirects", "nobody is sent elsewhere", Edit(FORWARD, "if refused is not None:", "if False:")),
    off(
        "redirects",
        "nor in the lane",
        Edit(LANE_RUN, "            if refused is not None:", "            if False:"),
    ),
    off("redirects", "redirects are no answers", Edit(OUTCOMES, "if 300 <= status < 400:", "if False:")),
)

_PEEK = Edit(FORWARD, "if reported is not None:", "if False:")
_IN_BAND = (
    off("error-inside-200", "the first event is looked at", _PEEK),
    off("error-inside-200", "so it is in the lane", Edit(LANE_RUN, "if reported is not None:", "if False:")),
    off(
        "error-inside-200",
        "the first event may come in pieces",
        Edit(FORWARD, "while first and may_become_error(first) and", "while False and"),
    ),
    off(
        "error-inside-200",
        "so it may in the lane",
        Edit(LANE_RUN, "        if may_become_error(data):\n", "        if False:\n"),
    ),
    off(
        "error-inside-200-later",
        "an error in mid-stream is passed on",
        Edit(
            RELAY,
            "            data = await opened.response.chunk()\n",
            '            while b"error" in (data := await opened.response.chunk()):\n                pass\n',
        ),
    ),
    off(
        "error-inside-200-later",
        "so it is in the lane",
        Edit(
            LANE_RUN,
            "        self._meter.feed(data)\n        self._replica.heard += self._counts\n        if framed is not None:\n"
            "            self._transport.write(framed)\n",
            '        if b"error" in data:\n            return\n'
            "        self._meter.feed(data)\n        self._replica.heard += self._counts\n        if framed is not None:\n"
            "            self._transport.write(framed)\n",
        ),
    ),
    off("translated-elsewhere", "the first event is looked at", _PEEK),
)

_TRANSLATED = (
    off(
        "translated-cut",
        "a broken answer is not ended politely",
        Edit(
            TRANSLATED,
            "            except UpstreamError as exc:\n                fault = exc\n",
            "            except UpstreamError:\n"
            "                return response or await _begun(request, opened, headers)\n",
        ),
    ),
    off(
        "translated-no-end",
        "only the engine's own end is one",
        Edit(
            TO_TGI,
            '            raise UpstreamBrokenError("its stream stopped before its end")\n',
            '            self._last = {"index": self._index, "token": None}\n',
        ),
    ),
    off(
        "translated-error",
        "an error in mid-stream is told as one",
        Edit(STREAMS, "        if error is not None:\n", "        if False:\n"),
    ),
    off(
        "translated-garbage",
        "what cannot be read is not skipped",
        Edit(
            STREAMS,
            '            raise UpstreamError(\n                "its stream holds something that is not JSON", '
            'code="upstream_garbled"\n            ) from exc\n',
            '            return b""\n',
        ),
    ),
    off(
        "translated-crumbs",
        "an event may come in pieces",
        Edit(
            "gateway/events.py",
            "            del buffer[:start]\n            self._searched -= start\n",
            "            buffer.clear()\n            self._searched = 0\n",
        ),
    ),
)

ANSWERS: tuple[Defence, ...] = (*_SILENCE, *_STREAMS, *_LIES, *_ERRORS, *_IN_BAND, *_TRANSLATED)
