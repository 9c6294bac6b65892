"""A real HAProxy with the configuration of the role edge, in front of proxies that misbehave when told to."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
import signal
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from ansible_collections.modelyard.fleet.plugins.module_utils import generations
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view import look

from tests.tools.certificates import Authority
from tests.tools.edge_stage import Stage, haproxy
from tests.tools.ports import free_ports
from tests.tools.run_module import run_module

NAME = "edge.example"
CHAT = "/v1/chat/completions"
WAIT_S = 20


@dataclass
class Proxy:
    """Stands for a proxy. ``behaviour``: answer, wait (for ever), die (no byte), break (after a byte), stream
    (a piece for each release).
    """

    name: str
    port: int
    ready: int = 200
    behaviour: str = "answer"
    seen: list[web.BaseRequest] = field(default_factory=list)
    pieces: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/ready":
            return web.Response(status=self.ready)
        await request.read()
        self.seen.append(request)
        if self.behaviour == "wait":
            try:
                await self.pieces.get()
            except asyncio.CancelledError:
                self.left.set()
                raise
        if self.behaviour == "die":
            assert request.transport is not None
            request.transport.abort()
        if self.behaviour not in ("stream", "break"):
            return web.json_response({"by": self.name})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        if self.behaviour == "break":
            assert request.transport is not None
            # what was written is on its way before the connection breaks
            await asyncio.sleep(0.1)
            request.transport.abort()
            return response
        try:
            while piece := await self.pieces.get():
                await response.write(piece)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens; a request whose client leaves is cancelled, as with the real one."""
        runner = web.ServerRunner(web.Server(self, handler_cancellation=True), shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()


@dataclass
class Edge:
    """HAProxy in front of two proxies, and a client that trusts its certificate."""

    directory: Path
    stage: Stage
    process: asyncio.subprocess.Process
    client: aiohttp.ClientSession
    one: Proxy
    two: Proxy
    port: int
    local_port: int

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    async def local(self, path: str) -> str:
        try:
            async with self.client.get(f"http://127.0.0.1:{self.local_port}{path}") as response:
                return await response.text()
        except aiohttp.ClientError:
            return ""

    async def state(self, proxy: Proxy) -> str:
        """UP or DOWN, as HAProxy has it."""
        metrics = await self.local("/metrics")
        for state in ("UP", "DOWN"):
            if f'haproxy_server_status{{proxy="proxies",server="{proxy.name}",state="{state}"}} 1' in metrics:
                return state
        return "unknown"

    async def chat(self, path: str = CHAT, body: bytes = b"{}", **headers: str) -> tuple[int, Any, str]:
        """Status, answer, and the proxy that gave it."""
        async with self.client.post(self.url + path, data=body, headers=headers) as response:
            return (
                response.status,
                await response.json(),
                response.headers.get("X-Modelyard-Edge", "").partition("/")[2],
            )


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not await condition():
        assert time.monotonic() < end, f"not seen: {what}"
        await asyncio.sleep(0.05)


class Resolver(aiohttp.abc.AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:  # type: ignore[override]
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}  # type: ignore[typeddict-item]
        ]

    async def close(self) -> None:
        """Nothing is held."""


def connector(trusted: ssl.SSLContext | bool = False) -> aiohttp.TCPConnector:
    """Connections to this machine, whatever the name."""
    return aiohttp.TCPConnector(ssl=trusted, resolver=Resolver())


def configured(directory: Path, proxies: list[Proxy], port: int, local_port: int, **more: Any) -> Stage:
    """The role's configuration in a directory, as far as it can be had without root."""
    authority = Authority()
    issued = authority.issue(NAME)
    (directory / "ca.pem").write_text(authority.certificate)
    wish = {
        "edge_hosts": [{"name": "edge01", "address": "127.0.0.1"}],
        "edge_proxies": [{"name": one.name, "address": "127.0.0.1", "port": one.port} for one in proxies],
        "edge_certificates": [{"name": "main", "certificate": issued.certificate, "key": issued.key}],
        "edge_port": port,
        "edge_local_port": local_port,
        "edge_connections": 200,
        "edge_check_interval_s": 0.2,
        "__edge_run": str(directory),
    }
    stage = Stage(wish | more)
    write(stage, directory)
    return stage


