"""Engines whose health is not what it seems."""

from __future__ import annotations

from collections.abc import Callable

from ..engine import Engine
from ..faults import good
from ..proxy import until
from ..scenario import Scenario, expect
from ..stage import Stage
from .acts import expect_right, expect_service

_GROUP = "health"
_PROBING = {"probe-interval-s": "0.1", "probe-failures": "3", "probe-successes": "2"}


async def _served_by(stage: Stage, count: int) -> list[str]:
    """The replicas that answer ``count`` requests."""
    names = []
    for _ in range(count):
        prompt = stage.prompt()
        answer = await stage.ask(prompt)
        expect_right(answer, prompt, stream=False)
        names.append(answer.replica)
    return names


async def _sick(stage: Stage) -> str:
    one, _ = await stage.cast(good, 2)
    await stage.until_state(one, "ready")
    one.health = lambda: 500
    await stage.until_state(one, "failing")
    names = await _served_by(stage, 6)
    expect(one.name not in names, "a failing replica got a request")
    one.health = lambda: 200
    await stage.until_state(one, "ready")
    names = await _served_by(stage, 20)
    expect(one.name in names, "the replica that came back gets no requests")
    return "left out while failing, back after"


async def _flaps(stage: Stage) -> str:
    """Two failures of three looks, again and again: never three in a row."""
    (one,) = await stage.cast(good, 1)
    await stage.until_state(one, "ready")
    looks = 0

    def every_third() -> int:
        nonlocal looks
        looks += 1
        return 200 if looks % 3 == 0 else 500

    one.health = every_third
    seen = set()

    async def enough() -> bool:
        seen.add(await stage.state(one))
        return looks >= 12

    await until(enough, "twelve looks")
    expect(seen == {"ready"}, f"its state went through {', '.join(sorted(seen))}")
    looks = 0
    one.health = lambda: 500
    await stage.until_state(one, "failing")
    looks, seen = 0, set()
    one.health = lambda: _alternating(count)
    count = [0]
    await until(lambda: count[0] >= 10, "ten looks")
    expect(await stage.state(one) == "failing", "single successes brought it back")
    one.health = lambda: 200
    await stage.until_state(one, "ready")
    return "ready through single failures, failing through single successes"


def _alternating(count: list[int]) -> int:
    count[0] += 1
    return 200 if count[0] % 2 else 500


def _engine_metrics(running: int, progress: Callable[[], int]) -> Callable[[], str]:
    def text() -> str:
        tokens = progress()
        return (
            f'vllm:num_requests_running{{model_name="m"}} {running}\n'
            'vllm:num_requests_waiting{model_name="m"} 0\n'
            f'vllm:iteration_tokens_total_count{{model_name="m"}} {tokens}\n'
            f'vllm:generation_tokens_total{{model_name="m"}} {tokens}\n'
        )

    return text


def _moving() -> Callable[[], int]:
    count = 0

    def tokens() -> int:
        nonlocal count
        count += 7
        return count

    return tokens


async def _hung(stage: Stage) -> tuple[Engine, Engine]:
    """A replica that answers probes and generates nothing, beside one that works."""
    one, other = await stage.start(good, 2)
    one.metrics = _engine_metrics(3, lambda: 1000)
    other.metrics = _engine_metrics(3, _moving())
    await stage.serve({stage.model: stage.entry([one, other])})

    async def alarmed() -> bool:
        return await _is_hung(stage, one)

    await until(alarmed, "the hung replica is named hung", 10)
    expect(not await _is_hung(stage, other), "the replica that works is called hung")
    expect(await stage.proxy.metric("modelyard_replica_hung") == 1, "the metric does not say so")
    return one, other


async def _is_hung(stage: Stage, engine: Engine) -> bool:
    """Whether the operator is told that the replica hangs."""
    row = (await stage.proxy.replicas()).get(engine.name, {})
    return row.get("hung_since") is not None


async def _hung_alarm(stage: Stage) -> str:
    one, _ = await _hung(stage)
    names = await _served_by(stage, 12)
    expect(one.name in names, "it was ejected although the alarm alone was asked for")
    one.metrics = _engine_metrics(3, _moving())

    async def calm() -> bool:
        return not await _is_hung(stage, one)

    await until(calm, "the alarm ends when tokens flow again", 10)
    return "named hung, still used; the alarm ended with it"


async def _hung_eject(stage: Stage) -> str:
    one, other = await _hung(stage)
    names = await _served_by(stage, 8)
    expect(one.name not in names, "a hung replica got a request")
    expect(other.name in names, "the replica that works got none")
    one.metrics = _engine_metrics(3, _moving())
    await stage.until_state(one, "ready", "busy", limit_s=10)
    return "named hung and left out; back when tokens flowed again"


async def _idle_is_not_hung(stage: Stage) -> str:
    (one,) = await stage.start(good, 1)
    looks = 0

    def still() -> int:
        nonlocal looks
        looks += 1
        return 1000

    one.metrics = _engine_metrics(0, still)
    await stage.serve({stage.model: stage.entry([one])})
    await until(lambda: looks >= 15, "fifteen looks at the figures", 10)
    expect(not await _is_hung(stage, one), "an idle replica is called hung")
    await expect_service(stage)
    return f"{looks} looks, never called hung"


_HUNG = {**_PROBING, "hung-after-s": "0.6"}

SCENARIOS = (
    Scenario(
        "sick",
        _GROUP,
        "a replica's health answers 500 for a while",
        "left out after three failures, used again after two successes",
        _sick,
        settings=_PROBING,
    ),
    Scenario(
        "flaps",
        _GROUP,
        "a replica's health fails two times of three, then every other time",
        "hysteresis: neither lost by single failures nor won by single successes",
        _flaps,
        settings=_PROBING,
    ),
    Scenario(
        "hung-alarm",
        _GROUP,
        "healthy, requests running, and the token counter stands still",
        "named hung for the operator, and still used",
        _hung_alarm,
        settings={**_HUNG, "hung-action": "alarm"},
    ),
    Scenario(
        "hung-eject",
        _GROUP,
        "the same, and the proxy was told to eject",
        "named hung and given no requests until tokens flow again",
        _hung_eject,
        settings={**_HUNG, "hung-action": "eject"},
    ),
    Scenario(
        "idle-is-not-hung",
        _GROUP,
        "nothing is running, so the token counter stands still",
        "not called hung",
        _idle_is_not_hung,
        settings={**_HUNG, "hung-action": "eject"},
    ),
)
