"""Replicas that come, go, drain and expire while requests run, and registries that are damaged."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from .. import answers, faults
from ..client import Client
from ..engine import Engine, Exchange, Script
from ..faults import good
from ..proxy import until
from ..scenario import Scenario, expect
from ..stage import CHAT, Stage
from .acts import expect_right, expect_service

_GROUP = "fleet"
# streams are held here on purpose, for as long as a scenario takes
_PATIENT = {"first_byte_s": 20, "idle_s": 20}


def _held(gate: asyncio.Event) -> Script:
    """Streams stop after their first event until ``gate`` opens; plain requests are answered."""

    async def script(x: Exchange) -> None:
        if not x.heard.streamed:
            await good(x)
            return
        first, *others = answers.events(x.heard.prompt)
        await x.send(answers.head(200, answers.EVENT_STREAM, answers.CHUNKED) + answers.chunk(first))
        await gate.wait()
        await x.send(b"".join(map(answers.chunk, others)) + answers.LAST_CHUNK)

    return script


class _Streams:
    """Streams that have begun and are held."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._running: list[tuple[str, Client]] = []

    async def begin(self, count: int) -> None:
        """Start ``count`` of them and see the first event of each."""
        for _ in range(count):
            prompt = self._stage.prompt()
            client = await self._stage.asking(prompt)
            await client.begin()
            expect(await client.more(), f"a stream did not begin: {client.answer.told()}")
            self._running.append((prompt, client))

    async def finish(self) -> int:
        """Read all to the end; each must be whole. How many there were."""
        for prompt, client in self._running:
            async with client:
                expect_right(await client.rest(), prompt, stream=True, who="a running stream")
        return len(self._running)


async def _spared(stage: Stage, one: Engine, state: str, count: int) -> None:
    """Send ``count`` requests, none of which may fail or reach ``one``."""
    before = len(one.heard)
    for _ in range(count):
        prompt = stage.prompt()
        expect_right(await stage.ask(prompt), prompt, stream=False)
    expect(len(one.heard) == before, f"a replica that is {state} got a new request")


async def _drains(stage: Stage) -> str:
    gate = asyncio.Event()
    one, other = await stage.cast(_held(gate), 2, timeouts=_PATIENT)
    streams = _Streams(stage)
    await streams.begin(8)
    expect(one.heard, "no stream runs on the replica that is to drain")
    entry = stage.entry([one, other], timeouts=_PATIENT)
    entry["endpoints"][0]["state"] = "draining"
    await stage.serve({stage.model: entry})
    await _spared(stage, one, "draining", 9)
    gate.set()
    count = await streams.finish()
    return f"{count} streams whole, 9 new requests all on the other replica"


async def _drained_by_hand(stage: Stage) -> str:
    gate = asyncio.Event()
    one, _ = await stage.cast(_held(gate), 2, timeouts=_PATIENT)
    streams = _Streams(stage)
    await streams.begin(4)
    expect(one.heard, "no stream runs on the replica that is to drain")
    answer = await stage.proxy.post(f"/admin/replicas/{one.name}/drain", {})
    expect(answer.status == 200, f"draining it: {answer.told()}")
    await _spared(stage, one, "drained", 6)
    stage.proxy.write({stage.model: stage.entry(stage.engines, timeouts=_PATIENT)})
    await _spared(stage, one, "drained", 4)
    gate.set()
    count = await streams.finish()
    answer = await stage.proxy.post(f"/admin/replicas/{one.name}/undrain", {})
    expect(answer.status == 200, f"taking it back: {answer.told()}")
    before = len(one.heard)
    await expect_service(stage, 20)
    expect(len(one.heard) > before, "a replica that was taken back gets no request")
    return f"{count} streams whole, 10 new requests all on the other replica, then both again"


async def _removed(stage: Stage) -> str:
    gate = asyncio.Event()
    one, other = await stage.cast(_held(gate), 2, timeouts=_PATIENT)
    streams = _Streams(stage)
    await streams.begin(8)
    expect(one.heard, "no stream runs on the replica that is to go")
    await stage.serve({stage.model: stage.entry([other], timeouts=_PATIENT)})
    await _spared(stage, one, "removed", 4)
    gate.set()
    return f"{await streams.finish()} streams whole, 4 new requests all on the other replica"


async def _expires(stage: Stage) -> str:
    gate = asyncio.Event()
    one, other = await stage.start(_held(gate), 2)
    entry = stage.entry([one, other], timeouts=_PATIENT)
    ends = datetime.now(UTC) + timedelta(seconds=2)
    entry["endpoints"][0]["expires_at"] = ends.isoformat()
    await stage.serve({stage.model: entry})
    streams = _Streams(stage)
    await streams.begin(2)
    await stage.until_state(one, "expired")
    await _spared(stage, one, "expired", 6)
    gate.set()
    return f"{await streams.finish()} streams whole, 6 new requests on the one that has not expired"