def write(stage: Stage, directory: Path, generation: int = 7) -> None:
    platform = stage.value("__edge_platform")
    stage.write(
        directory,
        {
            f"    user {platform['user']}\n": f"    user {pwd.getpwuid(os.geteuid()).pw_name}\n",
            f"    group {platform['group']}\n": f"    group {grp.getgrgid(os.getegid()).gr_name}\n",
            f"    chroot {platform['chroot']}\n": "",
        },
        generation,
    )


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    program = haproxy()
    if program is None:
        pytest.skip("HAProxy is not here and cannot be fetched")
    first, second, port, local_port = free_ports(4)
    one, two = Proxy("proxy01", first), Proxy("proxy02", second)
    stage = configured(tmp_path, [one, two], port, local_port)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    async with AsyncExitStack() as stack:
        for proxy in (one, two):
            await stack.enter_async_context(proxy.running())
        process = await asyncio.create_subprocess_exec(
            *program.command,
            "-W",
            "-f",
            str(tmp_path / "haproxy.cfg"),
            stderr=stack.enter_context((tmp_path / "log").open("wb")),
        )
        stack.push_async_callback(process.wait)
        stack.callback(lambda: process.returncode is None and process.send_signal(signal.SIGTERM))
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector(trusted), timeout=aiohttp.ClientTimeout(total=WAIT_S))
        )
        made = Edge(tmp_path, stage, process, client, one, two, port, local_port)

        async def both_up() -> bool:
            assert process.returncode is None, (tmp_path / "log").read_text()
            return [await made.state(proxy) for proxy in (one, two)] == ["UP", "UP"]

        await until(both_up, "both proxies are ready")
        yield made


async def test_clients_cannot_say_where_they_come_from(edge: Edge) -> None:
    address = "203.0.113.9"
    told = {
        "X-Forwarded-For": address,
        "x-forwarded-host": "evil",
        "Forwarded": f"for={address}",
        "X-Real-IP": address,
    }
    assert (await edge.chat(**told))[0] == 200
    (request,) = edge.one.seen + edge.two.seen
    assert request.headers.getall("X-Forwarded-For") == ["127.0.0.1"]
    assert request.headers.getall("X-Forwarded-Proto") == ["https"]
    assert not {"x-forwarded-host", "forwarded", "x-real-ip"} & {name.lower() for name in request.headers}
    assert request.headers["Host"] == f"{NAME}:{edge.port}"


async def test_a_stream_comes_piece_by_piece_over_http_1_and_2(edge: Edge) -> None:
    for proxy in (edge.one, edge.two):
        proxy.behaviour = "stream"
    for version in ("--http1.1", "--http2"):
        curl = await asyncio.create_subprocess_exec(
            *["curl", version, "--silent", "--no-buffer", "--cacert", str(edge.directory / "ca.pem")],
            *["--resolve", f"{NAME}:{edge.port}:127.0.0.1", "--data", "{}", "--write-out", "%{http_version}"],
            edge.url + CHAT,
            stdout=subprocess.PIPE,
        )
        assert curl.stdout is not None
        async with asyncio.timeout(WAIT_S):
            assert await curl.stdout.readuntil(b"\n\n") == b"data: first\n\n"
            for piece in (b"data: second\n\n", b"data: third\n\n"):
                # the next is made only after this one has come
                for proxy in (edge.one, edge.two):
                    if len(proxy.seen) and proxy.seen[-1].transport is not None:
                        proxy.pieces.put_nowait(piece)
                assert await curl.stdout.readuntil(b"\n\n") == piece
            for proxy in (edge.one, edge.two):
                proxy.pieces.put_nowait(b"")
            assert (await curl.stdout.read()).decode() == {"--http1.1": "1.1", "--http2": "2"}[version]
            assert await curl.wait() == 0
        for proxy in (edge.one, edge.two):
            proxy.seen.clear()
            proxy.pieces = asyncio.Queue()


async def test_a_proxy_lost_before_its_first_byte_is_replaced_where_that_doubles_nothing(edge: Edge) -> None:
    edge.one.behaviour = "die"
    answers = [await edge.chat(path) for path in (CHAT, CHAT + "/", "/generate", "/tgi/m/generate", "/") * 4]
    assert {(status, by) for status, _, by in answers} == {(200, "proxy02")}
    assert edge.one.seen, "the lost proxy was asked"

    edge.two.behaviour = "die"
    # on a connection of its own: one that has served requests before is closed without a word, as HTTP has it
    async with (
        aiohttp.ClientSession(connector=connector()) as fresh,
        fresh.post(edge.url + "/v1/responses", data=b"{}") as response,
    ):
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "edge_proxy_lost"
    assert len([one for one in edge.one.seen + edge.two.seen if one.path == "/v1/responses"]) == 1


async def test_a_long_request_is_asked_again_too(edge: Edge) -> None:
    edge.one.behaviour = "die"
    body = b'{"prompt": "' + b"x" * 40_000 + b'"}'
    answers = [await edge.chat(body=body) for _ in range(6)]
    assert {(status, by) for status, _, by in answers} == {(200, "proxy02")}
    assert edge.one.seen


