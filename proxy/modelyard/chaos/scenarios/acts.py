"""Shapes that many scenarios share: a fault that must be answered elsewhere, one that must end honestly."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from .. import answers
from ..client import Answer, Client
from ..engine import Heard, Script
from ..faults import first
from ..scenario import Scenario, expect
from ..stage import CHAT, TIMEOUTS, Stage

# gets the answer and its prompt, raises ``Surprise``
Check = Callable[[Answer, str], None]

_ERROR_EVENT = re.compile(rb'data: ?\{"error"')
ELSEWHERE = "another replica answers; the client notices nothing"
HONEST = "what came is passed on, then an error event or a cut connection; not sent again, no false [DONE]"


def outcome(answer: Answer, prompt: str, *, stream: bool) -> str:
    """What an answer amounts to: right, error, cut, or wrong."""
    right = b"".join(answers.events(prompt)) if stream else answers.completion(prompt)
    if answer.status == 200 and answer.whole and answer.body == right:
        return "right"
    if answer.status >= 400 and answer.whole and answer.code:
        return "error"
    start, told = until_error(answer.body)
    if answer.status == 200 and right.startswith(start) and (told or not answer.whole):
        return "cut"
    return "wrong"


def until_error(body: bytes) -> tuple[bytes, bool]:
    """What stands before a stream's error event, and whether there is one."""
    found = _ERROR_EVENT.search(body)
    return (body[: found.start()], True) if found else (body, False)


def expect_right(answer: Answer, prompt: str, *, stream: bool, who: str = "the client") -> None:
    """Raise ``Surprise`` unless the answer is whole and belongs to this prompt."""
    found = outcome(answer, prompt, stream=stream)
    if found != "right":
        stray = "" if prompt.encode() in answer.body else f": {answer.body[:160]!r}"
        expect(False, f"{who} got {answer.told()}{stray}")


def one_attempt(answer: Answer, _: str) -> None:
    """Raise ``Surprise`` where the answer needed a second replica."""
    expect(answer.attempts == 1, f"it took {answer.attempts} attempts")


async def expect_service(stage: Stage, times: int = 3) -> None:
    """Requests after the fault, on one kept connection, are answered rightly."""
    async with await Client.connect(stage.proxy.port) as client:
        for number in range(times):
            prompt, stream = stage.prompt(), bool(number % 2)
            await client.post(CHAT, stage.body(prompt, stream=stream))
            answer = await client.rest()
            expect_right(answer, prompt, stream=stream, who="a later client")


def once_each(heard: Sequence[Heard], attempts: int) -> None:
    """Raise ``Surprise`` unless engines heard a prompt exactly ``attempts`` times."""
    expect(len(heard) == attempts, f"engines heard the request {len(heard)} times, not {attempts}")


WAYS = tuple((stream, chunked) for stream in (False, True) for chunked in (False, True))
STREAMED = tuple((stream, chunked) for stream, chunked in WAYS if stream)
PLAIN = tuple((stream, chunked) for stream, chunked in WAYS if not stream)


def elsewhere(
    name: str,
    group: str,
    fault: str,
    script: Script,
    *,
    ways: Sequence[tuple[bool, bool]] = WAYS,
    expected: str = ELSEWHERE,
    kind: str = "vllm",
    at_once: bool = False,
) -> Scenario:
    """``script`` befalls the first attempt of a request; the second must answer it, and ``at_once`` says
    that no deadline is needed to notice the fault.

    Each way is (streamed, request body sent in chunks): the proxy serves these by different routes inside.
    """

    async def play(stage: Stage) -> str:
        slowest = 0.0
        for stream, chunked in ways:
            engines = await stage.cast(first(script), kind=kind)
            prompt = stage.prompt()
            answer = await stage.ask(prompt, stream=stream, chunked=chunked)
            expect_right(answer, prompt, stream=stream)
            once_each(stage.heard(prompt), 2)
            expect(all(engine.heard for engine in engines), "the second attempt went to the same replica")
            expect(answer.attempts == 2, f"the client is told of {answer.attempts} attempts, not 2")
            slowest = max(slowest, answer.seconds)
            if at_once:
                late = TIMEOUTS["first_byte_s"]
                expect(slowest < late, f"the fault was noticed by its deadline only, after {slowest:.1f} s")
            await expect_service(stage, 2)
        return f"{len(ways)} of {len(ways)} requests answered by the other replica, within {slowest:.1f} s"

    return Scenario(name, group, fault, expected, play)


def honest(
    name: str, group: str, fault: str, script: Script, *, expected: str = HONEST, kind: str = "vllm"
) -> Scenario:
    """``script`` breaks a stream after its first event."""

    async def play(stage: Stage) -> str:
        ends = set()
        for stream, chunked in STREAMED:
            await stage.cast(first(script), kind=kind)
            prompt = stage.prompt()
            answer = await stage.ask(prompt, stream=stream, chunked=chunked)
            expect(answer.status == 200, f"the client got {answer.told()}")
            expect(
                answer.body.startswith(answers.events(prompt)[0]),
                f"the first event is missing: {answer.body[:80]!r}",
            )
            expect(b"[DONE]" not in answer.body, "the client was told [DONE]")
            start, told = until_error(answer.body)
            expect(not told or start.endswith(b"\n\n"), "the error is inside another event")
            expect(told or not answer.whole, "the broken stream looks whole")
            once_each(stage.heard(prompt), 1)
            said = ("an error event" if told else "", "a cut" if not answer.whole else "")
            ends.add(" and ".join(filter(None, said)))
            await expect_service(stage, 2)
        return f"first event passed on, then {' or '.join(sorted(ends))}; sent once"

    return Scenario(name, group, fault, expected, play)


def truthful(
    name: str,
    group: str,
    fault: str,
    expected: str,
    script: Script,
    *,
    allowed: Collection[str] = ("right",),
    ways: Sequence[tuple[bool, bool]] = PLAIN,
    check: Check | None = None,
) -> Scenario:
    """``script`` is ambiguous: the client must get one of the ``allowed`` outcomes, and nobody a wrong one.

    ``check`` gets the answer and the prompt.
    """

    async def play(stage: Stage) -> str:
        found = []
        for stream, chunked in ways:
            await stage.cast(first(script))
            prompt = stage.prompt()
            async with await Client.connect(stage.proxy.port) as client:
                await client.post(CHAT, stage.body(prompt, stream=stream), chunked=chunked)
                answer = await client.rest()
                if answer.whole and answer.headers.get("connection") != "close":
                    # what is left of this answer would be taken for the next one
                    following = stage.prompt()
                    await client.post(CHAT, stage.body(following))
                    answer, client.answer = client.answer, Answer()
                    expect_right(await client.rest(), following, stream=False, who="the same client")
            result = outcome(answer, prompt, stream=stream)
            expect(result in allowed, f"the client got {answer.told()}, which is {result}")
            expect(len(stage.heard(prompt)) <= 2, "the request was sent more than twice")
            if check is not None:
                check(answer, prompt)
            found.append(result if result != "wrong" else str(answer.status))
            await expect_service(stage, 4)
        return f"{' and '.join(sorted(set(found)))}; later answers right"

    return Scenario(name, group, fault, expected, play)
