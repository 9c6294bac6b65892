"""Engines whose framing is false, ambiguous or no HTTP."""

from __future__ import annotations

from .. import answers, faults
from ..answers import CHUNKED, JSON_TYPE, LAST_CHUNK, chunk, head
from ..client import Answer
from ..engine import Exchange
from ..scenario import Scenario, expect
from ..stage import Stage
from .acts import (
    PLAIN,
    STREAMED,
    WAYS,
    Check,
    elsewhere,
    expect_right,
    expect_service,
    honest,
    one_attempt,
    truthful,
)

_GROUP = "lies"
_ALL = ("right", "error", "cut")


async def _length_too_long(x: Exchange) -> None:
    body = answers.completion(x.heard.prompt)
    await x.send(head(200, JSON_TYPE, f"Content-Length: {len(body) + 500}") + body)
    x.close()


async def _length_too_short(stage: Stage) -> str:
    """More bytes than announced, which are somebody else's answer if anybody believes them."""
    poison = answers.plain("not for you")

    async def script(x: Exchange) -> None:
        await x.send(answers.plain(x.heard.prompt) + poison)

    engines = await stage.cast(faults.first(*[script] * 4), 1)
    for _, chunked in PLAIN * 2:
        prompt = stage.prompt()
        expect_right(await stage.ask(prompt, chunked=chunked), prompt, stream=False)
    await expect_service(stage, 4)
    return f"{len(engines[0].heard)} right answers, none with a byte too many"


async def _both_framings(x: Exchange) -> None:
    body = answers.completion(x.heard.prompt)
    await x.send(head(200, JSON_TYPE, "Content-Length: 7", CHUNKED) + chunk(body) + LAST_CHUNK)


async def _two_lengths(x: Exchange) -> None:
    body = answers.completion(x.heard.prompt)
    await x.send(head(200, JSON_TYPE, f"Content-Length: {len(body)}", "Content-Length: 7") + body)


async def _odd_length(x: Exchange) -> None:
    body = answers.completion(x.heard.prompt)
    await x.send(head(200, JSON_TYPE, f"Content-Length: +{len(body)}") + body)


async def _folded(x: Exchange) -> None:
    await x.send(answers.plain(x.heard.prompt, "X-Folded: one\r\n\ttwo"))


async def _nul(x: Exchange) -> None:
    await x.send(answers.plain(x.heard.prompt, "X-Nul: a\0b"))


async def _big_head(x: Exchange) -> None:
    await x.send(answers.plain(x.heard.prompt, "X-Big: " + "x" * 2**20))


async def _endless_head(x: Exchange) -> None:
    await x.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await x.send(b"X-More: " + b"x" * 4096 + b"\r\n")


async def _bad_chunk(x: Exchange) -> None:
    await x.send(head(200, JSON_TYPE, CHUNKED) + b"zz\r\n" + answers.completion(x.heard.prompt))
    await x.until_gone()


async def _switch(x: Exchange) -> None:
    await x.send(head(101, "Upgrade: anything", "Connection: upgrade") + b"\x00\x01tunnel")
    await x.until_gone()


async def _informs_first(x: Exchange) -> None:
    await x.send(head(100) + head(102) + head(103, "Link: </style.css>; rel=preload"))
    await faults.good(x)


async def _no_http(x: Exchange) -> None:
    await x.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
    await x.until_gone()


