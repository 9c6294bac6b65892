"""An engine that costs next to nothing: the far end of every benchmark.

    python -m tests.bench.mock_engine --ports 3

It speaks what a proxy asks of a vLLM (chat completions plain and streamed, models, health, metrics) over bare
protocols, prints its ports as one line of JSON, and ends when its standard input does. A streamed answer has
``max_tokens`` events of about 200 bytes, then one with the usage and ``[DONE]``. ``POST /control`` with JSON sets the
pace; ``GET /control`` tells what has been seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

import httptools
import uvloop

_MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_CHAT = ("/v1/chat/completions", "/v1/completions")


@dataclass(slots=True)
class Pace:
    """How fast the engine answers. Milliseconds and bytes; an interval of 0 writes as fast as it is read."""

    prefill_ms: float = 0.0
    interval_ms: float = 10.0
    event_bytes: int = 200


@dataclass(slots=True)
class Seen:
    """What the engine has seen. ``left_at`` is the monotonic clock when a client last left an unfinished answer."""

    requests: int = 0
    unfinished: int = 0
    left: int = 0
    left_at: float = 0.0


class Engine:
    """What all connections share."""

    def __init__(self, model: str) -> None:
        self.pace = Pace()
        self.seen = Seen()
        answer = {
            "id": "chatcmpl-0123456789abcdef0123456789abcdef",
            "object": "chat.completion",
            "created": 1763000000,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "lorem ipsum " * 20, "tool_calls": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 120, "total_tokens": 180, "completion_tokens": 60},
            "system_fingerprint": None,
        }
        self.answer = _plain(json.dumps(answer).encode())
        self.head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self._template = {
            "id": answer["id"],
            "object": "chat.completion.chunk",
            "created": answer["created"],
            "model": model,
        }
        usage = {**self._template, "choices": [], "usage": answer["usage"]}
        self.last = _event(json.dumps(usage)) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        models = {"object": "list", "data": [{"id": model, "object": "model", "max_model_len": 32768}]}
        self._simple = {
            "/health": _plain(b""),
            "/v1/models": _plain(json.dumps(models).encode()),
            "/get_model_info": _plain(json.dumps({"model_path": model, "is_generation": True}).encode()),
            "/get_server_info": _plain(
                json.dumps({"model_path": model, "served_model_name": model}).encode()
            ),
            "/version": _plain(b'{"version":"0.32.0"}'),
        }
        self._model = model
        self.set_pace({})

    def set_pace(self, changes: dict[str, Any]) -> None:
        """Take new figures of ``Pace``; unknown names raise ``TypeError``."""
        self.pace = Pace(**{**asdict(self.pace), **changes})
        event = {**self._template, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}]}
        fill = max(1, self.pace.event_bytes - len(json.dumps(event)) - 8)
        event["choices"] = [{"index": 0, "delta": {"content": "x" * fill}, "finish_reason": None}]
        self.event = _event(json.dumps(event))

    def simple(self, path: str) -> bytes | None:
        """The answer to a GET, whatever stands before its last parts: many endpoints may share one engine."""
        if path.endswith("/control"):
            return _plain(json.dumps({**asdict(self.seen), **asdict(self.pace)}).encode())
        if path.endswith("/metrics"):
            return _plain(self._metrics(), "text/plain; version=0.0.4; charset=utf-8")
        return next((answer for end, answer in self._simple.items() if path.endswith(end)), None)

    def _metrics(self) -> bytes:
        label = f'{{model_name="{self._model}",engine="0"}}'
        rows = {
            "vllm:num_requests_running": ("gauge", self.seen.unfinished),
            "vllm:num_requests_waiting": ("gauge", 0),
            "vllm:kv_cache_usage_perc": ("gauge", 0.1),
            "vllm:generation_tokens_total": ("counter", self.seen.requests * 100),
            "vllm:iteration_tokens_total_count": ("counter", self.seen.requests * 100),
        }
        return "".join(
            f"# TYPE {name} {kind}\n{name}{label} {value}\n" for name, (kind, value) in rows.items()
        ).encode()


def _plain(body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(text: str) -> bytes:
    return _chunk(b"data: " + text.encode() + b"\n\n")


class Connection(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._parser: Any = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by class
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            seen = self._engine.seen
            seen.unfinished -= 1
            seen.left += 1
            seen.left_at = time.monotonic()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._busy and self._engine.pace.interval_ms == 0:
            self._flood()

    # callbacks of the parser

    def on_message_begin(self) -> None:
        self._body = b""
        self._path = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path = self._path.decode("latin-1").partition("?")[0]
        if path.endswith(_CHAT):
            self._begin()
        elif path.endswith("/control") and self._body:
            self._engine.set_pace(json.loads(self._body))
            self._transport.write(_plain(b"{}"))
        else:
            answer = self._engine.simple(path)
            self._transport.write(answer or b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _begin(self) -> None:
        engine = self._engine
        engine.seen.requests += 1
        streamed = _STREAM.search(self._body) is not None
        if not streamed and not engine.pace.prefill_ms:
            self._transport.write(engine.answer)
            return
        self._busy = True
        engine.seen.unfinished += 1
        wished = _MAX_TOKENS.search(self._body)
        self._left = int(wished[1]) if wished else 16
        self._due = self._loop.time() + engine.pace.prefill_ms / 1e3
        if engine.pace.prefill_ms:
            self._timer = self._loop.call_at(self._due, self._first if streamed else self._late)
        else:
            self._first()

    def _late(self) -> None:
        self._transport.write(self._engine.answer)
        self._done()

    def _first(self) -> None:
        self._transport.write(self._engine.head)
        if self._engine.pace.interval_ms == 0:
            self._flood()
        else:
            self._tick()

    def _tick(self) -> None:
        engine = self._engine
        if not self._left:
            self._transport.write(engine.last)
            self._done()
            return
        self._transport.write(engine.event)
        self._left -= 1
        # from the time it was due, so that a late one does not slow the rhythm
        self._due += engine.pace.interval_ms / 1e3
        self._timer = self._loop.call_at(self._due, self._tick)

    def _flood(self) -> None:
        while self._left and not self._paused:
            self._transport.write(self._engine.event)
            self._left -= 1
        if not self._left:
            self._transport.write(self._engine.last)
            self._done()

    def _done(self) -> None:
        self._timer = None
        self._busy = False
        self._engine.seen.unfinished -= 1


async def _serve(ports: int, model: str) -> None:
    loop = asyncio.get_running_loop()
    engine = Engine(model)
    servers = [
        await loop.create_server(lambda: Connection(engine, loop), "127.0.0.1", 0, backlog=4096)
        for _ in range(ports)
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ports", type=int, default=3)
    parser.add_argument("--model", default="bench")
    options = parser.parse_args()
    uvloop.run(_serve(options.ports, options.model))


if __name__ == "__main__":
    main()
