from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.gateway.wire.framing import LARGEST_HEAD, Fed, MalformedError

from .answers_in_bytes import CASES, answers, chunk, cut, read

pytestmark = pytest.mark.timeout(1800)  # as many cases as a release gets take minutes

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@settings(max_examples=CASES, deadline=None)
@given(answer=answers(), places=st.lists(st.integers(0, 10**6), max_size=12))
def test_any_pieces_give_the_same_body(answer: tuple[bytes, bytes], places: list[int]) -> None:
    data, body = answer
    heard, fed, _ = read(cut(data, places))
    assert (heard.body, fed, len(heard.heads)) == (body, Fed.ENDED, 1)
    if heard.framed and not heard.unframed:
        # what may be passed on as it came is the same body, framed
        again, _, _ = read([CHUNKED + heard.framed + b"0\r\n\r\n"])
        assert again.body == body


@settings(max_examples=CASES, deadline=None)
@given(answer=answers(), places=st.lists(st.integers(0, 10**6), max_size=6), more=st.binary(min_size=1))
def test_bytes_after_the_end_are_noticed(answer: tuple[bytes, bytes], places: list[int], more: bytes) -> None:
    data, body = answer
    heard, parser_fed, parser = read(cut(data + more, places))
    assert heard.body == body
    assert parser_fed is Fed.LEFT_OVER or parser.feed(b"x") is Fed.LEFT_OVER


@settings(max_examples=CASES, deadline=None)
@given(
    answer=answers(),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
    places=st.lists(st.integers(0, 10**6), max_size=6),
)
def test_damaged_answers_are_read_or_malformed_and_never_differently_in_pieces(
    answer: tuple[bytes, bytes], changes: list[tuple[int, int]], places: list[int]
) -> None:
    damaged = bytearray(answer[0])
    for place, value in changes:
        damaged[place % len(damaged)] = value

    def outcome(pieces: list[bytes]) -> tuple[object, ...]:
        try:
            heard, fed, _ = read(pieces)
        except MalformedError:
            return ("malformed",)
        return heard.body, fed is Fed.MORE, [head.status for head in heard.heads]

    whole, pieces = outcome([bytes(damaged)]), outcome(cut(bytes(damaged), places))
    assert whole == pieces


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"1" * 20 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * LARGEST_HEAD + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    ],
)
def test_heads_that_are_none(head: bytes) -> None:
    with pytest.raises(MalformedError):
        read([head])
    with pytest.raises(MalformedError):
        read([head[n : n + 1] for n in range(min(len(head), 2000))] + [head[2000:]])


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\n",
        b"0x1\r\na\r\n",
        b"1_0\r\n",
        b" 1\r\na\r\n",
        b"\r\n",
        b"g\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\na\r\n",
        b"1;a\nb\r\na\r\n",
        b"1;" + b"x" * 5000 + b"\r\na\r\n",
        b"f" * 16 + b"\r\n",
        b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"0\r\nA: b\n\r\n",
    ],
)
def test_chunks_that_are_none(body: bytes) -> None:
    with pytest.raises(MalformedError):
        read([CHUNKED + body])
    with pytest.raises(MalformedError):
        read([CHUNKED, *[body[n : n + 1] for n in range(len(body))]])


def test_whole_chunks_pass_as_they_came_and_extensions_do_not() -> None:
    heard, fed, _ = read(
        [CHUNKED + chunk(b"ab") + chunk(b"cd"), chunk(b"ef"), chunk(b"gh", b";x=1"), b"0\r\n\r\n"]
    )
    assert (heard.body, fed) == (b"abcdefgh", Fed.ENDED)
    assert heard.framed == chunk(b"ab") + chunk(b"cd") + chunk(b"ef")
    assert heard.unframed == 1


def test_answers_without_a_body() -> None:
    for head, bodiless in (
        (OK + b"Content-Length: 5\r\n\r\n", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", False),
        (OK + b"Content-Length: 0\r\n\r\n", False),
    ):
        heard, fed, _ = read([head], bodiless=bodiless)
        assert (heard.body, fed) == (b"", Fed.ENDED)
        _, fed, _ = read([head + b"x"], bodiless=bodiless)
        assert fed is Fed.LEFT_OVER


def test_an_answer_that_ends_with_its_connection() -> None:
    heard, fed, parser = read([OK + b"\r\nab", b"cd"])
    assert (heard.body, fed, heard.heads[0].length) == (b"abcd", Fed.MORE, None)
    assert parser.eof()
    _, _, parser = read([CHUNKED + b"1\r\n"])
    assert not parser.eof()
    _, _, parser = read([OK + b"Content-Length: 3\r\n\r\nab"])
    assert not parser.eof()


@pytest.mark.parametrize(
    ("head", "keep_alive", "idle_s"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True, None),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", False, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, CLOSE\r\n\r\n", False, None),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False, None),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=2, max=9\r\n\r\n", True, 2.0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeouts=2\r\n\r\n", True, None),
    ],
)
def test_what_becomes_of_the_connection(head: bytes, keep_alive: bool, idle_s: float | None) -> None:
    heard, _, _ = read([head])
    assert (heard.heads[0].keep_alive, heard.heads[0].idle_s) == (keep_alive, idle_s)


def test_bytes_that_are_not_text_survive_as_headers() -> None:
    heard, _, _ = read([OK + b"X-Odd: \xff\xfe\r\nX-Two:  a \r\nContent-Length: 0\r\n\r\n"])
    headers = heard.heads[0].multidict()
    assert headers["x-odd"].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert headers["x-two"] == "a"