async def test_nothing_is_asked_again_after_a_byte(edge: Edge) -> None:
    edge.one.behaviour = edge.two.behaviour = "break"
    async with edge.client.post(edge.url + CHAT, data=b"{}") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert len(edge.one.seen + edge.two.seen) == 1


async def test_a_proxy_that_nobody_can_connect_to_costs_no_request(edge: Edge) -> None:
    async def gone() -> bool:
        return await edge.state(edge.one) == "DOWN"

    # its port is closed; whatever is sent, and before anybody has noticed
    edge.stage.variables["edge_proxies"][0]["port"] = free_ports(1)[0]
    write(edge.stage, edge.directory, 8)
    edge.process.send_signal(signal.SIGUSR2)

    async def reloaded() -> bool:
        return await edge.local("/generation") == "8"

    await until(reloaded, "the new configuration is in force")
    answers = [await edge.chat(path) for path in (CHAT, "/v1/responses", "/docker/deploy/") * 3]
    assert {(status, by) for status, _, by in answers} == {(200, "proxy02")}
    await until(gone, "the proxy is known to be away")


async def test_a_proxy_that_drains_keeps_its_streams_and_gets_no_new_requests(edge: Edge) -> None:
    edge.one.behaviour = edge.two.behaviour = "stream"
    async with edge.client.post(edge.url + CHAT, data=b"{}") as response:
        assert await response.content.readuntil(b"\n\n") == b"data: first\n\n"
        carrying, other = (edge.one, edge.two) if edge.one.seen else (edge.two, edge.one)
        carrying.ready = 503

        async def away() -> bool:
            return await edge.state(carrying) == "DOWN"

        await until(away, "the edge has noticed")
        other.behaviour = "answer"
        assert {(await edge.chat())[2] for _ in range(6)} == {other.name}
        carrying.pieces.put_nowait(b"data: second\n\n")
        assert await response.content.readuntil(b"\n\n") == b"data: second\n\n"
        carrying.pieces.put_nowait(b"")
        assert await response.content.read() == b""


async def test_without_a_proxy_clients_are_told_when_to_come_again(edge: Edge) -> None:
    edge.one.ready = edge.two.ready = 503

    async def none_left() -> bool:
        return [await edge.state(proxy) for proxy in (edge.one, edge.two)] == ["DOWN", "DOWN"]

    await until(none_left, "both are away")
    async with edge.client.post(edge.url + CHAT, data=b"{}") as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert (await response.json())["error"]["code"] == "edge_no_proxy"


async def test_a_reload_cuts_no_stream_and_refuses_no_request(edge: Edge) -> None:
    edge.one.behaviour = edge.two.behaviour = "stream"
    async with edge.client.post(edge.url + CHAT, data=b"{}") as response:
        assert await response.content.readuntil(b"\n\n") == b"data: first\n\n"
        carrying, other = (edge.one, edge.two) if edge.one.seen else (edge.two, edge.one)
        other.behaviour = carrying.behaviour = "answer"
        write(edge.stage, edge.directory, 8)
        edge.process.send_signal(signal.SIGUSR2)
        answered = 0
        async with asyncio.timeout(WAIT_S):
            while await edge.local("/generation") != "8" or answered < 20:
                async with (
                    aiohttp.ClientSession(connector=connector()) as fresh,
                    fresh.get(f"{edge.url}/v1/models") as found,
                ):
                    assert found.status == 200
                answered += 1
        carrying.pieces.put_nowait(b"data: second\n\n")
        assert await response.content.readuntil(b"\n\n") == b"data: second\n\n"


async def test_a_client_that_leaves_ends_its_request(edge: Edge) -> None:
    edge.one.behaviour = edge.two.behaviour = "wait"
    asking = asyncio.create_task(edge.chat())

    async def asked() -> bool:
        return bool(edge.one.seen or edge.two.seen)

    await until(asked, "a proxy has the request")
    asking.cancel()
    waiting = edge.one if edge.one.seen else edge.two
    async with asyncio.timeout(WAIT_S):
        await waiting.left.wait()

    for proxy in (edge.one, edge.two):
        proxy.behaviour = "stream"
        proxy.seen.clear()
        proxy.left.clear()
    response = await edge.client.post(edge.url + CHAT, data=b"{}")
    assert await response.content.readuntil(b"\n\n") == b"data: first\n\n"
    carrying = edge.one if edge.one.seen else edge.two
    response.close()
    async with asyncio.timeout(WAIT_S):
        await carrying.left.wait()


