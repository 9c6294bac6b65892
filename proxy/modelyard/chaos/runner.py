"""Runs scenarios one after the other; whatever they start is stopped, however they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .proxy import ProxyProcess
from .scenario import Scenario, Surprise
from .stage import Stage


@dataclass(frozen=True, slots=True)
class Result:
    """How one scenario went."""

    name: str
    group: str
    fault: str
    expected: str
    happened: str
    passed: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "seconds": round(self.seconds, 2)}


async def run(scenarios: Sequence[Scenario]) -> AsyncGenerator[Result, None]:
    """One result for each scenario, as it ends. Closing the iterator stops everything."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="modelyard-chaos-")))
        proxies = _Proxies(directory)
        stack.push_async_callback(proxies.stop)
        for number, scenario in enumerate(scenarios):
            started = time.monotonic()
            passed, happened = await _play(scenario, proxies, f"{scenario.name}-{number}")
            yield Result(
                name=scenario.name,
                group=scenario.group,
                fault=scenario.fault,
                expected=scenario.expected,
                happened=happened,
                passed=passed,
                seconds=time.monotonic() - started,
            )


async def _play(scenario: Scenario, proxies: _Proxies, prefix: str) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(scenario.limit_s):
            proxy = await proxies.for_settings(scenario.settings, alone=scenario.own_proxy)
            stage = Stage(proxy, prefix)
            try:
                happened = await scenario.play(stage)
                await stage.aftermath()
            except BaseException:
                # what it left behind must not be laid at the next scenario's door
                proxies.forget(proxy)
                raise
            finally:
                await stage.close()
            if scenario.own_proxy:
                await proxies.end(proxy)
    except Surprise as exc:
        return False, str(exc)
    except TimeoutError:
        return False, f"not finished within {scenario.limit_s:g} s"
    except Exception as exc:
        # one scenario that cannot go on must not keep the others from running
        return False, f"the scenario could not go on: {type(exc).__name__}: {exc}"
    return True, happened


class _Proxies:
    """The proxies that run; scenarios with the same settings share one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shared: dict[tuple[tuple[str, str], ...], ProxyProcess] = {}
        self._all: list[ProxyProcess] = []

    async def for_settings(self, settings: Mapping[str, str], *, alone: bool) -> ProxyProcess:
        """A running proxy with these settings."""
        key = tuple(sorted(settings.items()))
        proxy = None if alone else self._shared.get(key)
        if proxy is None or not proxy.running:
            room = self._directory / str(len(self._all))
            room.mkdir()
            proxy = ProxyProcess(room, settings)
            self._all.append(proxy)
            await proxy.start()
            if not alone:
                self._shared[key] = proxy
        return proxy

    def forget(self, proxy: ProxyProcess) -> None:
        """Give this one to no other scenario."""
        self._shared = {key: other for key, other in self._shared.items() if other is not proxy}
        proxy.kill()

    async def end(self, proxy: ProxyProcess) -> None:
        """Stop one in good order."""
        await proxy.stop()

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(proxy.stop() for proxy in self._all))