async def _damaged(stage: Stage) -> str:
    """What is written is half a file, garbage, invalid, or older than what is in force."""
    engines = await stage.cast(good, 2)
    models = {stage.model: stage.entry(engines)}
    whole = json.dumps({"version": 1, "generation": stage.proxy.generation + 1, "models": models})
    older = json.dumps({"version": 1, "generation": 0, "models": {}})
    bad_url = whole.replace("http://127", "gopher://127")
    damaged = (whole[: len(whole) // 2], "", "\0\xff{{{", "[]", bad_url, older, whole.replace("vllm", "none"))
    for text in damaged:
        in_force = await stage.proxy.in_force()
        stage.proxy.write_raw(text)

        async def noticed() -> bool:
            return not (await stage.proxy.registry_status())["in_step"]

        await until(noticed, f"the damage is visible: {text[:30]!r}")
        expect(await stage.proxy.in_force() == in_force, "a damaged registry was taken")
        await expect_service(stage, 2)
        await stage.serve(models)
    stage.proxy.registry.unlink()
    await expect_service(stage, 2)
    await stage.serve(models)
    await expect_service(stage, 2)
    return f"{len(damaged)} damaged files refused and one deleted; the last good one stayed in force"


async def _falls_back(stage: Stage) -> str:
    broken = await stage.start(faults.answer(503), 2)
    working = await stage.start(good, 1)
    spare = f"{stage.model}-spare"
    await stage.serve({stage.model: stage.entry(broken, fallbacks=[spare]), spare: stage.entry(working)})
    for stream in (False, True):
        prompt = stage.prompt()
        answer = await stage.ask(prompt, stream=stream)
        expect_right(answer, prompt, stream=stream)
        expect(answer.replica == working[0].name, f"answered by {answer.replica}")
    return "answered by the fallback's replica"


async def _stops_in_order(stage: Stage) -> str:
    gate = asyncio.Event()
    await stage.cast(_held(gate), 2, timeouts=_PATIENT)
    streams = _Streams(stage)
    await streams.begin(6)
    stage.proxy.terminate()

    async def closed() -> bool:
        try:
            async with await Client.connect(stage.proxy.port):
                return False
        except OSError:
            return True

    await until(closed, "the port is closed")
    gate.set()
    count = await streams.finish()
    code = await stage.proxy.stop()
    report = stage.proxy.report
    expect(code == 0, f"its exit code is {code}")
    expect(report.get("cut") == 0 and report.get("running") == count, f"it reported {report}")
    return f"{count} streams whole, then exit code 0 and a report of {count} running and none cut"


async def _reloads(stage: Stage) -> str:
    """Forty reloads while streams run and requests come: replicas come and go, those that stay are the same."""
    gate = asyncio.Event()
    engines = await stage.cast(_held(gate), 3, timeouts=_PATIENT)
    guests = await stage.start(good, 2)
    streams = _Streams(stage)
    await streams.begin(6)
    async with await Client.connect(stage.proxy.port) as client:
        for number in range(40):
            entry = stage.entry([*engines, guests[number % 2]], timeouts=_PATIENT)
            entry["endpoints"][0]["weight"] = 1 + number % 3
            stage.proxy.write({stage.model: entry})
            prompt = stage.prompt()
            await client.post(CHAT, stage.body(prompt))
            expect_right(await client.rest(), prompt, stream=False)
    await stage.serve({stage.model: stage.entry(engines, timeouts=_PATIENT)})
    counted = await stage.proxy.metric("modelyard_replica_in_flight")
    expect(counted == 6, f"6 streams run, {counted:.0f} are counted after the reloads")
    gate.set()
    return f"{await streams.finish()} streams whole and counted, 40 requests answered"


SCENARIOS = (
    Scenario(
        "drains",
        _GROUP,
        "a replica is set to draining while streams run on it",
        "its streams finish, new requests go elsewhere",
        _drains,
    ),
    Scenario(
        "drained-by-hand",
        _GROUP,
        "the operator drains a replica while streams run on it, and takes it back",
        "its streams finish, new requests go elsewhere until it is back",
        _drained_by_hand,
    ),
    Scenario(
        "removed",
        _GROUP,
        "a replica leaves the registry while streams run on it",
        "its streams finish, new requests go elsewhere",
        _removed,
    ),
    Scenario(
        "expires",
        _GROUP,
        "a replica's expires_at passes while a stream runs on it",
        "its stream finishes, new requests go elsewhere",
        _expires,
    ),
    Scenario(
        "reloads", _GROUP, "the registry changes forty times while streams run", "nothing notices", _reloads
    ),
    Scenario(
        "damaged-registry",
        _GROUP,
        "the registry is half written, garbage, invalid, older, or gone",
        "refused whole and visibly; the last good one serves on",
        _damaged,
    ),
    Scenario(
        "falls-back",
        _GROUP,
        "all replicas of a model fail, and it has a fallback",
        "the fallback answers",
        _falls_back,
    ),
    Scenario(
        "stops-in-order",
        _GROUP,
        "the proxy gets SIGTERM while streams run",
        "the port closes, streams finish, exit code 0",
        _stops_in_order,
        own_proxy=True,
    ),
)