async def test_the_verbs_see_what_haproxy_does(edge: Edge) -> None:
    seen = await asyncio.to_thread(look.haproxy, edge.local_port, WAIT_S)
    up = {"proxy01": "up", "proxy02": "up"}
    assert seen == {"state": "up", "reason": "", "generation": 7, "proxies": up}
    edge.two.ready = 503

    async def one_left() -> bool:
        found = await asyncio.to_thread(look.haproxy, edge.local_port, WAIT_S)
        return dict(found["proxies"]) == up | {"proxy02": "down"}

    await until(one_left, "the second proxy is told to be down")
    sockets = look.sockets(Path("/proc"), edge.process.pid)
    assert {(one["address"], one["port"]) for one in sockets} == {
        ("127.0.0.1", edge.port),
        ("127.0.0.1", edge.local_port),
    }
    edge.process.send_signal(signal.SIGTERM)
    await edge.process.wait()
    gone = await asyncio.to_thread(look.haproxy, edge.local_port, WAIT_S)
    assert (gone["state"], gone["proxies"]) == ("down", {})
    assert "refused" in gone["reason"]


async def test_tls_that_is_too_old_is_noticed(edge: Edge) -> None:
    def spoken(minimum: str) -> str:
        found = look.older_tls("127.0.0.1", edge.port, minimum, WAIT_S)
        assert found["state"] != "unknown", found
        return f"{found['state']} {found['version']}".strip()

    assert await asyncio.to_thread(spoken, "TLSv1.2") == "refused"
    assert await asyncio.to_thread(spoken, "TLSv1.3") == "accepted TLSv1.2"

    path = edge.directory / "haproxy.cfg"
    text = path.read_text().replace("ssl-min-ver TLSv1.2", "ssl-min-ver TLSv1.0")
    ciphers = next(one for one in text.splitlines() if "ssl-default-bind-ciphers " in one)
    path.write_text(
        text.replace(ciphers, "    ssl-default-bind-ciphers ALL:@SECLEVEL=0").replace('"7"', '"8"')
    )

    async def reloaded() -> bool:
        # a master that has only just begun loses a signal
        edge.process.send_signal(signal.SIGUSR2)
        await asyncio.sleep(1)
        return await edge.local("/generation") == "8"

    await until(reloaded, "the new configuration is in force")

    async def told() -> bool:
        # the process before may still take a connection or two
        found = await asyncio.to_thread(look.older_tls, "127.0.0.1", edge.port, "TLSv1.2", WAIT_S)
        return (found["state"], found["version"]) == ("accepted", "TLSv1.1")

    await until(told, "TLS 1.1 is noticed")


def asked_of_systemd(directory: Path, pid: int) -> Path:
    """A ``systemctl`` that knows of the units what systemd says of them, HAProxy's with this process."""
    program = directory / "bin" / "systemctl"
    program.parent.mkdir()
    running = f"ActiveState=active\nUnitFileState=enabled\nMainPID={pid}"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' Id=modelyard-edge.service LoadState=loaded '{running}' '' "
        "Id=modelyard-edge-address.service LoadState=not-found ActiveState=inactive UnitFileState= MainPID=0\n"
    )
    program.chmod(0o755)
    return program.parent


async def test_the_module_looks_at_a_host_and_hands_out_no_secret(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "etc" / "haproxy"
    wished = {path: (edge.directory / path).read_bytes() for path in ("haproxy.cfg", "certificates/main.pem")}
    generations.take(root, wished, lambda _: None)
    monkeypatch.setenv("PATH", f"{asked_of_systemd(tmp_path, edge.process.pid)}:{os.environ['PATH']}")
    arguments = {"directory": str(tmp_path / "etc"), "own": "127.0.0.1", "listen": ["127.0.0.1"]}
    arguments |= {"port": edge.port, "local_port": edge.local_port}
    found = await asyncio.to_thread(run_module, "edge_facts", arguments)
    assert (found["changed"], found["problems"]) == (False, [])
    assert (found["haproxy"]["state"], found["haproxy"]["generation"]) == ("up", 7)
    assert (found["units"]["haproxy"]["active"], found["units"]["address"]["load"]) == ("active", "not-found")
    assert found["addresses"]["interface"] == "lo"
    assert found["tls"]["state"] == "refused"
    assert {one["port"] for one in found["listening"]} == {edge.port, edge.local_port}
    there = found["configurations"]["haproxy"]
    assert there["texts"] == {"haproxy.cfg": wished["haproxy.cfg"].decode()}
    assert there["open"] == []
    assert "PRIVATE KEY" not in json.dumps(found)

    # where systemd does not answer, what HAProxy listens on is not known, which is not nothing
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    blind = await asyncio.to_thread(run_module, "edge_facts", arguments)
    assert (blind["problems"], blind["units"], blind["listening"]) == (["systemctl: no bus"], {}, None)
