"""What scripted engines do with a request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from . import answers
from .engine import Exchange, Script


def whole(x: Exchange, *lines: str) -> bytes:
    """A good answer's bytes, plain or streamed as asked; ``lines`` are further header lines."""
    prompt = x.heard.prompt
    if x.heard.streamed:
        return answers.stream(answers.events(prompt), *lines)
    return answers.plain(prompt, *lines)


async def good(x: Exchange) -> None:
    """Answer well, plain or streamed as asked."""
    await x.send(whole(x))


async def good_once(x: Exchange) -> None:
    """Answer well and end the connection."""
    await x.send(whole(x, "Connection: close"))
    x.close()


async def hang(x: Exchange) -> None:
    """Take the request and never answer."""
    await x.until_gone()


async def reset(x: Exchange) -> None:
    """RST in place of an answer."""
    x.reset()


async def half_open(x: Exchange) -> None:
    """FIN in place of an answer, and go on reading."""
    x.half_close()
    await x.until_gone()


async def die(x: Exchange) -> None:
    """The whole engine dies of the request."""
    x.engine.die()


def says(*parts: bytes, then: str = "close") -> Script:
    """Send ``parts`` as they are; ``then`` close, reset, hang (until the proxy leaves) or keep."""

    async def script(x: Exchange) -> None:
        for part in parts:
            await x.send(part)
            # its own packet, as far as the kernel agrees
            await asyncio.sleep(0.01)
        if then == "close":
            x.close()
        elif then == "reset":
            x.reset()
        elif then == "hang":
            await x.until_gone()

    return script


def streams(count: int, then: str, *, garbage: bytes = b"") -> Script:
    """Begin a good stream, send ``count`` of its events and ``garbage``; ``then`` as in ``says``."""

    async def script(x: Exchange) -> None:
        parts: Sequence[bytes] = answers.events(x.heard.prompt)[:count]
        start = answers.head(200, answers.EVENT_STREAM, answers.CHUNKED)
        await says(start, *map(answers.chunk, parts), garbage, then=then)(x)

    return script


def answer(status: int, *lines: str) -> Script:
    """An error answer with this status and these header lines."""

    async def script(x: Exchange) -> None:
        await x.send(answers.refusal(status, *lines))

    return script


def first(*faults: Script, then: Script = good) -> Script:
    """Play each fault once, whichever engine is asked, and ``then`` for ever."""
    waiting = deque(faults)

    async def script(x: Exchange) -> None:
        await (waiting.popleft() if waiting else then)(x)

    return script
