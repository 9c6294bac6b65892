"""A worker asks about all of them, and answers for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from modelyard.errors import ModelyardError

from .channel import Channel, Message

_PATIENCE_S = 5.0


class WorkerPeers:
    """Questions to the supervisor, which asks every worker."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._sources: dict[str, Callable[..., Any]] = {}
        self._listeners: dict[str, Callable[[Any], None]] = {}

    def answer_with(self, what: str, source: Callable[..., Any]) -> None:
        """``source`` tells this worker's part of ``what``."""
        self._sources[what] = source

    async def ask(self, what: str) -> Any:
        """What all workers say about ``what``. Raises a 503 where the supervisor does not answer in time."""
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._channel.send({"kind": "ask", "what": what, "number": number})
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await future
        except TimeoutError as exc:
            raise ModelyardError(
                "the other workers did not answer in time; try again shortly",
                status=503,
                code="workers_silent",
                retry_after_s=1,
            ) from exc
        finally:
            del self._waiting[number]

    async def metrics(self) -> bytes:
        """The metrics of all workers in the text exposition format."""
        text: str = await self.ask("metrics")
        return text.encode()

    async def requests(self) -> list[dict[str, Any]]:
        """The requests in flight in all workers."""
        rows: list[dict[str, Any]] = await self.ask("requests")
        return rows

    def tell(self, topic: str, fact: Any) -> None:
        """Tell all other workers ``fact`` (plain JSON), those that begin later too as far as it is kept."""
        self._channel.send({"kind": "tell", "topic": topic, "fact": fact})

    def listen(self, topic: str, listener: Callable[[Any], None]) -> None:
        """``listener`` hears what other workers tell about ``topic``."""
        self._listeners[topic] = listener

    def take(self, message: Message) -> bool:
        """Whether ``message`` was for us: an answer, or a question about this worker."""
        if message["kind"] == "answer":
            future = self._waiting.get(message["number"])
            if future is not None and not future.done():
                future.set_result(message["data"])
            return True
        if message["kind"] == "ask":
            data = self._sources[message["what"]]()
            self._channel.send({"kind": "answer", "number": message["number"], "data": data})
            return True
        if message["kind"] == "tell":
            listener = self._listeners.get(message["topic"])
            if listener is not None:
                listener(message["fact"])
            return True
        return False
