"""The lane through a real proxy: what it serves, what it hands over, and how connections go on."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import Server

from .conftest import Proxy, StartProxy, document, until
from .raw_engine import HELLO, RawEngine

CHAT = "/v1/chat/completions"
OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The protocols that aiohttp made, one for each connection that was handed to it."""
    made: list[object] = []
    original = Server.__call__

    def note(self: Server) -> object:
        made.append(original(self))
        return made[-1]

    monkeypatch.setattr(Server, "__call__", note)
    return made


def at(engine: RawEngine, name: str = "a", **more: Any) -> dict[str, Any]:
    return {"id": name, "url": engine.url, "engine": "vllm", **more}


def request(body: Any = None, path: str = CHAT, method: str = "POST", **headers: str) -> bytes:
    sent = body if isinstance(body, bytes) else json.dumps({"model": "m"} if body is None else body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(sent)}", "", ""]).encode() + sent


class Client:
    """A client that sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, proxy: Proxy) -> Client:
        host, port = proxy.url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(sent)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split()[1])
            headers = {name.lower(): value for name, value in re.findall(r"(?m)^([\w-]+): ([^\r\n]*)", head)}
            if headers.get("transfer-encoding") != "chunked":
                return status, headers, await self.reader.readexactly(int(headers["content-length"]))
            parts = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                parts.append((await self.reader.readexactly(size + 2))[:-2])
            await self.reader.readexactly(2)
            return status, headers, b"".join(parts)

    async def ended(self) -> bytes:
        async with asyncio.timeout(20):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


def hold(engine: RawEngine) -> asyncio.Event:
    """The next answer waits for the event."""
    gate = asyncio.Event()

    async def held(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(HELLO)

    engine.script.append(held)
    return gate


async def settled(proxy: Proxy) -> None:
    await until(lambda: proxy.gateway.lifecycle.active == 0, "no request is left")
    assert proxy.in_flight == 0


async def test_answers_are_those_of_aiohttp(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await start_proxy(
        document(m={"aliases": ["n"], "endpoints": [at(engine)]}),
        allowed_origins=("https://chat.example.org",),
    )
    answers = [
        HELLO,
        OK + b"Content-Type: application/json\r\nX-Keep: yes\r\nSet-Cookie: a=b\r\nServer: x\r\n"
        b"Access-Control-Allow-Origin: *\r\nX-Drop: 1\r\nConnection: x-drop\r\nVary: Accept\r\n"
        b"X-Modelyard-Replica: evil\r\nX-Odd: \x01\r\nContent-Length: 2\r\n\r\n{}",
        SSE + b"3;x=y\r\na\n\n\r\n2\r\nbc\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 400 Bad\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"\r\nuntil the end" + RawEngine.CLOSE,
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
    ]
    for answer in answers:
        seen = []
        for lane in (True, False):
            client = await Client.to(proxy)
            engine.script.append(answer)
            headers = {
                "X_Request_Id": "one",
                "Origin": "https://chat.example.org",
                "X_Forwarded_For": "1.1.1.1",
            }
            if not lane:
                # a header that changes nothing but the way
                headers["TE"] = "gzip"
            status, told, body = await client.ask(request({"model": "n"}, **headers))
            told.pop("date")
            if not lane:
                told.setdefault("content-type", "")
            seen.append((status, told, body))
            await client.close()
        first, second = seen
        first[1].setdefault("content-type", "application/octet-stream")
        assert first == second
    assert len(handed) == len(answers)
    lane_sent, others = engine.requests[0::2], engine.requests[1::2]
    for mine, theirs in zip(lane_sent, others, strict=True):
        assert sorted(mine[0].lower().splitlines()) == sorted(theirs[0].lower().splitlines())
        assert mine[1] == theirs[1]
    await settled(proxy)


async def test_one_connection_many_requests(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object]
) -> None:
    proxy = await start_proxy(document(m=[at(engine, served_name="big")]))
    client = await Client.to(proxy)
    for number in range(5):
        body = {"model": "m", "messages": [{"content": "x" * number * 7, "model": "m"}]}
        status, headers, answer = await client.ask(request(body))
        assert (status, answer, headers["x-modelyard-replica"]) == (200, b"hello", "a")
        assert json.loads(engine.requests[-1][1]) == {**body, "model": "big"}
    assert handed == []
    # what is not for the lane goes on with aiohttp, and so does all that follows on this connection
    assert (await client.ask(request({"model": "other"})))[0] == 404
    assert (await client.ask(request()))[0] == 200
    assert (await client.ask(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == 200
    assert len(handed) == 1
    assert engine.connections == 1
    await client.close()
    await settled(proxy)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n",
        request(path="/v1/chat/completions?x=1"),
        request(path="/v1/chat/completions/"),
        request(Connection="close"),
        request(Expect="100-continue"),
        request(Upgrade="h2c", Connection="Upgrade, HTTP2-Settings"),
        request(Transfer_Encoding="identity"),
        request(Content_Encoding="gzip"),
        request(Content_Length="14"),
        request(X_Odd="a\x01b"),
        request(X_Odd="a\r\n b"),
        request(X_Odd="a\nb: c"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"HTTP/1.1", b"HTTP/9.9"),
        request().replace(b"Host: x\r\n", b""),
        request().replace(b"Content-Length: ", b"Content-Length: +"),
        request().replace(b"Content-Length", b"Content Length"),
        request(b"[]"),
        request(b"{"),
        request(b""),
        request(b'{"model": 1}'),
        request(b'{"model": NaN}'),
        request({"model": "unknown"}),
        request({"model": "closed"}),
        request({"model": "embedder"}),
        request({"model": "empty"}),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        request(X_Long="x" * 20_000),
        request({"model": "m", "messages": "x" * 3_000_000}),
    ],
    ids=range(29),
)
async def test_what_is_left_to_aiohttp(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object], sent: bytes
) -> None:
    proxy = await start_proxy(
        document(
            m=[at(engine)],
            closed={"clients": ["alice"], "endpoints": [at(engine, "c")]},
            embedder={"task": "embed", "endpoints": [at(engine, "e")]},
            empty=[],
        )
    )
    client = await Client.to(proxy)
    # in pieces as in one: the same end
    for cut in (len(sent), 20, len(sent) - 1):
        one = await Client.to(proxy)
        one.writer.write(sent[:cut])
        await one.writer.drain()
        await asyncio.sleep(0.01)
        one.writer.write(sent[cut:])
        async with asyncio.timeout(20):
            assert (await one.reader.readline()).startswith(b"HTTP/1.")
        await one.close()
    assert handed
    await client.close()
    await settled(proxy)


async def test_pipelined_requests_are_answered_in_order(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object]
) -> None:
    proxy = await start_proxy(document(m=[at(engine)]))
    engine.script.extend([OK + b"Content-Length: 1\r\n\r\n%d" % number for number in range(4)])
    client = await Client.to(proxy)
    sent = request() * 4 + b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" + request()
    for begin in range(0, len(sent), 50):
        client.writer.write(sent[begin : begin + 50])
        await client.writer.drain()
    got = [(await client.answer())[2] for _ in range(6)]
    assert got == [b"0", b"1", b"2", b"3", b'{"status": "alive"}', b"hello"]
    assert len(handed) == 1
    await client.close()
    await settled(proxy)


async def test_too_much_sent_ahead_waits(start_proxy: StartProxy, engine: RawEngine) -> None:
    gate = hold(engine)
    proxy = await start_proxy(document(m=[at(engine)]))
    client = await Client.to(proxy)
    count = 2000
    sent = request({"model": "m", "x": "y" * 1000})
    client.writer.write(sent * count)
    await until(lambda: len(engine.requests) == 1, "the first is at the engine")
    (lane,) = proxy.server._lane.connections  # type: ignore[union-attr]
    await until(lambda: lane._paused, "reading has stopped")
    assert len(lane._ahead) < 2**20
    gate.set()
    for _ in range(count):
        assert (await client.answer())[2] == b"hello"
    await client.close()
    await settled(proxy)


async def test_a_client_that_leaves_frees_the_engine_at_once(
    start_proxy: StartProxy, engine: RawEngine
) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await engine.gone.wait()

    async def begun(writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + b"3\r\na\n\n\r\n")
        await engine.gone.wait()

    proxy = await start_proxy(document(m=[at(engine)]))
    for answer in (silent, begun):
        for half in (False, True):
            count = len(engine.requests)
            engine.script.append(answer)
            client = await Client.to(proxy)
            client.writer.write(request())
            await until(lambda before=count: len(engine.requests) == before + 1, "the engine works")  # type: ignore[misc]
            if answer is begun:
                await client.reader.readuntil(b"a\n\n\r\n")
            if half:
                client.writer.write_eof()
            else:
                client.writer.transport.abort()
            await settled(proxy)
            engine.hang_up()
            await client.close()
    assert 'status="499"} 4.0' in proxy.gateway.metrics.render().decode()


async def test_a_slow_reader_makes_the_engine_wait(start_proxy: StartProxy, engine: RawEngine) -> None:
    block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(SSE)
        for _ in range(800):
            writer.write(block)
            sent += 0x10000
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    engine.script.append(flood)
    proxy = await start_proxy(document(m={"timeouts": {"idle_s": 0.5}, "endpoints": [at(engine)]}))
    client = await Client.to(proxy)
    client.writer.write(request({"model": "m", "stream": True}))
    await until(lambda: sent > 0, "it streams")
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.3)
    # what is under way lies in the kernel; the proxy holds next to nothing
    (lane,) = proxy.server._lane.connections  # type: ignore[union-attr]
    assert sent < 30 * 2**20
    assert lane.transport.get_write_buffer_size() < 600_000
    await asyncio.sleep(1)
    assert sent == before
    assert proxy.gateway.lifecycle.active == 1, "silence of the client's making is no silence of the engine"
    status, _, body = await client.answer()
    assert (status, len(body)) == (200, 800 * 0x10000)
    await client.close()
    await settled(proxy)


async def test_a_request_that_does_not_end_is_given_up(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object]
) -> None:
    proxy = await start_proxy(document(m=[at(engine)]), body_timeout_s=0.4)
    whole = request()
    for part in (whole[:5], whole[:40], whole[:-1]):
        client = await Client.to(proxy)
        client.writer.write(part)
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["error"]["code"] == "body_timeout"
        assert await client.ended() == b""
        await client.close()
    assert handed == engine.requests == []
    # a client that leaves in the middle of its body is counted too
    client = await Client.to(proxy)
    client.writer.write(whole[:-1])
    await until(lambda: proxy.gateway.lifecycle.active == 1, "its head has come")
    client.writer.transport.abort()
    await settled(proxy)
    # the first two had not shown their whole head
    seen = proxy.gateway.tally.routes[(CHAT, "")]
    assert seen.statuses == {408: 1, 499: 1}


@pytest.mark.parametrize("between", [True, False])
async def test_a_broken_stream_is_not_ended_politely(
    start_proxy: StartProxy, engine: RawEngine, between: bool
) -> None:
    proxy = await start_proxy(document(m=[at(engine)]))
    event = b"data: 1\n\n" if between else b"data: 1\n\ndata: 2\n"
    engine.script.append(SSE + b"%x\r\n%b\r\n" % (len(event), event) + RawEngine.CLOSE)
    client = await Client.to(proxy)
    client.writer.write(request({"model": "m", "stream": True}))
    got = await client.ended()
    assert b"[DONE]" not in got
    assert not got.endswith(b"0\r\n\r\n")
    assert (b"upstream_broken" in got) is between
    text = proxy.gateway.metrics.render().decode()
    assert 'modelyard_broken_streams_total{model="m",replica="a"} 1.0' in text
    await client.close()
    await settled(proxy)


async def test_a_lying_length_is_not_ended_politely(start_proxy: StartProxy, engine: RawEngine) -> None:
    proxy = await start_proxy(document(m=[at(engine)]))
    engine.script.append(OK + b"Content-Length: 9\r\n\r\nabc" + RawEngine.CLOSE)
    client = await Client.to(proxy)
    client.writer.write(request())
    assert (await client.ended()).endswith(b"\r\n\r\nabc")
    await client.close()
    # longer than it says: the rest is nobody's answer
    engine.script.append(OK + b"Content-Length: 3\r\n\r\nabc" + HELLO)
    client = await Client.to(proxy)
    assert (await client.ask(request()))[2] == b"abc"
    engine.script.append(OK + b"Content-Length: 2\r\n\r\nme")
    assert (await client.ask(request()))[2] == b"me"
    await client.close()
    await settled(proxy)


async def test_what_was_tried_is_not_tried_again_by_handing_over(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object]
) -> None:
    proxy = await start_proxy(document(m=[at(engine)]))
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    engine.script.append(busy)
    client = await Client.to(proxy)
    status, headers, body = await client.ask(request(X_Request_Id="one"))
    assert (status, headers["retry-after"], headers["x-modelyard-request-id"]) == (503, "7", "one")
    error = json.loads(body)
    assert (error["error"]["code"], error["request_id"]) == ("upstream_unavailable", "one")
    assert (await client.ask(request()))[0] == 200, "the connection goes on"
    assert (len(engine.requests), handed) == (2, [])
    await client.close()
    await settled(proxy)


async def test_a_shutdown_lets_the_lane_finish(start_proxy: StartProxy, engine: RawEngine) -> None:
    gate = hold(engine)
    proxy = await start_proxy(document(m=[at(engine)]))
    idle, busy = await Client.to(proxy), await Client.to(proxy)
    assert (await idle.ask(request(path="/v1/completions", body={"model": "none"})))[0] == 404
    busy.writer.write(request())
    await until(lambda: len(engine.requests) == 1, "it runs")
    stopping = asyncio.create_task(proxy.server.stop())
    await until(lambda: proxy.gateway.lifecycle.draining, "it drains")
    gate.set()
    status, headers, _ = await busy.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert await busy.ended() == b""
    report = await stopping
    assert (report.running, report.cut) == (1, 0)
    assert await idle.ended() == b""
    for client in (idle, busy):
        await client.close()


async def test_a_shutdown_cuts_what_does_not_end(start_proxy: StartProxy, engine: RawEngine) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await engine.gone.wait()

    engine.script.append(silent)
    proxy = await start_proxy(document(m=[at(engine)]), shutdown_grace_s=0.1)
    client, idle = await Client.to(proxy), await Client.to(proxy)
    client.writer.write(request())
    await until(lambda: len(engine.requests) == 1, "it runs")
    report = await proxy.server.stop()
    assert (report.running, report.cut) == (1, 1)
    assert await client.ended() == await idle.ended() == b""
    await until(lambda: engine.open == 0, "the engine is told")
    for one in (client, idle):
        await one.close()


async def test_hash_policies_stick_in_the_lane(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object]
) -> None:
    other = await RawEngine().start()
    proxy = await start_proxy(
        document(m={"policy": "session_hash", "endpoints": [at(engine, "a"), at(other, "b")]})
    )
    client = await Client.to(proxy)
    for session in "abcdefgh":
        seen = {(await client.ask(request(X_Session_Id=session)))[1]["x-modelyard-replica"] for _ in range(3)}
        assert len(seen) == 1
    assert engine.requests
    assert other.requests
    assert handed == []
    await client.close()
    await other.stop()


async def test_the_access_log_has_a_line_for_each_request(
    start_proxy: StartProxy, engine: RawEngine, handed: list[object], tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    proxy = await start_proxy(document(m=[at(engine)]), access_log_file=log)
    client = await Client.to(proxy)
    await client.ask(request())
    await until(lambda: log.exists() and bool(log.read_text()), "it is logged")
    line = json.loads(log.read_text())
    told = ("route", "model", "status", "replica", "attempts", "bytes")
    assert [line[name] for name in told] == [CHAT, "m", 200, "a", 1, len(b"hello")]
    assert handed == []
    await client.close()


@pytest.mark.parametrize("path", [CHAT, CHAT + "?by=aiohttp"])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_a_first_event_that_comes_in_pieces_may_still_be_an_error(
    start_proxy: StartProxy, engine: RawEngine, monkeypatch: pytest.MonkeyPatch, path: str, end: bytes
) -> None:
    from modelyard.gateway import forward, in_band
    from modelyard.gateway.lane import run

    held: list[bytes] = []

    def looked_at(first: bytes) -> bool:
        held.append(first)
        return in_band.may_become_error(first)

    for module in (forward, run):
        monkeypatch.setattr(module, "may_become_error", looked_at)
    other = await RawEngine().start()
    try:
        proxy = await start_proxy(document(m={"endpoints": [at(engine, "a"), at(other, "b", tier=1)]}))
        pieces = [b'data: {"error": {"mess', b'age": "no room", "code": 503}}', end[:1], end[1:]]

        def in_pieces(seen: list[bytes]) -> Any:
            async def write(writer: asyncio.StreamWriter) -> None:
                writer.write(SSE)
                for piece in seen:
                    count = len(held)
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await until(lambda count=count: len(held) > count, "the piece was looked at")  # type: ignore[misc]
                writer.write(b"0\r\n\r\n")

            return write

        client = await Client.to(proxy)
        sent = request({"model": "m", "stream": True}, path)
        # what is no error comes whole, also where the stream ends inside of it
        for seen in ([b'data: {"a', b'": 1}\n', b"\n"], [b'data: {"a', b'": 1}']):
            engine.script.append(in_pieces(seen))
            status, headers, body = await client.ask(sent)
            assert (status, headers["x-modelyard-replica"], body) == (200, "a", b"".join(seen))
        engine.script.append(in_pieces(pieces))
        status, headers, body = await client.ask(sent)
        assert (status, body) == (200, b"hello")
        assert (headers["x-modelyard-replica"], headers["x-modelyard-attempts"]) == ("b", "2")
        await client.close()
        await settled(proxy)
    finally:
        await other.stop()


async def test_a_stream_under_a_500_that_begins_with_an_error_goes_elsewhere(
    start_proxy: StartProxy, engine: RawEngine
) -> None:
    head = SSE.replace(b"200 OK", b"500 Internal Server Error")
    event = b'data: {"error": {"message": "no room", "code": 503}}\n\n'
    more = b"data: {}\n\n"

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (event, more)))
        await writer.drain()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(more), more))

    other = await RawEngine().start()
    try:
        proxy = await start_proxy(document(m={"endpoints": [at(engine, "a"), at(other, "b", tier=1)]}))
        engine.script.append(write)
        client = await Client.to(proxy)
        status, headers, body = await client.ask(request({"model": "m", "stream": True}))
        assert (status, headers["x-modelyard-replica"], body) == (200, "b", b"hello")
        await client.close()
    finally:
        await other.stop()
