"""A fleet of echo engines as real processes, a load on it, and somebody who disturbs it at random."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.chaos.client import Client
from modelyard.chaos.proxy import ProxyProcess, until

MODEL = "echo"
TOKENS = 12
TOKENS_PER_S = 8.0
# longer than any stop, shorter than a client's patience
TIMEOUTS = {"connect_s": 1, "first_byte_s": 2, "idle_s": 15}


class EchoProcess:
    """One ``modelyard echo`` that keeps its port from one life to the next."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.port = 0
        self.killed_at = 0.0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        arguments = ("--model", MODEL, "--port", str(self.port), "--token-rate", str(TOKENS_PER_S))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "modelyard",
                "echo",
                "--json",
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        ready = json.loads(await self._process.stdout.readline())
        self.port = int(ready["url"].rpartition(":")[2])

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        self.killed_at = time.monotonic()
        self.send(signal.SIGKILL)

    async def ended(self) -> None:
        if self._process is not None:
            await self._process.wait()

    def entry(self, state: str = "active") -> dict[str, Any]:
        return {"id": self.name, "url": f"http://127.0.0.1:{self.port}", "engine": "echo", "state": state}


@dataclass(slots=True)
class Tally:
    """What became of the requests; ``lost`` and ``guiltless`` must stay empty."""

    whole: int = 0
    # cut after they had begun, on a replica that was killed meanwhile
    broken: int = 0
    lost: list[str] = field(default_factory=list)
    # cut after they had begun, on a replica that nobody killed
    guiltless: list[str] = field(default_factory=list)
    attempts: Counter[int] = field(default_factory=Counter)


class Load:
    """Clients that ask for one stream after the other until ``over`` is set."""

    def __init__(self, proxy: ProxyProcess, replicas: list[EchoProcess]) -> None:
        self.tally = Tally()
        self.over = asyncio.Event()
        self._proxy = proxy
        self._replicas = {replica.name: replica for replica in replicas}

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, number: int) -> None:
        serial = 0
        while not self.over.is_set():
            serial += 1
            await self._stream(f"client {number} asks {serial}")

    async def _stream(self, prompt: str) -> None:
        started = time.monotonic()
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "stream": True,
        }
        async with await Client.connect(self._proxy.port) as client:
            await client.post("/v1/chat/completions", body)
            answer = await client.rest()
        self.tally.attempts[answer.attempts] += 1
        if answer.status != 200 or not answer.body:
            self.tally.lost.append(f"{answer.told()}: {answer.body[:300]!r}")
        elif answer.whole and answer.body.endswith(b"data: [DONE]\n\n"):
            self.tally.whole += 1
        elif (replica := self._replicas.get(answer.replica)) and replica.killed_at >= started:
            self.tally.broken += 1
        else:
            self.tally.guiltless.append(f"{answer.replica}: {answer.told()}: {answer.body[-300:]!r}")


class Disturber:
    """Kills, stops, restarts and drains replicas; never all of them at a time."""

    def __init__(self, proxy: ProxyProcess, replicas: list[EchoProcess], rng: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._proxy = proxy
        self._replicas = replicas
        self._rng = rng
        self._states = {replica.name: "active" for replica in replicas}

    async def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        deeds: tuple[tuple[str, Callable[[EchoProcess], Awaitable[None]]], ...] = (
            ("kill", self._kill),
            ("stop", self._stop),
            ("restart", self._restart),
            ("drain", self._drain),
            ("drain by hand", self._drain_by_hand),
        )
        begun: list[asyncio.Task[None]] = []
        busy: set[str] = set()
        try:
            while time.monotonic() < end:
                free = [replica for replica in self._replicas if replica.name not in busy]
                # one of them is always left in peace, or nobody could answer
                if len(free) > 1:
                    replica = self._rng.choice(free)
                    name, deed = self._rng.choice(deeds)
                    self.done[name] += 1
                    # now, not when the task first runs: nobody else may choose this one
                    busy.add(replica.name)
                    begun.append(asyncio.create_task(self._disturb(replica, deed, busy)))
                await asyncio.sleep(self._rng.uniform(0.3, 1.2))
            await asyncio.gather(*begun)
        finally:
            for task in begun:
                task.cancel()

    async def _disturb(
        self, replica: EchoProcess, deed: Callable[[EchoProcess], Awaitable[None]], busy: set[str]
    ) -> None:
        try:
            await deed(replica)
            await self.until_ready(replica)
        finally:
            busy.discard(replica.name)

    async def until_ready(self, replica: EchoProcess) -> None:
        async def ready() -> bool:
            row = (await self._proxy.replicas()).get(replica.name, {})
            return row.get("state") in ("ready", "busy")

        await until(ready, f"{replica.name} is ready again", 40)

    def write(self) -> None:
        """The registry with each replica in its state."""
        entries = [replica.entry(self._states[replica.name]) for replica in self._replicas]
        self._proxy.write({MODEL: {"endpoints": entries, "timeouts": TIMEOUTS}})

    async def _kill(self, replica: EchoProcess) -> None:
        replica.kill()
        await replica.ended()
        await asyncio.sleep(self._rng.uniform(0, 1))
        await replica.start()

    async def _stop(self, replica: EchoProcess) -> None:
        replica.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._rng.uniform(0.5, 4))
        finally:
            replica.send(signal.SIGCONT)

    async def _restart(self, replica: EchoProcess) -> None:
        replica.send(signal.SIGTERM)
        await replica.ended()
        await replica.start()

    async def _drain(self, replica: EchoProcess) -> None:
        self._states[replica.name] = "draining"
        self.write()
        await asyncio.sleep(self._rng.uniform(0.5, 3))
        self._states[replica.name] = "active"
        self.write()

    async def _drain_by_hand(self, replica: EchoProcess) -> None:
        answer = await self._proxy.post(f"/admin/replicas/{replica.name}/drain", {})
        assert answer.status == 200, answer.told()
        await asyncio.sleep(self._rng.uniform(0.5, 3))
        answer = await self._proxy.post(f"/admin/replicas/{replica.name}/undrain", {})
        assert answer.status == 200, answer.told()
