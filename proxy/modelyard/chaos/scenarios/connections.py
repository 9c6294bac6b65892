"""Connections to engines that are used again when they should not be, and bytes that belong to nobody."""

from __future__ import annotations

import asyncio

from .. import answers
from ..client import Client
from ..engine import Exchange
from ..faults import good, whole
from ..proxy import until
from ..scenario import Scenario, expect
from ..stage import CHAT, Stage, gone
from .acts import PLAIN, WAYS, expect_right, expect_service, once_each

_GROUP = "connections"


async def _stale(stage: Stage) -> str:
    """A kept connection is closed by its engine just as the next request is sent on it."""
    executed: list[str] = []
    used: set[int] = set()
    stale = 0

    async def script(x: Exchange) -> None:
        nonlocal stale
        if x.heard.connection in used:
            used.discard(x.heard.connection)
            stale += 1
            x.reset()
            return
        used.add(x.heard.connection)
        executed.append(x.heard.prompt)
        await good(x)

    await stage.cast(script, 1)
    for stream, chunked in WAYS * 2:
        prompt = stage.prompt()
        answer = await stage.ask(prompt, stream=stream, chunked=chunked)
        expect_right(answer, prompt, stream=stream)
        expect(executed.count(prompt) == 1, f"a request was executed {executed.count(prompt)} times")
        expect(answer.attempts == 1, "the retry on a stale connection was counted as an attempt")
    expect(stale, "no connection was used again, so nothing was shown")
    return f"{len(executed)} answers, {stale} stale connections, each request executed once"


async def _not_stale(stage: Stage) -> str:
    """A fresh connection that breaks is an engine's fault, not a stale one: with one replica it is told."""
    heard = []

    async def script(x: Exchange) -> None:
        heard.append(x.heard.prompt)
        x.reset()

    await stage.cast(script, 1)
    for stream, chunked in WAYS:
        prompt = stage.prompt()
        answer = await stage.ask(prompt, stream=stream, chunked=chunked)
        expect(answer.status == 502, f"the client got {answer.told()}, not 502")
        expect(heard.count(prompt) == 1, f"the request was sent {heard.count(prompt)} times")
    return "502, each request sent once"


async def _bytes_for_nobody(stage: Stage) -> str:
    """Behind a whole answer the engine sends another one that nobody asked for."""
    poison = answers.plain("not for you")
    sent = 0

    async def with_it(x: Exchange) -> None:
        await x.send(whole(x) + poison)

    async def after_it(x: Exchange) -> None:
        nonlocal sent
        await good(x)
        await asyncio.sleep(0.03)
        await x.send(poison)
        sent += 1

    asked = 0
    for script in (with_it, after_it):
        await stage.cast(script, 1)
        for number, (stream, chunked) in enumerate(WAYS * 2):
            prompt = stage.prompt()
            answer = await stage.ask(prompt, stream=stream, chunked=chunked)
            expect_right(answer, prompt, stream=stream)
            asked += 1
            if script is after_it:
                await until(lambda number=number: sent > number, "the engine has sent it")
                # it must have reached the proxy: what comes with the next answer cannot be told from it
                await asyncio.sleep(0.05)
    return f"{asked} requests, each got its own answer"


async def _pipelined(stage: Stage) -> str:
    """Three requests in one packet, or two behind one that runs: each gets its own answer, in order."""
    firsts = set()

    async def script(x: Exchange) -> None:
        if x.heard.prompt in firsts:
            # asked for at once, the others' answers would be there before this one
            await asyncio.sleep(0.2)
        await good(x)

    await stage.cast(script, 2)
    for apart, chunked in WAYS:
        async with await Client.connect(stage.proxy.port) as client:
            prompts = [stage.prompt() for _ in range(3)]
            firsts.add(prompts[0])
            for number, prompt in enumerate(prompts):
                await client.post(CHAT, stage.body(prompt, stream=number == 1), chunked=chunked)
                if apart and not number:
                    await until(lambda first=prompt: bool(stage.heard(first)), "the first one runs")
            for number, prompt in enumerate(prompts):
                expect_right(await client.rest(), prompt, stream=number == 1)
                once_each(stage.heard(prompt), 1)
    return f"{3 * len(WAYS)} answers in order"


async def _left_alone(stage: Stage) -> str:
    """Ten clients leave in the middle; none of their connections to engines is used again."""
    left, noticed = asyncio.Event(), asyncio.Event()

    async def script(x: Exchange) -> None:
        if x.heard.streamed and not left.is_set():
            await x.send(answers.head(200, answers.EVENT_STREAM, answers.CHUNKED))
            await x.send(answers.chunk(answers.events(x.heard.prompt)[0]))
            await left.wait()
            while not noticed.is_set():
                await x.send(answers.chunk(answers.events("not for you")[0]))
                await asyncio.sleep(0.02)
            while True:
                # on a connection that is used again this passes for the next answer
                await x.send(answers.plain("not for you"))
                await asyncio.sleep(0.002)
        else:
            await good(x)

    await stage.cast(script, 2)
    clients = [await stage.asking(chunked=bool(number % 2)) for number in range(10)]
    for client in clients:
        await client.begin()
        await client.more()
        client.leave()
    abandoned = stage.heard()
    left.set()

    async def idle() -> bool:
        return await stage.proxy.metric("modelyard_replica_in_flight") == 0

    await until(idle, "the clients that left are noticed")
    noticed.set()
    await expect_service(stage, 10)
    for heard in abandoned:
        await gone(heard)
    return "10 streams left, 10 later answers right"


async def _closes_politely(stage: Stage) -> str:
    """Connection: close is believed."""

    async def script(x: Exchange) -> None:
        await x.send(answers.plain(x.heard.prompt, "Connection: close"))
        # and yet it stays open

    engines = await stage.cast(script, 1)
    seen = set()
    for _, chunked in PLAIN * 2:
        prompt = stage.prompt()
        answer = await stage.ask(prompt, chunked=chunked)
        expect_right(answer, prompt, stream=False)
        seen.add(engines[0].heard[-1].connection)
    expect(len(seen) == 4, "a connection was used again although the engine said that it ends")
    return "4 requests on 4 connections"


SCENARIOS = (
    Scenario(
        "stale-connection",
        _GROUP,
        "an idle connection is reset just as the next request is sent on it",
        "sent again on a fresh one, unnoticed; executed exactly once",
        _stale,
    ),
    Scenario(
        "fresh-connection-breaks",
        _GROUP,
        "a fresh connection is reset after the request",
        "not mistaken for a stale one: the only replica is asked once, then 502",
        _not_stale,
    ),
    Scenario(
        "bytes-for-nobody",
        _GROUP,
        "a second answer follows the first one, at once or later",
        "it is never given to the next client",
        _bytes_for_nobody,
    ),
    Scenario(
        "clients-leave",
        _GROUP,
        "clients leave in mid-stream while engines go on sending",
        "what was meant for them reaches nobody else",
        _left_alone,
    ),
    Scenario(
        "connection-close",
        _GROUP,
        "Connection: close on an answer, and the connection stays open",
        "the connection is not used again",
        _closes_politely,
    ),
    Scenario(
        "pipelined",
        _GROUP,
        "a client sends three requests before it reads an answer",
        "each gets its own answer, in order",
        _pipelined,
    ),
)
