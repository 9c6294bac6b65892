from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
from click.testing import CliRunner

from modelyard.chaos import answers, faults
from modelyard.chaos.client import Answer, Client
from modelyard.chaos.engine import Engine, Script
from modelyard.chaos.runner import Result
from modelyard.chaos.scenarios import SCENARIOS
from modelyard.chaos.scenarios.acts import outcome
from modelyard.cli.chaos import choose, render, summary
from modelyard.cli.main import main

PATH = "/v1/chat/completions"
Ask = Callable[..., Coroutine[Any, Any, Answer]]


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = await Engine(faults.good).start()
    yield engine
    await engine.stop()


@pytest.fixture
def ask(engine: Engine) -> Ask:
    async def ask(script: Script, *, stream: bool = True, chunked: bool = False) -> Answer:
        engine.script = script
        async with await Client.connect(engine.port) as client:
            await client.post(PATH, body(stream=stream), chunked=chunked)
            return await client.rest()

    return ask


def body(*, stream: bool = False) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"}], "stream": stream}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_good_engine_gives_a_right_answer(ask: Ask, stream: bool, chunked: bool) -> None:
    answer = await ask(faults.good, stream=stream, chunked=chunked)
    assert outcome(answer, "hello", stream=stream) == "right"
    assert outcome(answer, "somebody else's", stream=stream) == "wrong"


async def test_a_kept_connection_carries_the_next_request(engine: Engine) -> None:
    async with await Client.connect(engine.port) as client:
        for stream in (False, True, False):
            await client.post(PATH, body(stream=stream))
            assert outcome(await client.rest(), "hello", stream=stream) == "right"
    assert [item.connection for item in engine.heard] == [1, 1, 1]


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_what_ends_too_early_is_seen_as_cut(ask: Ask, then: str) -> None:
    answer = await ask(faults.streams(2, then))
    assert (answer.status, answer.whole) == (200, False)
    assert answer.body == b"".join(answers.events("hello")[:2])
    assert outcome(answer, "hello", stream=True) == "cut"


async def test_too_few_bytes_are_seen_as_cut(ask: Ask) -> None:
    answer = await ask(faults.says(answers.head(200, "Content-Length: 10") + b"12345"))
    assert (answer.body, answer.whole) == (b"12345", False)


@pytest.mark.parametrize("script", [faults.reset, faults.says(b"HTTP/1.1 2"), faults.die])
async def test_no_answer_is_no_answer(ask: Ask, script: Script) -> None:
    answer = await ask(script)
    assert (answer.status, answer.told()) == (0, "no answer")


async def test_a_dead_engine_refuses_and_comes_back_on_its_port(engine: Engine, ask: Ask) -> None:
    port = engine.port
    await ask(faults.die)
    with pytest.raises(ConnectionError):
        await Client.connect(port)
    await engine.start()
    assert engine.port == port
    assert (await ask(faults.good)).whole


async def test_a_deaf_engine_resets_every_connection(engine: Engine, ask: Ask) -> None:
    engine.deaf = True
    # where the reset overtakes the request, sending fails; else there is no answer
    with suppress(ConnectionError):
        assert not (await ask(faults.good)).status
    assert engine.heard == []


async def test_a_hanging_engine_notes_when_its_client_leaves(engine: Engine) -> None:
    engine.script = faults.hang
    client = await Client.connect(engine.port)
    await client.post(PATH, body())
    async with asyncio.timeout(10):
        while not engine.heard:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert engine.heard[0].gone_at is None
        client.leave()
        while engine.heard[0].gone_at is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_faults_are_played_once_each(ask: Ask) -> None:
    script = faults.first(faults.reset, faults.answer(503, "Retry-After: 7"))
    assert [(await ask(script)).status for _ in range(4)] == [0, 503, 200, 200]


async def test_probes_and_metrics(engine: Engine) -> None:
    engine.health = lambda: 503
    engine.metrics = lambda: "x 1\n"
    for path, status, text in (("/health", 503, b""), ("/v1/models", 200, b""), ("/metrics", 200, b"x 1\n")):
        async with await Client.connect(engine.port) as client:
            answer = await client.get(path)
            assert (answer.status, answer.body) == (status, text)
    assert engine.heard == []


def error(status: int = 502, **more: Any) -> Answer:
    text = json.dumps({"error": {"code": "upstream_broken"}}).encode()
    return Answer(status=status, body=text, whole=True, **more)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(), "error"),
        (Answer(status=502, body=b"<html>", whole=True), "wrong"),
        (Answer(status=200, body=b"".join(answers.events("p")), whole=True), "right"),
        (Answer(status=200, body=b"".join(answers.events("p")[:2]), whole=True), "wrong"),
        (Answer(status=200, body=b"".join(answers.events("p")[:2])), "cut"),
        (Answer(status=200, body=answers.events("p")[0] + b'data: {"error": 1}\n\n', whole=True), "cut"),
        (Answer(status=200, body=answers.events("q")[0]), "wrong"),
    ],
)
def test_outcomes(answer: Answer, expected: str) -> None:
    assert outcome(answer, "p", stream=True) == expected


def test_what_an_answer_tells() -> None:
    answer = error(headers={"x-modelyard-attempts": "2"})
    assert (answer.code, answer.attempts) == ("upstream_broken", 2)
    assert answer.told() == f"502 upstream_broken, {len(answer.body)} bytes"
    assert Answer(status=200, body=b"ab").told() == "200, 2 bytes, cut short"


def test_scenarios_have_names_that_can_be_typed_and_say_all() -> None:
    names = [item.name for item in SCENARIOS]
    assert len(set(names)) == len(names)
    assert not set(names) & {item.group for item in SCENARIOS}
    for item in SCENARIOS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", item.name)
        assert item.fault
        assert item.expected


def test_choosing() -> None:
    assert choose(()) == SCENARIOS
    assert [item.name for item in choose(("stalls", "hangs"))] == ["hangs", "stalls"]
    assert {item.group for item in choose(("lies",))} == {"lies"}
    done = CliRunner().invoke(main, ["chaos", "--only", "stals"])
    assert done.exit_code == 2
    assert "stalls" in done.output


def test_the_list() -> None:
    done = CliRunner().invoke(main, ["chaos", "--list", "--json", "--only", "streams"])
    assert [row["name"] for row in json.loads(done.output)] == [
        item.name for item in SCENARIOS if item.group == "streams"
    ]


def test_the_table_says_what_failed() -> None:
    results = [
        Result(name, "g", "fault [x]", "expected", "happened", passed, 1.0)
        for name, passed in (("one", True), ("two", False))
    ]
    table = render(results)
    assert [str(cell) for cell in table.columns[4].cells] == ["pass", "FAIL"]
    assert summary(results).plain == "1 of 2 scenarios failed: two."
    assert summary(results[:1]).plain == "All 1 scenarios passed, in 1 s."
