"""Engines that answer with an error, in the head or inside a stream."""

from __future__ import annotations

from itertools import product

from .. import answers, faults
from ..answers import CHUNKED, EVENT_STREAM, chunk, head
from ..client import Answer
from ..engine import Exchange
from ..scenario import Scenario, expect
from ..stage import Stage
from .acts import STREAMED, WAYS, elsewhere, expect_service, honest, once_each

_GROUP = "errors"


async def _overloaded_at_once(x: Exchange) -> None:
    event = answers.tgi_error()
    await faults.says(head(200, EVENT_STREAM, CHUNKED), chunk(event[:20]), chunk(event[20:]), then="keep")(x)
    await x.send(answers.LAST_CHUNK)


async def _everybody_busy(stage: Stage) -> str:
    await stage.cast(faults.answer(503, "Retry-After: 7"), 2)
    for stream, chunked in WAYS:
        prompt = stage.prompt()
        answer = await stage.ask(prompt, stream=stream, chunked=chunked)
        expect(answer.status == 503, f"the client got {answer.told()}, not 503")
        expect(answer.code, "the error has no code")
        expect(answer.headers.get("retry-after", "").isdecimal(), "Retry-After is missing")
        expect(len(stage.heard(prompt)) <= 2, "a replica was asked twice")
    return f"{answer.told()}, Retry-After {answer.headers['retry-after']}"


async def _rate_limited(stage: Stage) -> str:
    await stage.cast(faults.answer(429, "Retry-After: 7"), 2)
    answer = await stage.ask()
    expect(answer.status in (429, 503), f"the client got {answer.told()}")
    expect(answer.headers.get("retry-after", "").isdecimal(), "Retry-After is missing")
    expect(answer.whole, "the answer was cut")
    return f"{answer.told()}, Retry-After {answer.headers['retry-after']}"


async def _its_own_error(stage: Stage) -> str:
    """An error that is the request's own fault is passed on at once and tried nowhere else."""
    for status in (400, 404, 413, 422):
        await stage.cast(faults.answer(status), 2)
        for stream, chunked in WAYS:
            prompt = stage.prompt()
            answer = await stage.ask(prompt, stream=stream, chunked=chunked)
            expect(answer.status == status, f"the client got {answer.told()}, not {status}")
            expect(b"chaos says" in answer.body, "the engine's own words were lost")
            once_each(stage.heard(prompt), 1)
    return "400, 404, 413 and 422 passed on, each sent once"


async def _internal_error(stage: Stage) -> str:
    """An engine that lives and says 500 has answered: the next one would only be made to do it again."""
    for stream, chunked in WAYS:
        await stage.cast(faults.answer(500), 2)
        prompt = stage.prompt()
        answer = await stage.ask(prompt, stream=stream, chunked=chunked)
        expect(answer.status == 500, f"the client got {answer.told()}, not 500")
        expect(answer.whole and b"chaos says 500" in answer.body, "the engine's own words were lost")
        once_each(stage.heard(prompt), 1)
    return f"{answer.told()}, passed on and sent once"


async def _redirects(stage: Stage) -> str:
    def clean(answer: Answer) -> None:
        expect("location" not in answer.headers, "the inner address reached the client")
        expect(b"inner.example" not in answer.body, "the inner address reached the client")

    for status, chunked in product((301, 302, 307, 308), (False, True)):
        redirect = faults.answer(status, "Location: http://inner.example/elsewhere")
        await stage.cast(faults.first(redirect), 2)
        prompt = stage.prompt()
        answer = await stage.ask(prompt, chunked=chunked)
        expect(answer.status == 200, f"{status}: the client got {answer.told()}")
        clean(answer)
        await stage.cast(redirect, 2)
        answer = await stage.ask(chunked=chunked)
        expect(answer.status == 502, f"{status} everywhere: the client got {answer.told()}")
        clean(answer)
    await stage.cast(faults.good)
    await expect_service(stage)
    return "another replica answers; where all redirect, 502; no inner address is told"


SCENARIOS = (
    elsewhere(
        "busy-503", _GROUP, "503 with Retry-After from one replica", faults.answer(503, "Retry-After: 7")
    ),
    elsewhere("bad-gateway-502", _GROUP, "502 from one replica", faults.answer(502)),
    Scenario(
        "busy-everywhere",
        _GROUP,
        "503 with Retry-After from all",
        "503 with a code and Retry-After; no replica asked twice",
        _everybody_busy,
    ),
    Scenario(
        "rate-limited",
        _GROUP,
        "429 with Retry-After from all",
        "the client learns when to come back",
        _rate_limited,
    ),
    Scenario(
        "internal-error",
        _GROUP,
        "500 from all",
        "passed on as it is once its replica is seen to live, sent once",
        _internal_error,
    ),
    Scenario(
        "request-errors",
        _GROUP,
        "400, 404, 413, 422: the request's own fault",
        "passed on as they are, sent once",
        _its_own_error,
    ),
    Scenario(
        "redirects",
        _GROUP,
        "301, 302, 307, 308 to an inner address",
        "never followed, never passed on",
        _redirects,
    ),
    elsewhere(
        "error-inside-200",
        _GROUP,
        "TGI's overloaded as the first event of a 200, in two pieces",
        _overloaded_at_once,
        ways=STREAMED,
        kind="tgi",
    ),
    honest(
        "error-inside-200-later",
        _GROUP,
        "TGI's overloaded after the first event",
        faults.streams(1, "keep", garbage=chunk(answers.tgi_error()) + answers.LAST_CHUNK),
        kind="tgi",
        expected="the client gets the error and no [DONE]; not sent again",
    ),
)
