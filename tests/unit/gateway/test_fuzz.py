"""Requests and answers that are damaged, cut anywhere and interrupted, played on a stage without a network.

Each case is made from its number alone, so that a failing one can be played again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.gateway.replicas import HealthView
from modelyard.gateway.wire.connection import Connection
from modelyard.gateway.wire.framing import Fed, MalformedError

from .answers_in_bytes import CASES, answers, chunk, cut, read
from .play import Stage, StageTransport

EACH = 10 * CASES if CASES < 1000 else CASES
ROUTES = ("/v1/chat/completions", "/v1/completions", "/live", "/v1/chat/completions/")
BODIES = (
    b'{"model":"m"}',
    b'{"model": "alias", "stream": true}',
    b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 300 + b'"}]}',
    b'{"model":"closed"}',
    b'{"model":"none"}',
    b'{"model":NaN}',
    b"[]",
    b"",
)
HEADERS = (
    b"",
    b"",
    b"X-Request-Id: one\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Origin: https://a\r\n",
)
HEADS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: b\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n",
    b"HTTP/1.1 404 None\r\nConnection: close\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /\r\n",
)
PIECES = (
    b"data: {}\n\n",
    b"data: 1\r\n\r\n",
    b"x",
    b"y" * 70_000,
    b'{"error":"no","error_type":"overloaded"}\n\n',
)
NOISE = (
    b"\r\n",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"\r\n\r\n",
    b"0",
    b"Content-Length: 1\r\n",
    b"\xff",
    b"HTTP/1.1 ",
)


def requests(chance: random.Random) -> bytes:
    made = b""
    for _ in range(chance.choice((1, 1, 2, 4))):
        body = chance.choice(BODIES) if chance.random() < 0.1 else BODIES[chance.randrange(3)]
        route = ROUTES[0] if chance.random() < 0.9 else chance.choice(ROUTES)
        more = chance.choice(HEADERS) if chance.random() < 0.2 else b""
        made += b"POST %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (
            route.encode(),
            more,
            len(body),
            body,
        )
    return damaged(chance, made, 0.2)


def answer(chance: random.Random) -> bytes:
    head = chance.choice(HEADS[:2]) if chance.random() < 0.6 else chance.choice(HEADS)
    parts = [chance.choice(PIECES) for _ in range(chance.randrange(5))]
    kind = chance.random()
    if kind < 0.3:
        made = head + b"Content-Length: %d\r\n\r\n" % sum(map(len, parts)) + b"".join(parts)
    elif kind < 0.9:
        chunks = [chunk(part, chance.choice((b"", b"", b";x"))) for part in parts]
        made = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"
    else:
        made = head + b"\r\n" + b"".join(parts)
    if chance.random() < 0.1:
        made = made[: chance.randrange(len(made))]
    return damaged(chance, made, 0.2)


def damaged(chance: random.Random, data: bytes, share: float) -> bytes:
    if chance.random() > share:
        return data
    for _ in range(chance.choice((1, 1, 3))):
        place = chance.randrange(len(data) + 1)
        kind = chance.randrange(3)
        piece = chance.choice(NOISE) if kind else bytes([chance.randrange(256)])
        data = data[:place] + piece + data[place + (len(piece) if kind == 1 else chance.randrange(2)) :]
    return data


def split(chance: random.Random, data: bytes) -> list[bytes]:
    return cut(data, [chance.randrange(10**6) for _ in range(chance.choice((0, 0, 1, 3, 8)))])


class Engine:
    """Answers each request on one connection with whatever chance gives; keeps what it said to each."""

    def __init__(self, chance: random.Random, connection: Connection) -> None:
        self.chance = chance
        self.connection = connection
        self.transport: StageTransport = connection.transport  # type: ignore[assignment]
        self.answered = 0
        self.said: list[bytearray] = []
        self.closed_well: set[int] = set()
        self._left: list[bytes] = []

    def act(self) -> None:
        if self.connection.uses > self.answered:
            self.answered = self.connection.uses
            self.said.append(bytearray())
            self._left = split(self.chance, answer(self.chance))
        if not self.said:
            return
        event = self.chance.random()
        if event < 0.02:
            self.transport.lose(ConnectionResetError())
        elif event < 0.04 or (event < 0.3 and not self._left):
            if not self.transport.closed and self.transport.reading:
                self.closed_well.add(len(self.said) - 1)
                self.transport.half_close()
        elif self._left and self.transport.reading and not self.transport.closed:
            # noted before it is read: it may end this answer and begin the next
            piece = self._left.pop(0)
            self.said[-1] += piece
            self.transport.feed(piece)

    def whole_bodies(self) -> Iterator[bytes]:
        """The bodies of the answers that were whole."""
        for number, said in enumerate(self.said):
            try:
                heard, fed, parser = read([bytes(said)])
            except MalformedError:
                # what came before was perhaps whole, and what follows an answer is nobody's
                continue
            if fed is not Fed.MORE or (number in self.closed_well and parser.eof()):
                yield heard.body


def answers_of(written: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Status and body of each whole answer that a client got, and whether an engine gave it."""
    while written:
        size = _length(written)
        if size is None:
            return
        heard, _, _ = read([written[:size]])
        yield heard.heads[0].status, heard.body, b"x-modelyard-replica" in written[:size]
        written = written[size:]