async def _bad_status(x: Exchange) -> None:
    body = answers.completion(x.heard.prompt)
    await x.send(b"HTTP/1.1 2x0 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def _trailers(x: Exchange) -> None:
    half = (body := answers.completion(x.heard.prompt))[: len(body) // 2]
    await x.send(head(200, JSON_TYPE, CHUNKED, "Trailer: X-Secret"))
    await x.send(b"%x;ext=1\r\n%b\r\n" % (len(half), half) + chunk(body[len(half) :]))
    await x.send(b"0\r\nX-Secret: inner\r\nX-Other: inner\r\n\r\n")


async def _no_framing(x: Exchange) -> None:
    await x.send(head(200, JSON_TYPE) + answers.completion(x.heard.prompt))
    x.close()


async def _no_content(x: Exchange) -> None:
    await x.send(head(204, "Content-Length: 5") + b"bytes")
    x.close()


def _no_trace_of(*names: str) -> Check:
    def check(answer: Answer, _: str) -> None:
        for name in names:
            expect(name not in answer.headers, f"the header {name} reached the client")

    return check


def _no_trailers(answer: Answer, prompt: str) -> None:
    one_attempt(answer, prompt)
    _no_trace_of("x-secret", "x-other")(answer, prompt)


def _one_framing(answer: Answer, _: str) -> None:
    both = "content-length" in answer.headers and "transfer-encoding" in answer.headers
    expect(not both, "the client got both framings")


SCENARIOS = (
    truthful(
        "length-too-long",
        _GROUP,
        "500 bytes fewer come than Content-Length announced",
        "the client can tell that the answer is not whole",
        _length_too_long,
        allowed=_ALL,
    ),
    Scenario(
        "length-too-short",
        _GROUP,
        "behind the announced length stands a second answer",
        "the bytes for nobody reach nobody",
        _length_too_short,
    ),
    truthful(
        "both-framings",
        _GROUP,
        "Content-Length and Transfer-Encoding contradict each other",
        "one framing, the right answer",
        _both_framings,
        allowed=("right", "error"),
        check=_one_framing,
    ),
    elsewhere("two-lengths", _GROUP, "two different Content-Lengths", _two_lengths, ways=PLAIN),
    elsewhere("odd-length", _GROUP, "Content-Length: +123", _odd_length, ways=PLAIN),
    truthful("folded-header", _GROUP, "a header folded over two lines", "the right answer", _folded),
    truthful(
        "nul-in-header",
        _GROUP,
        "a NUL inside a header's value",
        "the right answer, without that header",
        _nul,
        check=_no_trace_of("x-nul"),
    ),
    elsewhere("huge-head", _GROUP, "a head of one MiB", _big_head, ways=PLAIN, at_once=True),
    elsewhere("endless-head", _GROUP, "a head that never ends", _endless_head, ways=PLAIN, at_once=True),
    elsewhere(
        "bad-chunk-size", _GROUP, "a chunk size that is no number", _bad_chunk, ways=PLAIN, at_once=True
    ),
    honest(
        "bad-chunk-later",
        _GROUP,
        "a chunk size that is no number, after the first event",
        faults.streams(1, "hang", garbage=b"zz\r\n\r\n"),
    ),
    honest(
        "no-last-chunk",
        _GROUP,
        "a chunked stream ends without its last chunk",
        faults.streams(3, "close"),
    ),
    elsewhere("switches-protocols", _GROUP, "101, and bytes of another protocol", _switch, at_once=True),
    truthful(
        "informs-first",
        _GROUP,
        "100, 102 and 103 come before the answer",
        "the answer itself",
        _informs_first,
        ways=WAYS,
        check=one_attempt,
    ),
    elsewhere("no-http", _GROUP, "it speaks SSH", _no_http, at_once=True),
    elsewhere("bad-status", _GROUP, "a status that is no number", _bad_status, ways=PLAIN),
    truthful(
        "trailers",
        _GROUP,
        "chunk extensions, and trailers behind the last chunk",
        "the right answer without them",
        _trailers,
        check=_no_trailers,
    ),
    truthful(
        "no-framing",
        _GROUP,
        "neither length nor chunks: the end of the connection is the end",
        "the right answer",
        _no_framing,
        check=one_attempt,
    ),
    truthful(
        "one-packet",
        _GROUP,
        "head and body of a stream come in one packet",
        "the right answer",
        faults.good,
        ways=STREAMED,
        check=one_attempt,
    ),
    truthful(
        "body-of-no-content",
        _GROUP,
        "204 with a length and a body",
        "204 without either, or an error; the bytes for nobody reach nobody",
        _no_content,
        allowed=("right", "error", "wrong"),
        check=_no_trace_of("content-length", "transfer-encoding"),
    ),
)
