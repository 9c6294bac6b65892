"""What a scenario acts with: engines, one proxy, clients. Everything it starts is stopped with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .client import Answer, Client
from .engine import Engine, Heard, Script
from .proxy import ProxyProcess, until
from .scenario import Surprise, expect

CHAT = "/v1/chat/completions"
# short, and long enough that a busy machine does not trip over them
TIMEOUTS: Mapping[str, float] = {"connect_s": 1, "first_byte_s": 1.2, "idle_s": 1, "total_s": 0}


class Stage:
    """The surroundings of one scenario; ``prefix`` keeps its models apart from every other scenario's."""

    def __init__(self, proxy: ProxyProcess, prefix: str) -> None:
        self.proxy = proxy
        self.model = f"{prefix}"
        self.engines: list[Engine] = []
        self._serial = 0
        self._tasks: list[asyncio.Task[Any]] = []

    async def close(self) -> None:
        """Stop every client and engine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self.engines:
            await engine.stop()

    async def start(self, script: Script, count: int = 2) -> list[Engine]:
        """``count`` engines that play the same script."""
        fresh = [
            await Engine(script, f"{self.model}.{len(self.engines) + number}").start()
            for number in range(count)
        ]
        self.engines.extend(fresh)
        return fresh

    def entry(self, engines: Sequence[Engine], kind: str = "vllm", **more: Any) -> dict[str, Any]:
        """A model's entry in the registry."""
        endpoints = [{"id": engine.name, "url": engine.url, "engine": kind} for engine in engines]
        return {"endpoints": endpoints, "timeouts": dict(TIMEOUTS), **more}

    async def serve(self, models: Mapping[str, Any], *, probed: bool = True) -> None:
        """Put ``models`` in force and wait until their replicas have been looked at."""
        generation = self.proxy.write(models)

        async def taken() -> bool:
            return await self.proxy.in_force() >= generation

        try:
            await until(taken, "the registry is taken")
        except Surprise as exc:
            problems = (await self.proxy.registry_status())["problems"]
            raise Surprise(f"the registry was not taken: {'; '.join(problems)}") from exc
        wanted = {item["id"] for entry in models.values() for item in entry["endpoints"]}

        async def seen() -> bool:
            rows = await self.proxy.replicas()
            return all(name in rows and rows[name]["probed_at"] for name in wanted)

        if probed:
            await until(seen, "every replica has been probed")

    async def cast(self, script: Script, count: int = 2, kind: str = "vllm", **more: Any) -> list[Engine]:
        """Start engines, serve them as this scenario's one model, and return them."""
        engines = await self.start(script, count)
        await self.serve({self.model: self.entry(engines, kind, **more)})
        return engines

    def prompt(self) -> str:
        """A prompt that nobody else sends."""
        self._serial += 1
        return f"{self.model} line {self._serial}"

    def body(self, prompt: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
        """A chat request."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": stream,
            **more,
        }

    async def ask(
        self, prompt: str = "", *, stream: bool = False, chunked: bool = False, **more: Any
    ) -> Answer:
        """One chat request on a connection of its own, and its answer to the end."""
        async with await Client.connect(self.proxy.port) as client:
            await client.post(
                CHAT, self.body(prompt or self.prompt(), stream=stream, **more), chunked=chunked
            )
            return await client.rest()

    async def asking(self, prompt: str = "", *, stream: bool = True, chunked: bool = False) -> Client:
        """A client that has sent a request and read nothing yet; the caller closes it."""
        client = await Client.connect(self.proxy.port)
        await client.post(CHAT, self.body(prompt or self.prompt(), stream=stream), chunked=chunked)
        return client

    def later(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run something beside the scenario; it ends with it."""
        task = asyncio.create_task(coroutine)
        self._tasks.append(task)
        return task

    def heard(self, prompt: str = "") -> list[Heard]:
        """Every request that reached an engine, of one prompt or of all."""
        return [
            item for engine in self.engines for item in engine.heard if not prompt or prompt == item.prompt
        ]

    async def state(self, engine: Engine) -> str:
        """The state of a replica as the operator sees it; empty where the proxy does not know it."""
        row = (await self.proxy.replicas()).get(engine.name, {})
        return str(row.get("state", ""))

    async def until_state(self, engine: Engine, *wanted: str, limit_s: float = 8.0) -> None:
        """Wait until the replica is in one of the states ``wanted``."""

        async def there() -> bool:
            return await self.state(engine) in wanted

        await until(there, f"{engine.name} is {' or '.join(wanted)}", limit_s)

    async def aftermath(self) -> None:
        """What must be true after every scenario: the proxy runs, counts nothing, and had no fault."""
        if self.proxy.told_to_stop:
            faults = self.proxy.faults()
            expect(not faults, f"the proxy's log has a fault: {faults}")
            return
        expect(self.proxy.running, f"the proxy is gone: {self.proxy.last_words()}")

        async def idle() -> bool:
            return await self.proxy.metric("modelyard_replica_in_flight") == 0

        try:
            await until(idle, "in-flight counts are 0", 4)
        finally:
            faults = self.proxy.faults()
        expect(not faults, f"the proxy's log has a fault: {faults}")


async def gone(heard: Heard, limit_s: float = 5.0) -> float:
    """Wait until the engine saw its client leave; the monotonic moment."""
    with suppress(Surprise):
        await until(lambda: heard.gone_at is not None, "the engine sees its client leave", limit_s)
    if heard.gone_at is None:
        raise Surprise("the engine still works for a client that has left")
    return heard.gone_at