def _length(written: bytes) -> int | None:
    """How many bytes the first answer has, ``None`` where it is not whole."""
    head_end = written.find(b"\r\n\r\n")
    assert head_end >= 0 or not written, "a head was not written whole"
    head = written[:head_end].lower()
    status = int(head.split()[1])
    at = head_end + 4
    if status in (204, 304):
        return at
    if b"\r\ntransfer-encoding: chunked" in head:
        while True:
            line_end = written.find(b"\r\n", at)
            if line_end < 0:
                return None
            size = int(written[at:line_end].partition(b";")[0], 16)
            at = line_end + 2 + size + 2
            if at > len(written):
                return None
            if not size:
                return at
    length = int(head.partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0])
    return at + length if at + length <= len(written) else None


def play(number: int, stage: Stage) -> None:
    """One client's life, from its first byte to its last."""
    chance = random.Random(number)
    stage.fallbacks.clear()
    stage.made.clear()
    for replica in stage.gateway.pool.everyone():
        # a refused connection of an earlier case
        replica.health = HealthView()
    stage.gateway.balancer.changed()
    stage.refuse = lambda: chance.random() < 0.05
    client = stage.client()
    sent = requests(chance)
    pieces = split(chance, sent)
    engines: dict[int, Engine] = {}
    paused = False
    for _ in range(60):
        stage.loop.turn()
        for connection in stage.made:
            if id(connection) not in engines:
                engines[id(connection)] = Engine(chance, connection)
        event = chance.random()
        if event < 0.4 and pieces:
            if client.feed(pieces[0]):
                pieces.pop(0)
        elif event < 0.9 and engines:
            chance.choice(list(engines.values())).act()
        elif event < 0.93 and not client.closed and not stage.fallbacks:
            paused = not paused
            (client.protocol.pause_writing if paused else client.protocol.resume_writing)()
        elif event < 0.95:
            stage.loop.wait(chance.choice((0.1, 1, 6, 12)))
        elif event < 0.96:
            client.half_close()
        elif event < 0.965:
            client.lose(ConnectionResetError())
    stage.loop.turn()
    if paused and not client.closed and not stage.fallbacks:
        client.protocol.resume_writing()
    told = bytes(client.written)
    bodies = {body for engine in engines.values() for body in engine.whole_bodies()}
    for status, body, from_engine in answers_of(told):
        assert 200 <= status < 600
        if from_engine and status not in (204, 304):
            assert body in bodies, "an answer was ended that the engine had not ended"
    if stage.fallbacks:
        assert sent.find(stage.fallbacks[0].given) >= 0 or not stage.fallbacks[0].given
    # the client goes: nothing may be held
    client.lose(None)
    stage.loop.turn()
    stage.loop.wait(0.5)
    assert stage.leaks() == []
    stage.loop.wait(30)
    assert stage.pool.idle_count() == 0
    assert all(connection.closed for connection in stage.made)


@pytest.mark.timeout(1800)
@settings(max_examples=CASES, deadline=None)
@given(sent=answers(), places=st.lists(st.integers(0, 10**6), max_size=12), slow=st.booleans())
def test_any_pieces_of_an_answer_give_the_client_the_same_bytes(
    sent: tuple[bytes, bytes], places: list[int], slow: bool
) -> None:
    data, body = sent
    stage = Stage()
    client = stage.client()
    client.feed(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n" + BODIES[0])
    stage.loop.turn()
    (connection,) = stage.made
    engine = connection.transport
    for piece in cut(data, places):
        if slow:
            client.protocol.pause_writing()
            assert not client.written or not engine.reading
            client.protocol.resume_writing()
        engine.feed(piece)
    assert list(answers_of(bytes(client.written))) == [(200, body, True)]
    client.lose(None)
    stage.loop.turn()
    assert stage.leaks() == []


@pytest.mark.timeout(1800)
def test_nothing_escapes_leaks_or_ends_falsely() -> None:
    logging.disable(logging.WARNING)
    try:
        for number in range(EACH):
            if number % 100 == 0:
                stage = Stage()
            try:
                play(number, stage)
            except BaseException as exc:
                exc.add_note(f"case {number}")
                raise
    finally:
        logging.disable(logging.NOTSET)
