"""Clients that are slow, greedy or gone, and engines far faster than they."""

from __future__ import annotations

import asyncio
import json
import time

from .. import answers
from ..client import Client
from ..engine import Exchange
from ..faults import good, hang
from ..proxy import until
from ..scenario import Scenario, expect
from ..stage import CHAT, Stage, gone
from .acts import STREAMED, expect_right, expect_service, once_each

_GROUP = "clients"
_MIB = 2**20
_FLOOD = 48 * _MIB
_PIECE = 64 * 1024
# what kernels keep on both connections, and the proxy's own buffers
_UNDER_WAY = 16 * _MIB
_GROWTH = 4 * _MIB


async def _flood(x: Exchange) -> None:
    piece = answers.chunk(b"data: " + b"x" * (_PIECE - 8) + b"\n\n")
    await x.send(answers.head(200, answers.EVENT_STREAM, answers.CHUNKED))
    for number in range(_FLOOD // _PIECE):
        await x.send(piece)
        x.heard.body["sent"] = number + 1
    await x.send(answers.chunk(answers.DONE) + answers.LAST_CHUNK)


async def _floods(stage: Stage) -> str:
    await stage.cast(_flood, 1, timeouts={"idle_s": 20})
    async with await stage.asking() as warm:
        await warm.begin()
        await warm.skip()
    before = stage.proxy.resident()
    told = []
    for _, chunked in STREAMED:
        sent = await _flooded(stage, before, chunked=chunked)
        held = stage.proxy.resident() - before
        expect(held < _GROWTH, f"the proxy grew by {held / _MIB:.1f} MiB")
        told.append(f"{sent / _MIB:.1f} MiB under way")
    return f"{_FLOOD // _MIB} MiB whole; {' and '.join(told)}, the proxy grew by {held / _MIB:.1f} MiB"


async def _flooded(stage: Stage, before: int, *, chunked: bool) -> int:
    """One client that reads nothing at first; how many bytes were taken from the engine meanwhile."""
    prompt = stage.prompt()
    async with await Client.connect(stage.proxy.port, receive_buffer=8192) as client:
        await client.post(CHAT, stage.body(prompt, stream=True), chunked=chunked)
        await client.begin()
        engine = stage.heard(prompt)[0]
        sent = await _at_rest(engine.body)
        held = stage.proxy.resident() - before
        expect(
            sent < _UNDER_WAY,
            f"{sent // _MIB} MiB were taken from the engine for a client that reads nothing",
        )
        expect(held < _GROWTH, f"the proxy grew by {held / _MIB:.1f} MiB")
        # others are served meanwhile
        async with await stage.asking() as other:
            await other.begin()
            expect(await other.more(), "nobody else was served meanwhile")
            other.leave()
        size = await client.skip()
        expect(client.answer.whole, "the slow client's answer was cut")
    whole = _FLOOD // _PIECE * _PIECE + len(answers.DONE)
    expect(size == whole, f"the slow client got {size} of {whole} bytes")
    return sent


async def _at_rest(body: dict[str, int]) -> int:
    """Wait until the engine can send no more; how many bytes it has sent."""
    loop = asyncio.get_running_loop()
    last, since = -1, loop.time()

    def still() -> bool:
        nonlocal last, since
        if body.get("sent", 0) != last:
            last, since = body.get("sent", 0), loop.time()
        return loop.time() - since > 0.4

    await until(still, "the engine is held back", 20)
    return last * _PIECE


async def _leaves_during_prefill(stage: Stage) -> str:
    """Both kinds of leaving, in a plain and in a streamed request."""
    await stage.cast(hang, 1, timeouts={"first_byte_s": 20})
    times = []
    for number in range(8):
        prompt = stage.prompt()
        client = await stage.asking(prompt, stream=bool(number % 2), chunked=bool(number & 2))
        await until(lambda prompt=prompt: bool(stage.heard(prompt)), "the engine has the request")
        left = time.monotonic()
        if number < 4:
            client.leave()
        else:
            client.hang_up()
        times.append(await gone(stage.heard(prompt)[0]) - left)
    # the middle one: a machine that pauses once must not decide
    middle = sorted(times)[len(times) // 2]
    expect(middle < 0.2, f"the engine saw it after {middle * 1000:.0f} ms (middle of {len(times)})")
    return f"seen by the engine after {middle * 1000:.0f} ms (worst {max(times) * 1000:.0f} ms)"


async def _leaves_during_retry(stage: Stage) -> str:
    """A client that has left is not retried for."""
    await stage.cast(hang, 3)
    for _, chunked in STREAMED:
        prompt = stage.prompt()
        client = await stage.asking(prompt, chunked=chunked)
        await until(lambda prompt=prompt: bool(stage.heard(prompt)), "the engine has the request")
        client.leave()
        await gone(stage.heard(prompt)[0])
        await asyncio.sleep(0.3)
        once_each(stage.heard(prompt), 1)
    return "one replica asked, then nobody"


async def _slow_body(stage: Stage) -> str:
    """A request body that does not come: the client is told, others are served."""
    await stage.cast(good, 1)
    told = set()
    for framing in (b"Content-Length: 500\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1f4\r\n"):
        async with await Client.connect(stage.proxy.port) as client:
            await client.raw(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                + framing
                + b'{"model": "'
            )
            await expect_service(stage)
            answer = await client.rest()
        expect(answer.status == 408, f"the client got {answer.told()}, not 408")
        expect(answer.code == "body_timeout", f"the error's code is {answer.code!r}")
        told.add(answer.told())
    expect(len(stage.heard()) == 6, "what was not whole was sent on")
    return f"{' and '.join(told)}; others were served"


async def _crumbs(stage: Stage) -> str:
    """A request that comes byte by byte is a request all the same."""
    await stage.cast(good, 1)
    for stream in (False, True):
        prompt = stage.prompt()
        body = json.dumps(stage.body(prompt, stream=stream)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        async with await Client.connect(stage.proxy.port) as client:
            for number in range(len(head + body)):
                await client.raw((head + body)[number : number + 1])
                await asyncio.sleep(0)
            expect_right(await client.rest(), prompt, stream=stream)
    return "plain and streamed, answered"


async def _slow_reader(stage: Stage) -> str:
    """A client that takes its time gets every byte; idle_s is about engines, not about clients."""

    async def script(x: Exchange) -> None:
        await x.send(answers.stream(answers.events(x.heard.prompt, 20_000)))

    await stage.cast(script, 1, timeouts={"idle_s": 0.5, "first_byte_s": 5})
    prompt = stage.prompt()
    right = b"".join(answers.events(prompt, 20_000))
    async with await Client.connect(stage.proxy.port, receive_buffer=8192) as client:
        await client.post(CHAT, stage.body(prompt, stream=True))
        await client.begin()
        await asyncio.sleep(1.2)
        answer = await client.rest()
    expect(answer.whole, f"the answer was cut after {len(answer.body)} of {len(right)} bytes")
    expect(answer.body == right, "the bytes differ")
    return f"{len(right) / _MIB:.1f} MiB identical after a pause longer than idle_s"


SCENARIOS = (
    Scenario(
        "floods",
        _GROUP,
        "48 MiB at once for a client that reads nothing at first",
        "the engine is held back, memory stays, every byte arrives in the end",
        _floods,
        own_proxy=True,
        limit_s=60,
    ),
    Scenario(
        "slow-reader",
        _GROUP,
        "a client pauses for longer than idle_s",
        "not the engine's fault: nothing is cut, the bytes are identical",
        _slow_reader,
    ),
    Scenario(
        "leaves-during-prefill",
        _GROUP,
        "a client leaves before the first byte",
        "the engine sees it within 200 ms",
        _leaves_during_prefill,
    ),
    Scenario(
        "leaves-no-retry",
        _GROUP,
        "a client leaves while its first replica hangs",
        "no other replica is asked",
        _leaves_during_retry,
    ),
    Scenario(
        "slow-body",
        _GROUP,
        "a client never sends the body it announced",
        "408 body_timeout; nothing is sent on, others are served",
        _slow_body,
    ),
    Scenario("crumbs", _GROUP, "a request comes byte by byte", "it is answered like any other", _crumbs),
)
