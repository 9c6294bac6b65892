"""Answers as engines send them, for tests that feed them in pieces."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import strategies as st

from modelyard.gateway.wire.framing import Fed, Head, ResponseParser

# how many cases the fuzzers try; the whole run that a release gets sets 100000
CASES = int(os.environ.get("MODELYARD_FUZZ_CASES", "300"))


@dataclass
class Heard:
    """A listener that remembers."""

    heads: list[Head] = field(default_factory=list)
    body: bytes = b""
    framed: bytes = b""
    unframed: int = 0

    def on_head(self, head: Head) -> None:
        self.heads.append(head)

    def on_data(self, data: bytes, framed: bytes | None) -> None:
        self.body += data
        if framed is None:
            self.unframed += 1
        else:
            self.framed += framed


def read(pieces: list[bytes], *, bodiless: bool = False) -> tuple[Heard, Fed, ResponseParser]:
    """What a parser makes of one answer in pieces."""
    heard, parser, fed = Heard(), ResponseParser(), Fed.MORE
    parser.start(heard, bodiless=bodiless)
    for piece in pieces:
        if piece:
            fed = parser.feed(piece)
    return heard, fed, parser


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` cut at ``places`` (any numbers)."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[left:right] for left, right in pairwise(ends)]


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


bodies = st.lists(st.binary(min_size=1, max_size=400), max_size=8)
extensions = st.sampled_from([b"", b"", b"", b";a=b", b" ; x", b';q="y"'])
trailers = st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"])
interim = st.sampled_from(
    [b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"]
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A whole answer and its body; an answer that ends with its connection is not among them."""
    parts = draw(bodies)
    body = b"".join(parts)
    head = draw(interim) + b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
    chunks = b"".join(chunk(part, draw(extensions)) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + draw(trailers) + b"\r\n", body
