from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.gateway.headers import goes_down, lines_to_client, to_client
from modelyard.gateway.lane.answers import Stamp, status_line
from modelyard.gateway.lane.bodies import renamed
from modelyard.gateway.lane.heads import may_become, template_of
from modelyard.gateway.wire.framing import MalformedError, parse_head

from .answers_in_bytes import CASES

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Keep: yes\r\nContent-Length: 12\r\nX-Last: z\r\n\r\n"
)


def test_a_template_knows_the_next_head_of_its_kind() -> None:
    template = template_of(HEAD, trusted=False, origins=())
    assert template is not None
    assert template.match(HEAD + b"body") == (len(HEAD), 12)
    longer = HEAD.replace(b"12", b"123456789012")
    assert template.match(longer) == (len(longer), 123456789012)
    for other in (
        HEAD.replace(b"12", b"1234567890123"),
        HEAD.replace(b"12", b""),
        HEAD.replace(b"12", b"1x"),
        HEAD.replace(b"12", b"1 "),
        HEAD.replace(b"12", b"+1"),
        HEAD.replace(b"12", b"1\r\nContent-Length: 2"),
        HEAD.replace(b"yes", b"no"),
        HEAD.replace(b"X-Last: z", b"X-Last: y"),
        HEAD.replace(b"X-Last: z\r\n", b"X-Last: z\r\nExpect: 100-continue\r\n"),
        HEAD[:-2],
        HEAD[:60],
        b"",
    ):
        assert template.match(other) is None, other


def test_what_a_template_passes_on() -> None:
    head = HEAD.replace(
        b"X-Keep: yes",
        b"X-Keep: \xff\r\nAuthorization: Bearer x\r\nOrigin: https://a\r\nX-Request-Id: one\r\nX-Session-Id: s",
    )
    template = template_of(head, trusted=False, origins=("https://a",))
    assert template is not None
    assert (template.request_id, template.session, template.path) == ("one", "s", b"/v1/chat/completions")
    assert b"X-Keep: \xff\r\n" in template.upstream
    assert b"Bearer" not in template.upstream
    assert b"request-id" not in template.upstream.lower()
    assert b"Access-Control-Allow-Origin: https://a\r\n" in template.told
    assert template.route.lane


@given(cut=st.integers(0, len(HEAD)))
def test_the_beginning_of_a_head_may_become_one(cut: int) -> None:
    assert may_become(HEAD[:cut])


@pytest.mark.parametrize(
    "data", [b"GET ", b"\r\n", b"POST /v1/chat/completions/", b"post /v1", b"POST /v1/x"]
)
def test_other_beginnings_may_not(data: bytes) -> None:
    assert not may_become(data)


names = st.sampled_from(["model", "Model", "messages", "x", 'a"b', "\\model", "\u00e9"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.just('"model": "m"')
values = st.recursive(
    leaves | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


@settings(max_examples=CASES, deadline=None)
@given(
    document=st.dictionaries(names, values, max_size=4),
    place=st.booleans(),
    name=st.sampled_from(["m", 'a"b', "\u00e9", "a\\b", ""]),
    served=st.sampled_from(["n", 'q"\\', "\u00fc"]),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_only_the_model_changes(
    document: dict[str, Any], place: bool, name: str, served: str, ascii_only: bool, indent: int | None
) -> None:
    document.pop("model", None)
    asked = {"model": name, **document} if place else {**document, "model": name}
    body = json.dumps(asked, ensure_ascii=ascii_only, indent=indent).encode()
    assert json.loads(renamed(body, orjson.loads(body), served)) == {**asked, "model": served}


def test_numbers_that_are_too_large_for_a_machine_word_survive() -> None:
    body = b'{"model":"m","seed":123456789012345678901234567890,"x":1.00}'
    assert renamed(body, orjson.loads(body), "n") == body.replace(b'"m"', b'"n"')


@settings(max_examples=CASES, deadline=None)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Server",
                    "date",
                    "X-Keep",
                    "Content-Type",
                    "set-cookie",
                    "ACCESS-CONTROL-ALLOW-ORIGIN",
                    "x-modelyard-x",
                    "Keep-Alive",
                    "X-Drop",
                    "Connection",
                    "Location",
                ]
            ),
            st.binary(max_size=6).map(lambda value: re.sub(rb"[\r\n\0]", b"", value).strip(b" \t")),
        ),
        max_size=8,
    )
)
def test_headers_in_bytes_follow_the_same_rules_as_text(headers: list[tuple[str, bytes]]) -> None:
    lines = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in headers)
    try:
        head = parse_head(b"HTTP/1.1 200 OK\r\n" + lines.removesuffix(b"\r\n"))
    except MalformedError:
        assert not headers
        return
    as_text = to_client(head.multidict())
    wanted = b"".join(
        name.encode() + b": " + value.encode("utf-8", "surrogateescape") + b"\r\n"
        for name, value in as_text.items()
    )
    assert lines_to_client(head) == wanted
    assert not goes_down("Server")


def test_stamp_and_status_lines() -> None:
    now = [1_700_000_000.2]
    stamp = Stamp(lambda: now[0])
    assert stamp.lines() == b"Server: modelyard\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n"
    now[0] += 1
    assert stamp.lines().endswith(b"22:13:21 GMT\r\n")
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(299) == b"HTTP/1.1 299 \r\n"
