"""Replicas are killed, stopped, restarted and drained at random while 200 streams run."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from modelyard.chaos.proxy import ProxyProcess, until

from .storm import Disturber, EchoProcess, Load

SECONDS = float(os.environ.get("MODELYARD_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("MODELYARD_CHAOS_SEED", "1"))
CLIENTS = 200


@pytest.mark.timeout(SECONDS + 180)
async def test_no_request_is_lost_that_had_not_begun_to_stream(tmp_path: Path) -> None:
    replicas = [EchoProcess(f"storm.echo.{number}", tmp_path / f"{number}.log") for number in range(3)]
    proxy = ProxyProcess(tmp_path, {"probe-interval-s": "0.2", "probe-successes": "1"})
    disturber = Disturber(proxy, replicas, random.Random(SEED))
    load = Load(proxy, replicas)
    try:
        await asyncio.gather(*(replica.start() for replica in replicas))
        await proxy.start()
        disturber.write()
        for replica in replicas:
            await disturber.until_ready(replica)
        clients = asyncio.create_task(load.run(CLIENTS))
        try:
            await disturber.run(SECONDS)
            load.over.set()
            await clients
        finally:
            clients.cancel()

        async def idle() -> bool:
            rows = (await proxy.replicas()).values()
            return len(rows) == 3 and not any(row["in_flight"] for row in rows)

        await until(idle, "in-flight counts return to 0")
        assert await proxy.metric("modelyard_replica_in_flight") == 0
        assert proxy.running
        assert proxy.faults() == ""
    finally:
        for replica in replicas:
            replica.send(signal.SIGCONT)
            replica.kill()
            await replica.ended()
        await proxy.stop()
    assert [replica.log.read_text() for replica in replicas] == [""] * 3
    tally = load.tally
    print(f"{SECONDS:g} s, seed {SEED}: {dict(disturber.done)}; {tally.whole} streams whole, "
          f"{tally.broken} broken by a kill, {len(tally.lost)} lost, {len(tally.guiltless)} cut for no reason; "
          f"attempts {dict(sorted(tally.attempts.items()))}")  # fmt: skip
    assert tally.lost == []
    assert tally.guiltless == []
    assert tally.whole > CLIENTS
    assert disturber.done.total() > SECONDS / 3
