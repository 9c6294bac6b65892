"""Streams that break, stall or come in crumbs."""

from __future__ import annotations

import asyncio

from .. import answers, faults
from ..client import Client
from ..engine import Exchange
from ..scenario import Scenario, expect
from ..stage import CHAT, TIMEOUTS, Stage, gone
from .acts import STREAMED, WAYS, elsewhere, expect_right, expect_service, honest, once_each

_GROUP = "streams"


async def _drip(x: Exchange) -> None:
    prompt = x.heard.prompt
    good = answers.stream(answers.events(prompt)) if x.heard.streamed else answers.plain(prompt)
    await x.drip(good)


async def _half(x: Exchange) -> None:
    whole = answers.plain(x.heard.prompt)
    await x.send(whole[: -len(answers.completion(x.heard.prompt)) // 2])
    # what follows is an answer already, which is cut
    await asyncio.sleep(0.05)
    x.close()


async def _drips(stage: Stage) -> str:
    await stage.cast(_drip, 1)
    for stream, chunked in WAYS:
        prompt = stage.prompt()
        answer = await stage.ask(prompt, stream=stream, chunked=chunked)
        expect_right(answer, prompt, stream=stream)
        once_each(stage.heard(prompt), 1)
    return f"{len(WAYS)} of {len(WAYS)} answers identical, byte for byte"


async def _at_once(stage: Stage) -> str:
    """An event is passed on before the next one exists."""
    received = asyncio.Semaphore(0)

    async def script(x: Exchange) -> None:
        await x.send(answers.head(200, answers.EVENT_STREAM, answers.CHUNKED))
        for event in answers.events(x.heard.prompt):
            await x.send(answers.chunk(event))
            if event != answers.DONE:
                await received.acquire()
        await x.send(answers.LAST_CHUNK)

    await stage.cast(script, 1)
    for _, chunked in STREAMED:
        prompt = stage.prompt()
        async with await stage.asking(prompt, chunked=chunked) as client:
            await client.begin()
            for number, event in enumerate(answers.events(prompt)):
                while not client.answer.body.endswith(event):
                    expect(await client.more(), f"event {number} did not come before the one after it")
                if event != answers.DONE:
                    received.release()
            expect_right(await client.rest(), prompt, stream=True)
    return "each event seen before the next was made"


async def _stalls(stage: Stage) -> str:
    await stage.cast(faults.streams(1, "hang"), 2)
    prompt = stage.prompt()
    answer = await stage.ask(prompt, stream=True)
    expect(answer.status == 200, f"the client got {answer.told()}")
    expect(answer.body.startswith(answers.events(prompt)[0]), "the first event is missing")
    expect(b"[DONE]" not in answer.body, "the client was told [DONE]")
    expect(b'"error"' in answer.body or not answer.whole, "the broken stream looks whole")
    expect(answer.seconds < TIMEOUTS["idle_s"] + 2, f"it took {answer.seconds:.1f} s to notice")
    once_each(stage.heard(prompt), 1)
    await gone(stage.heard(prompt)[0])
    return f"ended honestly after {answer.seconds:.1f} s, and the engine was let go"


async def _keeps_the_connection_for_others(stage: Stage) -> str:
    """After a broken stream the client's connection is not used on as if nothing had been."""
    for stream, chunked in WAYS:
        await stage.cast(faults.first(faults.streams(1, "close") if stream else _half), 1)
        prompt = stage.prompt()
        async with await Client.connect(stage.proxy.port) as client:
            await client.post(CHAT, stage.body(prompt, stream=stream), chunked=chunked)
            # sent behind the first one, before its answer has come
            await client.post(CHAT, stage.body(stage.prompt(), stream=stream))
            answer = await client.rest()
        expect(answer.status == 200, f"the client got {answer.told()}")
        expect(b"[DONE]" not in answer.body, "the broken answer ends with the next request's [DONE]")
        expect(not answer.whole, "the broken answer looks whole")
        await expect_service(stage)
    return f"{answer.told()}; the request behind it did not lend its end"


SCENARIOS = (
    Scenario(
        "stalls",
        _GROUP,
        "a stream falls silent after its first event",
        "idle_s ends it: an error event or a cut, no false [DONE]; the engine is let go",
        _stalls,
    ),
    elsewhere(
        "cut-before-first-byte",
        _GROUP,
        "a stream ends after its head",
        faults.streams(0, "close"),
        ways=((True, False), (True, True)),
    ),
    elsewhere(
        "silent-after-head",
        _GROUP,
        "a stream's head comes, then nothing",
        faults.streams(0, "hang"),
        ways=((True, False), (True, True)),
    ),
    honest("cut-after-first-event", _GROUP, "FIN between two events", faults.streams(1, "close")),
    honest("reset-after-first-event", _GROUP, "RST between two events", faults.streams(1, "reset")),
    honest(
        "cut-inside-event",
        _GROUP,
        "FIN in the middle of an event",
        faults.streams(1, "close", garbage=answers.chunk(b'data: {"half')),
    ),
    Scenario(
        "pipelined-behind-a-cut",
        _GROUP,
        "an answer breaks while the client has sent its next request already",
        "the broken answer does not borrow the end of the next one",
        _keeps_the_connection_for_others,
    ),
    Scenario("drips", _GROUP, "every byte comes alone, head included", "the same bytes arrive", _drips),
    Scenario(
        "at-once",
        _GROUP,
        "each event is made only when the one before has arrived",
        "nothing is held back",
        _at_once,
    ),
)
