"""Which requests the lane takes, told from their heads alone; no I/O.

The lane must never understand a request differently from aiohttp, which gets whatever the lane leaves. So it
takes only the plainest: everything that a head can hold besides is left.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

import httptools
from multidict import CIMultiDict

from ..dialects.wishes import SESSION
from ..headers import cross_origin, given_id, to_upstream
from ..routes import ROUTES, Route
from ..trace import Parent, parent_of, without_client
from ..wire.target import Target, encoded, target_of

# a head that is larger is left
LARGEST_HEAD = 16 * 1024
# engines for which a connection keeps the beginning of its requests
_MOST_BEGUN = 64
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n")
_ODD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r\n[ \t]|\r(?!\n)|(?<!\r)\n")
# each of these asks for something that the lane does not do
_LEFT = frozenset({"transfer-encoding", "content-encoding", "expect", "upgrade", "trailer", "te"})
_ROUTES = {route.path.encode(): route for route in ROUTES if route.lane}
_STARTS = tuple(b"POST %b HTTP/1.1\r\n" % path for path in _ROUTES)
_LONGEST_START = max(map(len, _STARTS))


@dataclass(frozen=True, slots=True)
class Template:
    """All that a head says but its length: the next head of the connection is usually the same.

    ``prefix`` and ``suffix`` are the head before and after the digits of its content length. ``upstream`` are
    the lines that an engine gets, without request id and length, and ``told`` those that the client gets for
    its origin. ``forwarded`` is what a client that is believed says of whom it asks for. ``parent`` is the span
    that the client names, where traces are wanted; ``upstream`` then lacks it.
    """

    prefix: bytes
    suffix: bytes
    route: Route
    path: bytes
    upstream: bytes
    told: bytes
    request_id: str | None
    session: str | None
    parent: Parent | None
    forwarded: tuple[str, ...] = ()
    _begun: dict[str, tuple[Target, bytes]] = field(default_factory=dict)

    def begun_for(self, url: str) -> tuple[Target, bytes]:
        """The engine at ``url``, and the beginning of a request to it: all but its id, length and body.

        Raises ``UpstreamConnectError`` when the URL cannot be used.
        """
        known = self._begun.get(url)
        if known is None:
            target, base = target_of(url)
            lines = (base, self.path, target.authority, self.upstream)
            known = target, b"POST %b%b HTTP/1.1\r\nHost: %b\r\n%b" % lines
            if len(self._begun) >= _MOST_BEGUN:
                self._begun.clear()
            self._begun[url] = known
        return known

    def match(self, data: bytes) -> tuple[int, int] | None:
        """Where the body begins and how long it is, when ``data`` begins with such a head."""
        prefix = self.prefix
        if not data.startswith(prefix):
            return None
        begin = len(prefix)
        end = data.find(b"\r", begin, begin + 13)
        if end < 0 or not data.startswith(self.suffix, end):
            return None
        digits = data[begin:end]
        return (end + len(self.suffix), int(digits)) if digits.isdigit() else None


def may_become(data: bytes) -> bool:
    """Whether the beginning of a request may still turn out to be one for the lane."""
    if len(data) >= _LONGEST_START:
        return data.startswith(_STARTS)
    return any(start.startswith(data[: len(start)]) for start in _STARTS)


def template_of(
    head: bytes, *, trusted: bool, origins: Collection[str], traced: bool = False
) -> Template | None:
    """The template of a whole head (with its empty line), ``None`` when the lane leaves the request.

    ``trusted``: the client is a proxy whose forwarding headers may be believed; ``origins``: the web origins
    that browsers may call from; ``traced``: engines get our own ``traceparent``.
    """
    if _ODD.search(head):
        return None
    found = _LENGTH.search(head)
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(head)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    route = _ROUTES.get(reader.path)
    headers = reader.headers
    if (
        found is None
        or route is None
        or not reader.whole
        or parser.get_method() != route.method.encode()
        or parser.get_http_version() != "1.1"
        or not parser.should_keep_alive()
        or parser.should_upgrade()
        or len(headers.getall("content-length", [])) != 1
        or len(headers.getall("host", [])) != 1
        or any(name in headers for name in _LEFT)
    ):
        return None
    upstream = to_upstream(headers, "", trusted=trusted)
    # each request has its own
    upstream.popall("X-Request-Id", None)
    parent = parent_of(headers) if traced else None
    if traced and (parent is None or parent.sampled):
        upstream = without_client(upstream, parent)
    return Template(
        prefix=head[: found.start(1)],
        suffix=head[found.end(1) :],
        route=route,
        path=reader.path,
        upstream=encoded(upstream.items()),
        told=encoded(cross_origin(origins, headers.get("origin"))),
        request_id=given_id(headers),
        session=headers.get(SESSION),
        parent=parent,
        forwarded=tuple(headers.getall("x-forwarded-for", ())) if trusted else (),
    )


class _Reader:
    """What httptools tells of one head."""

    def __init__(self) -> None:
        self.path = b""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.add(name.decode("ascii"), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        self.whole = True
