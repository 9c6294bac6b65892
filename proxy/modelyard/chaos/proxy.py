"""The real proxy as a child process, driven from outside only: its command, its registry file, its HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from modelyard.settings import settings_table

from .client import Answer, Client
from .scenario import Surprise

# what makes the proxy quick to notice; probes come when a scenario asks for them
_SETTINGS: Mapping[str, str] = {
    "port": "0",
    "host": "127.0.0.1",
    "log-level": "info",
    "registry-poll-s": "0.05",
    "probe-interval-s": "3600",
    "body-timeout-s": "1",
    "shutdown-grace-s": "10",
    # scenarios share a proxy, and most of them make it retry in vain
    "retry-budget-percent": "1000",
}
_FAULT = re.compile(r"Traceback \(most recent|never retrieved|never awaited|Unclosed|Exception ignored")
_START_S = 30.0
_STEP_S = 0.02


async def until(
    condition: Callable[[], Awaitable[bool]] | Callable[[], bool], what: str, limit_s: float = 8.0
) -> None:
    """Wait for ``condition``. Raises ``Surprise`` with ``what`` when it does not come."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit_s
    while True:
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return
        if loop.time() > end:
            raise Surprise(f"not seen within {limit_s:g} s: {what}")
        await asyncio.sleep(_STEP_S)


class ProxyProcess:
    """One ``modelyard serve``. ``directory`` is its own: registry, key and log lie there."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.registry = directory / "endpoints.json"
        self.generation = 0
        self.port = 0
        self.report: dict[str, Any] = {}
        self.told_to_stop = False
        self._settings = {**_SETTINGS, **settings}
        self._log = directory / "log"
        self._log_seen = 0
        self._key = directory / "key"
        self._secret = secrets.token_urlsafe(32)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id."""
        if self._process is None:
            raise Surprise("the proxy was not started")
        return self._process.pid

    async def start(self) -> None:
        """Run it. Raises ``Surprise`` with its last words when it does not come up."""
        self._key.write_text(self._secret + "\n", encoding="utf-8")
        self._key.chmod(0o600)
        self.write({})
        arguments = [f"--{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "modelyard",
                "serve",
                "--json",
                f"--registry={self.registry}",
                f"--admin-key-file={self._key}",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.registry.parent,
                env=_environment(),
                # Ctrl-C is for the suite, which then stops its proxies itself
                start_new_session=True,
            )
        said = await self._line(_START_S)
        if not said:
            raise Surprise(f"the proxy did not start: {self.last_words()}")
        self.port = int(str(said["url"]).rpartition(":")[2])

    async def stop(self, limit_s: float = 15.0) -> int:
        """SIGTERM, and SIGKILL where that does not help in time; its exit code.

        One that has been told already is not told again: that would hurry it, or come when it hears no signals any more.
        """
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            if not self.told_to_stop:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            try:
                self.report = await self._line(limit_s)
                async with asyncio.timeout(limit_s):
                    return await process.wait()
            except TimeoutError:
                self.kill()
        return await process.wait()

    def terminate(self) -> None:
        """SIGTERM alone, for scenarios that look at what follows."""
        self.told_to_stop = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def write(self, models: Mapping[str, Any]) -> int:
        """Write a registry of the next generation, as a deployment does; the generation."""
        self.generation += 1
        self.write_raw(json.dumps({"version": 1, "generation": self.generation, "models": models}))
        return self.generation

    def write_raw(self, text: str) -> None:
        """Replace the registry file in one step, whatever ``text`` is."""
        fresh = self.registry.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.registry)

    async def get(self, path: str) -> Answer:
        """One GET with the management key, on a connection of its own."""
        async with await Client.connect(self.port) as client:
            return await client.get(path, {"Authorization": f"Bearer {self._secret}", "Connection": "close"})

    async def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """One POST with the management key, on a connection of its own."""
        async with await Client.connect(self.port) as client:
            await client.post(path, body, headers={"Authorization": f"Bearer {self._secret}"})
            return await client.rest()

    async def replicas(self) -> dict[str, dict[str, Any]]:
        """``/admin/replicas`` by replica id."""
        answer = await self.get("/admin/replicas")
        if answer.status != 200:
            raise Surprise(f"/admin/replicas: {answer.told()}")
        return {row["id"]: row for row in json.loads(answer.body)["replicas"]}

    async def registry_status(self) -> dict[str, Any]:
        """``/admin/registry``: the generation in force, and why a newer file was refused."""
        return dict(json.loads((await self.get("/admin/registry")).body))

    async def in_force(self) -> int:
        """The generation of the registry in force."""
        return int((await self.registry_status())["generation"])

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels; 0 where there are none."""
        total = 0.0
        for line in (await self.get("/metrics")).body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(
                f'{label}="{wanted}"' in series for label, wanted in labels.items()
            ):
                total += float(value)
        return total

    def resident(self) -> int:
        """Its resident memory in bytes. Linux only; 0 elsewhere."""
        with suppress(OSError):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        return 0

    def faults(self) -> str:
        """What looks like a fault of the proxy's own in the log since the last call; empty: nothing."""
        data = self._log.read_bytes()
        fresh, self._log_seen = data[self._log_seen :].decode(errors="replace"), len(data)
        found = _FAULT.search(fresh)
        return fresh[max(0, found.start() - 300) : found.end() + 2000] if found else ""

    def last_words(self) -> str:
        """The end of its log, in one line."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        bare = [line.strip(" ─│╭╮╰╯") for line in lines[-8:]]
        return " / ".join(line for line in bare if line)[-600:]

    async def _line(self, limit_s: float) -> dict[str, Any]:
        """The next JSON line on its standard output; empty where it ends or does not come."""
        if self._process is None or self._process.stdout is None:
            return {}
        with suppress(TimeoutError, ValueError):
            async with asyncio.timeout(limit_s):
                return dict(json.loads(await self._process.stdout.readline()))
        return {}


def _environment() -> dict[str, str]:
    """The environment of this process without anything that the proxy would take as a setting."""
    ours = {row.env for row in settings_table()}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("MODELYARD_", "TGI_"))
    }
