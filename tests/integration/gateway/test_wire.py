"""The transport alone, against engines made of bytes."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from multidict import CIMultiDict

from modelyard.errors import (
    BodyTimeoutError,
    ConfigError,
    UpstreamBrokenError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeoutError,
)
from modelyard.gateway.upstream import UpstreamRequest, whole
from modelyard.gateway.wire.pool import tls_context
from modelyard.gateway.wire.transport import WireTransport
from modelyard.registry.model import Timeouts

from .conftest import until
from .raw_engine import HELLO, RawEngine

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def wire() -> AsyncIterator[WireTransport]:
    async with WireTransport() as transport:
        yield transport
        assert len(transport.pool.sweeper) <= 1, "no exchange is left"


def ask(engine: RawEngine, body: bytes | AsyncIterator[bytes] = b"{}", **more: object) -> UpstreamRequest:
    limits = Timeouts(**{"connect_s": 20, "first_byte_s": 20, "idle_s": 20, **more.pop("timeouts", {})})  # type: ignore[dict-item]
    return UpstreamRequest(
        url=engine.url + "/v1/x", headers=CIMultiDict({"A": "b"}), body=body, timeouts=limits, **more
    )  # type: ignore[arg-type]


async def get(wire: WireTransport, request: UpstreamRequest) -> tuple[int, bytes]:
    async with wire.open(request) as response:
        return response.status, await whole(response)


async def test_one_connection_serves_one_request_after_the_other(
    wire: WireTransport, engine: RawEngine
) -> None:
    engine.script.extend(
        [HELLO, OK + b"Transfer-Encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n"]
    )
    for _ in range(3):
        assert await get(wire, ask(engine)) == (200, b"hello")
    assert engine.connections == 1
    head, body = engine.requests[0]
    assert body == b"{}"
    assert head.splitlines() == [
        b"POST /v1/x HTTP/1.1",
        b"Host: 127.0.0.1:%d" % engine.port,
        b"A: b",
        b"Content-Length: 2",
        b"",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        HELLO + b"x",
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Keep-Alive: timeout=0\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"\r\nhello" + RawEngine.CLOSE,
        HELLO + RawEngine.CLOSE,
    ],
)
async def test_what_is_not_used_again(wire: WireTransport, engine: RawEngine, answer: bytes) -> None:
    engine.script.append(answer)
    assert await get(wire, ask(engine)) == (200, b"hello")
    await until(lambda: wire.pool.idle_count() == 0, "it is not kept")
    assert await get(wire, ask(engine)) == (200, b"hello")
    assert engine.connections == 2


async def test_an_answer_that_nobody_asked_for_is_not_the_next_one(
    wire: WireTransport, engine: RawEngine
) -> None:
    async def twice(writer: asyncio.StreamWriter) -> None:
        writer.write(HELLO)
        await writer.drain()
        await until(lambda: wire.pool.idle_count() == 1, "the first is taken")
        writer.write(HELLO.replace(b"hello", b"evil!"))

    engine.script.append(twice)
    assert await get(wire, ask(engine)) == (200, b"hello")
    await until(lambda: engine.open == 0, "the connection is closed")
    assert await get(wire, ask(engine)) == (200, b"hello")


async def test_a_connection_closed_while_idle_is_replaced(wire: WireTransport, engine: RawEngine) -> None:
    assert await get(wire, ask(engine)) == (200, b"hello")
    engine.script.append(RawEngine.CLOSE)
    assert await get(wire, ask(engine)) == (200, b"hello")
    assert (engine.connections, len(engine.requests)) == (2, 3)
    engine.script.extend([RawEngine.CLOSE, RawEngine.CLOSE])
    with pytest.raises(UpstreamBrokenError, match="closed the connection without an answer"):
        await get(wire, ask(engine))
    engine.hang_up()
    await until(lambda: wire.pool.idle_count() == 0, "closed while idle")


async def test_an_idle_connection_ages_out(wire: WireTransport, engine: RawEngine) -> None:
    engine.script.append(OK + b"Keep-Alive: timeout=1\r\nContent-Length: 5\r\n\r\nhello")
    await get(wire, ask(engine))
    assert wire.pool.idle_count() == 1
    await until(lambda: engine.open == 0, "it is closed by us")
    assert (wire.pool.idle_count(), len(wire.pool.sweeper)) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (RawEngine.CLOSE, "without an answer"),
        (b"HTTP/1.1 2" + RawEngine.CLOSE, "without an answer"),
        (b"SSH-2.0-x\r\n", "answered with something that is not HTTP"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "answered with something that is not"),
        (OK + b"Content-Length: 5\r\n\r\nhell" + RawEngine.CLOSE, "before its answer was whole"),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n" + RawEngine.CLOSE,
            "before its answer was whole",
        ),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nx\r\n",
            "went on with something that is not HTTP",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + RawEngine.CLOSE, "without an answer"),
    ],
)
async def test_answers_that_break(wire: WireTransport, engine: RawEngine, answer: bytes, said: str) -> None:
    engine.script.append(answer)
    with pytest.raises(UpstreamBrokenError, match=said):
        await get(wire, ask(engine))


async def test_interim_answers_are_skipped(wire: WireTransport, engine: RawEngine) -> None:
    engine.script.append(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO)
    assert await get(wire, ask(engine)) == (200, b"hello")


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


def saying(begun: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await silent(writer)

    return answer


LONG = OK + b"Content-Length: 9\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "timeouts", "said", "code"),
    [
        (b"", {"first_byte_s": 0.2}, "no answer within 0.2 s", "upstream_timeout"),
        (LONG[:9], {"first_byte_s": 0.2}, "no answer within 0.2 s", "upstream_timeout"),
        (LONG, {"first_byte_s": 0.2}, "did not begin to answer within first_byte_s", "upstream_timeout"),
        (LONG + b"a", {"idle_s": 0.2}, "silent for 0.2 s in the middle", "upstream_timeout"),
        (LONG + b"a", {"total_s": 0.2}, "longer than total_s", "deadline_exceeded"),
    ],
)
async def test_deadlines(
    wire: WireTransport, engine: RawEngine, begun: bytes, timeouts: dict[str, float], said: str, code: str
) -> None:
    engine.script.append(saying(begun))
    deadline = asyncio.get_running_loop().time() + timeouts["total_s"] if "total_s" in timeouts else None
    with pytest.raises(UpstreamTimeoutError, match=said) as caught:
        await get(wire, ask(engine, timeouts=timeouts, deadline=deadline))
    assert (caught.value.code, caught.value.status) == (code, 504)
    await until(lambda: len(wire.pool.sweeper) == 0, "nothing is open")


async def test_silence_does_not_count_while_the_reader_is_slow(
    wire: WireTransport, engine: RawEngine
) -> None:
    size = 4 * 2**20
    engine.script.append(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
    async with wire.open(ask(engine, timeouts={"idle_s": 0.3})) as response:
        got = len(await response.chunk())
        # four times the limit, in which nothing is read and nothing can come
        await asyncio.sleep(1.2)
        while part := await response.chunk():
            got += len(part)
    assert got == size


async def test_a_connection_that_does_not_come(wire: WireTransport, engine: RawEngine) -> None:
    request = UpstreamRequest(
        url=engine.url.replace("http", "https"),
        headers=CIMultiDict(),
        body=b"",
        timeouts=Timeouts(connect_s=0.2),
    )
    # the engine waits for a request's end, and so never answers the greeting of TLS
    with pytest.raises(UpstreamConnectError, match=r"no connection within 0\.2 s") as caught:
        await get(wire, request)
    assert caught.value.status == 504
    await engine.stop()
    with pytest.raises(UpstreamConnectError, match=r"^connection refused$"):
        await get(wire, ask(engine))
    for url in ("http://no-such-host.invalid/x", "ftp://x/", "http://a b/", "http://[::1/", "http://u:p@x/"):
        with pytest.raises(UpstreamConnectError):
            await get(wire, UpstreamRequest(url=url, headers=CIMultiDict(), body=b"", timeouts=Timeouts()))


async def test_a_name_is_looked_up(wire: WireTransport, engine: RawEngine) -> None:
    url = engine.url.replace("127.0.0.1", "localhost")
    assert await wire.fetch(url + "/other", 20, 100) == (200, b"hello")
    assert engine.requests[0][0].splitlines()[1] == b"Host: localhost:%d" % engine.port


async def test_leaving_early_tells_the_engine(wire: WireTransport, engine: RawEngine) -> None:
    engine.script.append(saying(LONG + b"a"))
    async with wire.open(ask(engine)) as response:
        assert await response.chunk() == b"a"
    engine.script.append(silent)
    task = asyncio.create_task(get(wire, ask(engine)))
    await until(lambda: len(engine.requests) == 2, "it waits for an answer")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(wire.pool.sweeper) == 0
    assert wire.pool.idle_count() == 0


async def test_a_fetch_is_bounded(wire: WireTransport, engine: RawEngine) -> None:
    with pytest.raises(UpstreamBrokenError, match="larger than 4 bytes"):
        await wire.fetch(engine.url + "/other", 20, 4)
    engine.script.append(silent)
    with pytest.raises(UpstreamError):
        await wire.fetch(engine.url + "/other", 0.2, 4)
    assert await wire.status_of(engine.url + "/other", 20) == 200


async def pieces(*items: bytes | Exception) -> AsyncIterator[bytes]:
    for item in items:
        await asyncio.sleep(0)
        if isinstance(item, Exception):
            raise item
        yield item


async def test_a_body_in_pieces(wire: WireTransport, engine: RawEngine) -> None:
    parts = [bytes([n]) * 100_000 for n in range(60)]
    joined = b"".join(parts)
    assert await get(wire, ask(engine, pieces(*parts))) == (200, b"hello")
    assert await get(wire, ask(engine, pieces(*parts), length=len(joined))) == (200, b"hello")
    assert [body == joined for _, body in engine.requests] == [True, True]
    assert b"Transfer-Encoding: chunked" in engine.requests[0][0]
    assert b"Content-Length: 6000000" in engine.requests[1][0]
    assert engine.connections == 1


async def test_a_body_that_does_not_come_is_not_the_engines_fault(
    wire: WireTransport, engine: RawEngine
) -> None:
    with pytest.raises(BodyTimeoutError):
        await get(wire, ask(engine, pieces(b"a", BodyTimeoutError("slow"))))
    for length in (1, 4):
        with pytest.raises(Exception, match="not as long as"):
            await get(wire, ask(engine, pieces(b"ab", b"c"), length=length))
    await until(lambda: engine.open == 0, "the connections are closed")
    assert engine.requests == []


async def test_an_answer_before_the_whole_body(wire: WireTransport) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    endless = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await endless.wait()

    async with await asyncio.start_server(early, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        request = UpstreamRequest(
            url=f"http://127.0.0.1:{port}/x", headers=CIMultiDict(), body=body(), timeouts=Timeouts()
        )
        assert (await get(wire, request))[0] == 413
        assert wire.pool.idle_count() == 0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority and a certificate for 127.0.0.1."""
    place = tmp_path_factory.mktemp("tls")
    made = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj"
    for command in (
        f"openssl req -x509 {made} /CN=ca -keyout ca.key -out ca.pem",
        f"openssl req {made} /CN=engine -keyout key.pem -out request.pem",
        "openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 2 -extfile names -out cert.pem",
    ):
        (place / "names").write_text("subjectAltName = IP:127.0.0.1\n")
        subprocess.run(command.split(), cwd=place, check=True, capture_output=True)
    return place


async def test_engines_behind_tls(authority: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    engine = await RawEngine().start(server)
    async with WireTransport(tls_context(authority / "ca.pem")) as wire:
        for _ in range(2):
            assert await get(wire, ask(engine)) == (200, b"hello")
        assert engine.connections == 1
        # the certificate is not for this name
        with pytest.raises(UpstreamConnectError, match="certificate is not to be trusted"):
            await wire.fetch(engine.url.replace("127.0.0.1", "localhost") + "/x", 20, 100)
        with pytest.raises(UpstreamError):
            await wire.fetch(engine.url.replace("https", "http") + "/x", 20, 100)
    async with WireTransport() as wire:
        with pytest.raises(UpstreamConnectError, match="certificate is not to be trusted"):
            await get(wire, ask(engine))
    await engine.stop()


async def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        tls_context(tmp_path / "none.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="PEM"):
        tls_context(tmp_path / "bad.pem")
