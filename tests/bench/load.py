"""The clients of a benchmark, in a process of their own.

    python -m tests.bench.load < job.json > result.json

Bare protocols, so that they cost less than what they measure.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Job:
    """``total`` requests over ``connections`` at once. A ``max_tokens`` above 0 asks for streams of so many events.

    ``ramp_s`` spreads the beginning of the connections over so many seconds; after ``seconds``, where above 0, nothing more
    is asked; ``limit_s`` is when the job fails.
    """

    port: int
    connections: int
    total: int
    max_tokens: int = 0
    ramp_s: float = 0.0
    seconds: float = 0.0
    limit_s: float = 120.0
    model: str = "bench"


@dataclass(slots=True)
class Result:
    """Times in seconds, one for each request in the order in which they ended.

    ``first_s``: until the first byte of the body. ``gap_s``: a stream's longest silence after that byte.
    """

    took_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    gap_s: list[float] = field(default_factory=list)
    events: int = 0


def request_bytes(job: Job) -> bytes:
    """A request of about 500 bytes, as the usual client library sends it."""
    wish: dict[str, Any] = {
        "model": job.model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant that answers in one short paragraph."},
            {"role": "user", "content": "Explain how a reverse proxy works. " * 8},
        ],
        "temperature": 0.7,
        "max_tokens": job.max_tokens or 64,
    }
    if job.max_tokens:
        wish.update(stream=True, stream_options={"include_usage": True})
    body = json.dumps(wish, separators=(",", ":")).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\nAccept: application/json\r\n"
        f"User-Agent: bench\r\nAuthorization: Bearer sk-bench-0123456789abcdef\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it has been answered."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parser: Any = httptools.HttpResponseParser(self)
        self._asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by class
        self._transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        """Send the next request, or leave when there is none."""
        if not self._run.left:
            self._transport.close()
            self._run.gone()
            return
        self._run.left -= 1
        self._asking = True
        self._first = self._gap = 0.0
        self._tail = b""
        self._begun = self._last = time.perf_counter()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._run.fail(f"the answer is no HTTP: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asking:
            self._run.fail(f"the connection was lost before the answer's end ({exc})")

    # callbacks of the parser

    def on_body(self, body: bytes) -> None:
        now = time.perf_counter()
        if not self._first:
            self._first = now - self._begun
        elif now - self._last > self._gap:
            self._gap = now - self._last
        self._last = now
        if self._run.streamed:
            # an event ends with an empty line, which two pieces may share
            self._run.result.events += (self._tail[-1:] + body).count(b"\n\n")
            self._tail = (self._tail + body)[-24:]

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 200:
            self._run.fail(f"the answer's status was {status}")
        elif self._run.streamed and b"[DONE]" not in self._tail:
            self._run.fail("a stream ended without [DONE]")
        result = self._run.result
        result.seconds.append(time.perf_counter() - self._begun)
        result.first_s.append(self._first)
        result.gap_s.append(self._gap)
        self._asking = False
        if self._parser.should_keep_alive():
            self.ask()
        else:
            self._transport.close()
            self._run.connect()


class Run:
    """One job under way."""

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        self.job, self.loop = job, loop
        self.request = request_bytes(job)
        self.streamed = job.max_tokens > 0
        self.left = job.total
        self.result = Result()
        self._open = 0
        self._connecting: set[asyncio.Task[Any]] = set()
        self._over: asyncio.Future[None] = loop.create_future()

    def connect(self) -> None:
        """Open one more connection."""
        task = self.loop.create_task(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        try:
            await self.loop.create_connection(lambda: Client(self), "127.0.0.1", self.job.port)
        except OSError as exc:
            self.fail(f"no connection: {exc}")

    def gone(self) -> None:
        """One connection has nothing left to do."""
        self._open -= 1
        if not self._open and not self._over.done():
            self._over.set_result(None)

    def _enough(self) -> None:
        self.left = 0

    def fail(self, why: str) -> None:
        """End the job with an error."""
        if not self._over.done():
            self._over.set_exception(RuntimeError(why))

    async def whole(self) -> Result:
        """Run the job to its end. Raises ``RuntimeError`` for an answer that is not as it should be."""
        begun = time.perf_counter()
        self._open = self.job.connections
        if self.job.seconds:
            self.loop.call_later(self.job.seconds, self._enough)
        for at in range(self.job.connections):
            self.loop.call_later(self.job.ramp_s * at / self.job.connections, self.connect)
        try:
            async with asyncio.timeout(self.job.limit_s):
                await self._over
        except TimeoutError:
            raise RuntimeError(f"not done after {self.job.limit_s:g} s") from None
        self.result.took_s = time.perf_counter() - begun
        return self.result


async def _run(job: Job) -> Result:
    return await Run(job, asyncio.get_running_loop()).whole()


def main() -> None:
    job = Job(**json.load(sys.stdin))
    try:
        result = uvloop.run(_run(job))
    except RuntimeError as exc:
        sys.exit(f"load on port {job.port}: {exc}")
    json.dump(asdict(result), sys.stdout)


if __name__ == "__main__":
    main()
