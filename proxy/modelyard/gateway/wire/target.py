"""Where a request goes: an address to connect to, and how to name it in a request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from modelyard.errors import UpstreamConnectError

_PATH = re.compile(r"[!-~]*")
_HOST = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Target:
    """One engine's address. ``key`` tells it from others, ``authority`` is what the Host header says."""

    tls: bool
    host: str
    port: int
    authority: bytes
    key: str


@lru_cache(maxsize=16384)
def target_of(url: str) -> tuple[Target, bytes]:
    """The target and the path (with its query) of an absolute URL. Raises ``UpstreamConnectError``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UpstreamConnectError("its URL cannot be used") from None
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if (
        parts.scheme not in ("http", "https")
        or parts.username is not None
        or not _HOST.fullmatch(host)
        or not _PATH.fullmatch(path)
    ):
        raise UpstreamConnectError("its URL cannot be used")
    tls = parts.scheme == "https"
    usual = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port in (None, usual) else f"{shown}:{port}"
    key = f"{parts.scheme} {host} {port or usual}"
    return Target(tls, host, port or usual, authority.encode(), key), path.encode()


def encoded(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines, each with its end. What could end a line early is left out."""
    lines = [
        f"{name}: {value}\r\n"
        for name, value in headers
        if not any(char in name or char in value for char in "\r\n\0")
    ]
    return "".join(lines).encode("utf-8", "surrogateescape")


def request_head(method: str, target: Target, path: bytes, headers: bytes, length: int | None) -> bytes:
    """A request's head; ``length`` is the body's in bytes, ``None`` for a chunked one, 0 for none."""
    if length is None:
        framing = b"Transfer-Encoding: chunked\r\n\r\n"
    elif length or method == "POST":
        framing = b"Content-Length: %d\r\n\r\n" % length
    else:
        framing = b"\r\n"
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b" % (
        method.encode(),
        path or b"/",
        target.authority,
        headers,
        framing,
    )
