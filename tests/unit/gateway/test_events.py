from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import UpstreamBrokenError
from modelyard.gateway.events import Event, EventScanner


def events_of(*pieces: bytes, limit: int = 1000) -> list[Event]:
    scanner = EventScanner(limit)
    return [event for piece in pieces for event in scanner.feed(piece)]


def test_an_event_ends_with_a_blank_line() -> None:
    assert events_of(b"data: one\n\ndata:two\n\ndata: three") == [Event(b"one"), Event(b"two")]


def test_crlf_counts_as_lf_even_where_it_is_cut() -> None:
    assert events_of(b"data: one\r", b"\n\r", b"\ndata: two\r\n\r\n") == [Event(b"one"), Event(b"two")]


def test_comments_and_other_fields_are_skipped() -> None:
    assert events_of(b": ping\n\nid: 3\nretry: 5\nevent: delta\ndata: x\n\n") == [Event(b"x", b"delta")]


def test_data_lines_are_joined() -> None:
    assert events_of(b"data: a\ndata:\ndata:  b\n\n") == [Event(b"a\n\n b")]


def test_a_name_does_not_outlive_its_event() -> None:
    assert events_of(b"event: a\n\ndata: x\n\n") == [Event(b"x")]


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_an_event_beyond_the_limit_is_refused_however_it_comes(cut: int) -> None:
    stream = b"data: ok\n\ndata: " + b"x" * 40 + b"\n\n"
    pieces = [stream[place : place + cut] for place in range(0, len(stream), cut)]
    with pytest.raises(UpstreamBrokenError, match="larger than 32 bytes"):
        events_of(*pieces, limit=32)


def test_what_came_before_the_refused_event_is_given_first() -> None:
    reading = EventScanner(limit=32).feed(b"data: ok\n\ndata: " + b"x" * 40)
    assert next(reading) == Event(b"ok")
    with pytest.raises(UpstreamBrokenError):
        next(reading)


def test_it_knows_whether_it_stands_between_two_events() -> None:
    scanner = EventScanner()
    for piece, between in ((b"data: x\n\n", True), (b"data: y", False), (b"\n", False), (b"\n", True)):
        list(scanner.feed(piece))
        assert scanner.between_events is between


@given(
    stream=st.lists(
        st.sampled_from([b"data: a", b"data:", b"event: e", b": c", b"\n", b"\r\n", b"\n\n", b"\r", b"x"])
    ).map(b"".join),
    cuts=st.lists(st.integers(0, 60)),
)
def test_any_chunking_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    assert events_of(*pieces) == events_of(stream)
