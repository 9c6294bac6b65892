"""Engines that do not answer at all."""

from __future__ import annotations

from .. import answers, faults
from ..engine import Exchange
from ..scenario import Scenario, expect
from ..stage import TIMEOUTS, Stage
from .acts import elsewhere, expect_right, expect_service

_GROUP = "silence"


async def _half_a_head(x: Exchange) -> None:
    await x.send(answers.head(200, answers.JSON_TYPE)[:25])
    x.close()


async def _refuses(stage: Stage) -> str:
    return await _one_is_gone(stage, refuse=True)


async def _resets_on_accept(stage: Stage) -> str:
    return await _one_is_gone(stage, refuse=False)


async def _one_is_gone(stage: Stage, *, refuse: bool) -> str:
    """One of two replicas takes no connection any more; no request may notice."""
    one, _ = await stage.cast(faults.good_once)
    if refuse:
        await one.stop()
    else:
        one.deaf = True
    tried = 0
    for number in range(6):
        prompt, stream = stage.prompt(), bool(number % 2)
        answer = await stage.ask(prompt, stream=stream, chunked=number > 3)
        expect_right(answer, prompt, stream=stream)
        tried += answer.attempts == 2
    expect(tried, "no request met the fault")
    expect(not one.heard, "the fault did not happen")
    return f"6 of 6 answered, {tried} of them by a second attempt"


async def _all_hang(stage: Stage) -> str:
    engines = await stage.cast(faults.hang, 5)
    answer = await stage.ask()
    expect(answer.status == 504, f"the client got {answer.told()}, not 504")
    expect(answer.code == "upstream_timeout", f"the error's code is {answer.code!r}")
    heard = sum(len(engine.heard) for engine in engines)
    expect(heard <= 3, f"{heard} replicas were tried, at most 3 may be")
    limit = TIMEOUTS["first_byte_s"] * heard + 2
    expect(
        answer.seconds < limit, f"the client waited {answer.seconds:.1f} s, at most {limit:.1f} s is right"
    )
    return f"504 upstream_timeout after {heard} of 5 replicas and {answer.seconds:.1f} s"


async def _all_refuse(stage: Stage) -> str:
    engines = await stage.cast(faults.good_once, 2)
    for engine in engines:
        await engine.stop()
    answer = await stage.ask()
    expect(answer.status in (502, 503), f"the client got {answer.told()}")
    text = answer.body.decode(errors="replace")
    for engine in engines:
        expect(str(engine.port) not in text, "the error tells the client an engine's address")
        await engine.start()
    for engine in engines:
        await stage.until_state(engine, "ready")
    await expect_service(stage)
    return f"{answer.told()}; answered again after they came back"


SCENARIOS = (
    elsewhere("hangs", _GROUP, "a replica takes the request and never answers", faults.hang),
    Scenario(
        "hangs-everywhere",
        _GROUP,
        "all five replicas hang",
        "504 upstream_timeout, after at most three replicas",
        _all_hang,
    ),
    Scenario(
        "refuses", _GROUP, "a replica's port is closed", "each request is answered by the other", _refuses
    ),
    Scenario(
        "refuses-everywhere",
        _GROUP,
        "no replica's port is open, then all are",
        "a clear error that names no inner address; service returns with the replicas",
        _all_refuse,
        settings={"probe-interval-s": "0.1"},
    ),
    Scenario(
        "resets-on-accept",
        _GROUP,
        "a replica resets each connection as it is made",
        "each request is answered by the other",
        _resets_on_accept,
    ),
    elsewhere("resets-after-request", _GROUP, "RST in place of an answer", faults.reset, at_once=True),
    elsewhere(
        "half-open", _GROUP, "FIN in place of an answer, the rest stays open", faults.half_open, at_once=True
    ),
    elsewhere(
        "cuts-in-head", _GROUP, "the connection ends within the answer's head", _half_a_head, at_once=True
    ),
)
