from __future__ import annotations

import asyncio
import time

from modelyard.gateway.wire.deadlines import Sweeper


class Item:
    def __init__(self, sweeper: Sweeper, most: int) -> None:
        self.sweeper = sweeper
        self.most = most
        self.seen: list[float] = []
        self.done = asyncio.Event()

    def check(self, now: float) -> None:
        self.seen.append(now)
        if len(self.seen) == self.most:
            self.sweeper.discard(self)
            self.done.set()


async def test_it_looks_again_and_again_until_there_is_nothing() -> None:
    sweeper = Sweeper(asyncio.get_running_loop(), 0.01)
    one, two = Item(sweeper, 1), Item(sweeper, 3)
    sweeper.watch(one)
    sweeper.watch(two)
    await two.done.wait()
    assert (len(one.seen), len(two.seen), len(sweeper)) == (1, 3, 0)
    # and begins anew with the next
    again = Item(sweeper, 1)
    sweeper.watch(again)
    await again.done.wait()
    assert len(one.seen) == 1


async def test_what_ends_another_is_not_followed_by_it() -> None:
    sweeper = Sweeper(asyncio.get_running_loop(), 0.01)
    checked: list[object] = []
    done = asyncio.Event()

    class Ending:
        def check(self, now: float) -> None:
            checked.append(self)
            asyncio.get_running_loop().call_soon(done.set)
            for item in items:
                sweeper.discard(item)

    items = [Ending(), Ending()]
    for item in items:
        sweeper.watch(item)
    await done.wait()
    assert len(checked) == 1


async def test_a_process_that_stood_still_reads_before_it_judges() -> None:
    loop = asyncio.get_running_loop()
    sweeper = Sweeper(loop, 0.05)
    item = Item(sweeper, 1)
    sweeper.watch(item)
    time.sleep(0.3)  # noqa: ASYNC251 - the loop stands still
    woke = loop.time()
    await item.done.wait()
    assert item.seen[0] - woke >= 0.04
