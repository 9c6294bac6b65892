"""What keeps one bad replica, one bad request or one bad minute from becoming everybody's."""

from __future__ import annotations

import asyncio

from .. import faults
from ..client import Answer
from ..engine import Engine, Exchange, Script
from ..faults import good
from ..proxy import until
from ..scenario import Scenario, Surprise, expect
from ..stage import Stage
from .acts import expect_right, expect_service

_GROUP = "resilience"
_BREAKER = {"breaker-failures": "3", "breaker-open-s": "1"}
_DEADLY = "chaos: this one kills"


async def _breaker(stage: Stage) -> str:
    one, _ = await stage.cast(good, 2)
    one.script = faults.answer(503)
    await _all_right(stage, 30)
    before = len(one.heard)
    expect(before >= 3, "the fault did not happen")
    expect(
        before <= 4, f"the replica that fails was asked {before} times, 3 failures are to open its breaker"
    )
    # half-open: one request at a time finds out that it still fails
    await asyncio.sleep(1.3)
    await _all_right(stage, 20)
    tried = len(one.heard) - before
    expect(tried, "the breaker never tries again")
    expect(tried <= 2, f"a half-open breaker let {tried} requests through")
    one.script = good
    before = len(one.heard)
    await asyncio.sleep(1.3)
    for _ in range(200):
        await _all_right(stage, 1)
        if len(one.heard) - before >= 5:
            return f"open after 3 failures, {tried} trial while it failed, used again when it was well"
        await asyncio.sleep(0.02)
    raise Surprise("a replica that is well again is not used")


async def _all_right(stage: Stage, count: int) -> None:
    for _ in range(count):
        prompt = stage.prompt()
        expect_right(await stage.ask(prompt), prompt, stream=False)


async def _breaker_and_clients_faults(stage: Stage) -> str:
    engines = await stage.cast(faults.answer(400), 2)
    for _ in range(20):
        answer = await stage.ask()
        expect(answer.status == 400, f"the client got {answer.told()}, not 400")
    for engine in engines:
        engine.script = good
    heard = [len(engine.heard) for engine in engines]
    await _all_right(stage, 10)
    used = [len(engine.heard) > before for engine, before in zip(engines, heard, strict=True)]
    expect(all(used), "bad requests have taken a replica out")
    return "20 answers of 400, both replicas still in use"


async def _retry_storm(stage: Stage) -> str:
    requests = 100
    engines = await stage.cast(faults.reset, 4)
    answers = await asyncio.gather(*(stage.ask() for _ in range(requests)))
    for answer in answers:
        expect(answer.status in (502, 503), f"a client got {answer.told()}")
        expect(answer.code, "an error has no code")
    attempts = sum(len(engine.heard) for engine in engines)
    limit = requests * 1.5
    expect(attempts <= limit, f"{requests} requests became {attempts} attempts, more than {limit:.0f}")
    return f"{requests} requests, {attempts} attempts"


def _deadly(dying: Script) -> Script:
    async def script(x: Exchange) -> None:
        await (dying if _DEADLY in x.heard.prompt else good)(x)

    return script


async def _query_of_death(stage: Stage) -> str:
    return await _deaths(stage, faults.die)


async def _slow_death(stage: Stage) -> str:
    """The engine answers 500 first, then its health says 503, then it is gone."""

    async def dying(x: Exchange) -> None:
        engine = x.engine
        engine.health = lambda: 503
        engine.script = faults.answer(500)
        await faults.answer(500)(x)

    return await _deaths(stage, dying)


async def _deaths(stage: Stage, dying: Script) -> str:
    """Ten times the same deadly request to three replicas, with other requests between; by both ways inside."""
    for chunked in (False, True):
        engines = await stage.cast(_deadly(dying), 3)
        # another one each time: the first is known by now
        prompt = f"{_DEADLY} in {'pieces' if chunked else 'one piece'}"
        last = Answer()
        for _ in range(10):
            last = await stage.ask(prompt, chunked=chunked)
            expect(last.status >= 400, f"the deadly request got {last.told()}")
            await _settle(stage, engines)
            await _all_right(stage, 2)
        dead = [engine for engine in engines if _was_hit(engine)]
        expect(len(dead) <= 2, f"it took {len(dead)} of 3 replicas down")
        expect(last.code == "query_of_death", f"the tenth was refused with {last.told()}")
    return f"{len(dead)} of 3 replicas lost, then {last.told()}; 40 other requests answered"


def _was_hit(engine: Engine) -> bool:
    return any(_DEADLY in item.prompt for item in engine.heard)


async def _settle(stage: Stage, engines: list[Engine]) -> None:
    """Wait until the proxy sees which replicas are down, as between two requests of one client."""
    for engine in engines:
        if _was_hit(engine):

            async def known(engine: Engine = engine) -> bool:
                return await stage.state(engine) not in ("ready", "busy")

            await until(known, "the dead replica is seen")


async def _serve_queue(stage: Stage, script: Script, *, places: int, size: int, wait_s: float) -> None:
    """One replica with ``places``, and ``size`` seats for requests to wait on for ``wait_s``."""
    entry = stage.entry(await stage.start(script, 1), queue={"size": size, "wait_s": wait_s})
    entry["timeouts"] = {"first_byte_s": 20}
    entry["endpoints"][0]["max_in_flight"] = places
    await stage.serve({stage.model: entry})


