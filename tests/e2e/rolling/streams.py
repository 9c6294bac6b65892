"""Clients that keep streams in flight through a proxy, and judge each of them: whole, or what it lacks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from modelyard.engines.echo.model import Params, generate
from tests.e2e.rolling.aside import Aside

TOKENS = 24


@dataclass
class Tally:
    """What became of the streams: how many were whole, and in words what was wrong with the others."""

    whole: int = 0
    broken: list[str] = field(default_factory=list)
    running: int = 0


def echoed(prompt: str) -> str:
    """What an echo engine answers."""
    return "".join(piece.text for piece in generate(prompt, Params(max_tokens=TOKENS)))


class Streams(Aside):
    """`number` clients, each with one stream of `TOKENS` tokens after the other, from entering the context to leaving it.

    Leaving lets the last streams end. `wanted` gives the whole text of an answer, where it can be known; `more` goes
    into each request.
    """

    def __init__(
        self,
        url: str,
        model: str,
        number: int,
        wanted: Callable[[str], str] | None = echoed,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.tally = Tally()
        self._url = f"{url}/v1/chat/completions"
        self._model = model
        self._number = number
        self._wanted = wanted
        self._more = more or {}

    def wait_for(self, whole: int, limit_s: float = 60) -> None:
        """Wait until so many more streams have ended whole."""
        target, end = self.tally.whole + whole, time.monotonic() + limit_s
        while self.tally.whole < target:
            assert time.monotonic() < end, f"{self.tally} after {limit_s:.0f} s"
            time.sleep(0.05)

    def work(self) -> None:
        """Run the clients."""
        asyncio.run(self._clients())

    async def _clients(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, number) for number in range(self._number)))

    async def _client(self, session: aiohttp.ClientSession, client: int) -> None:
        # a start spread over one stream's length keeps their ends apart
        await asyncio.sleep(client / self._number)
        turn = 0
        while not self.over.is_set():
            turn += 1
            self.tally.running += 1
            try:
                lack = await self._stream(
                    session, f"Stream {turn} of client {client}, which is to come back whole."
                )
            except (aiohttp.ClientError, TimeoutError) as error:
                lack = f"{type(error).__name__}: {error}"
            finally:
                self.tally.running -= 1
            if lack:
                self.tally.broken.append(f"client {client}, stream {turn}: {lack}")
                await asyncio.sleep(0.2)
            else:
                self.tally.whole += 1

    async def _stream(self, session: aiohttp.ClientSession, prompt: str) -> str:
        """What is wrong with one stream; nothing is."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._more,
        }
        async with session.post(self._url, json=body) as answer:
            if answer.status != 200:
                return f"status {answer.status}: {(await answer.text())[:300]}"
            events = [line[6:].strip() async for line in answer.content if line.startswith(b"data: ")]
        if not events or events[-1] != b"[DONE]":
            return f"cut after {len(events)} events, the last of them {events[-1:]}"
        chunks = [json.loads(event) for event in events[:-1]]
        choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
        pieces = [choice["delta"].get("content") or "" for choice in choices]
        wanted = self._wanted(prompt) if self._wanted else None
        if wanted is not None and "".join(pieces) != wanted:
            return f"{''.join(pieces)!r} instead of {wanted!r}"
        finish = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
        tokens = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
        # some engines count on in each event: the last word is what counts
        if finish != ["length"] or tokens[-1:] != [TOKENS]:
            return f"ended with {finish} after {tokens} tokens"
        return ""