async def _queue(stage: Stage) -> str:
    gate = asyncio.Event()
    busiest = running = 0

    async def script(x: Exchange) -> None:
        nonlocal busiest, running
        running += 1
        busiest = max(busiest, running)
        await gate.wait()
        running -= 1
        await good(x)

    await _serve_queue(stage, script, places=2, size=3, wait_s=10)
    prompts = [stage.prompt() for _ in range(10)]
    tasks = [stage.later(stage.ask(prompt)) for prompt in prompts]
    await until(lambda: sum(task.done() for task in tasks) >= 5, "what has no place is refused at once")
    refused = [task.result() for task in tasks if task.done()]
    expect(len(refused) == 5, f"{len(refused)} of 10 were refused; 2 places and 3 seats leave 5")
    for answer in refused:
        expect(answer.status in (429, 503), f"a refused client got {answer.told()}")
        expect(answer.headers.get("retry-after", "0").isdecimal(), "Retry-After is no number")
        expect(int(answer.headers.get("retry-after", "0")) >= 1, "Retry-After is missing")
    gate.set()
    for prompt, task in zip(prompts, tasks, strict=True):
        answer = await task
        if answer not in refused:
            expect_right(answer, prompt, stream=False)
    expect(busiest <= 2, f"{busiest} requests ran at once on a replica that takes 2")
    return f"2 ran, 3 waited and were answered, 5 were told {refused[0].told()}"


async def _queue_wait(stage: Stage) -> str:
    await _serve_queue(stage, faults.hang, places=1, size=3, wait_s=0.5)
    holder = await stage.asking()
    await until(lambda: bool(stage.heard()), "the only place is taken")
    answer = await stage.ask()
    expect(answer.status in (429, 503), f"the client got {answer.told()}")
    expect("retry-after" in answer.headers, "Retry-After is missing")
    expect(answer.seconds < 3, f"it waited {answer.seconds:.1f} s, wait_s is 0.5")
    expect(len(stage.heard()) == 1, "the full replica got a second request")
    holder.leave()
    return f"{answer.told()} after {answer.seconds:.1f} s, Retry-After {answer.headers['retry-after']}"


async def _queue_leaves(stage: Stage) -> str:
    """A client that leaves the queue frees its seat and is never served."""
    gate = asyncio.Event()

    async def script(x: Exchange) -> None:
        await gate.wait()
        await good(x)

    await _serve_queue(stage, script, places=1, size=1, wait_s=10)
    first = stage.later(stage.ask())
    await until(lambda: bool(stage.heard()), "the only place is taken")
    left = stage.prompt()
    waiting = await stage.asking(left)
    await asyncio.sleep(0.2)
    waiting.leave()
    await asyncio.sleep(0.2)
    prompt = stage.prompt()
    second = stage.later(stage.ask(prompt))
    await asyncio.sleep(0.2)
    gate.set()
    expect((await first).status == 200, "the running request failed")
    expect_right(await second, prompt, stream=False)
    expect(not stage.heard(left), "a request was executed although its client had left the queue")
    return "the seat was free again; the request was never sent"


async def _one_bad_of_many(stage: Stage) -> str:
    """A replica that hangs for everybody does not take the others' requests with it."""
    one, *_ = await stage.cast(good, 3)
    one.script = faults.hang
    asked = [(prompt, stage.later(stage.ask(prompt))) for prompt in (stage.prompt() for _ in range(30))]
    for prompt, task in asked:
        expect_right(await task, prompt, stream=False)
    one.script = good
    await expect_service(stage)
    return "30 of 30 answered"


SCENARIOS = (
    Scenario(
        "breaker",
        _GROUP,
        "a replica answers 503 to everything while its health is fine, then is mended",
        "3 failures open its breaker, trials are single, a mended one is used again",
        _breaker,
        settings=_BREAKER,
    ),
    Scenario(
        "breaker-ignores-4xx",
        _GROUP,
        "20 requests are answered with 400",
        "the client's fault opens no breaker",
        _breaker_and_clients_faults,
        settings=_BREAKER,
    ),
    Scenario(
        "one-hangs",
        _GROUP,
        "one of three replicas hangs under 30 requests at once",
        "all are answered",
        _one_bad_of_many,
    ),
    Scenario(
        "retry-storm",
        _GROUP,
        "100 requests while all four replicas reset every one",
        "retries stay within their budget: at most 150 attempts",
        _retry_storm,
        settings={"retry-budget-percent": "50", "breaker-failures": "0"},
    ),
    Scenario(
        "query-of-death",
        _GROUP,
        "one request kills every engine it reaches; it is sent ten times",
        "at most two of three replicas are lost, then it is refused; all others are answered",
        _query_of_death,
        settings={"probe-interval-s": "0.1"},
    ),
    Scenario(
        "slow-death",
        _GROUP,
        "the same, but each engine answers 500 and only then falls ill",
        "at most two of three replicas are lost, then it is refused; all others are answered",
        _slow_death,
        settings={"probe-interval-s": "0.1"},
    ),
    Scenario(
        "queue",
        _GROUP,
        "ten requests for one replica that takes two, with three seats to wait",
        "two run, three wait and are answered, five are told when to come back",
        _queue,
    ),
    Scenario(
        "queue-wait",
        _GROUP,
        "no place gets free within wait_s",
        "the client is told when to come back",
        _queue_wait,
    ),
    Scenario(
        "queue-leaves",
        _GROUP,
        "a client leaves while it waits in the queue",
        "its seat is free, its request is never sent",
        _queue_leaves,
    ),
)
