"""Every rule about headers, both directions, in one place."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from multidict import CIMultiDict, MultiMapping

from modelyard.settings import Network

from .wire.framing import Field, Head

REQUEST_ID = "x-modelyard-request-id"
REPLICA = "x-modelyard-replica"
ATTEMPTS = "x-modelyard-attempts"

# RFC 9110, section 7.6.1, and the older names that real programs still send
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The body is framed anew; the engine answers uncompressed, so that nothing between holds a stream back.
_NOT_UPSTREAM = _HOP_BY_HOP | frozenset(
    {
        "accept-encoding",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "x-model",
        "x-request-id",
    }
)
# A client's credentials are for us, not for an engine, whatever the header is called that carries them.
_SECRET = re.compile(r"api-?key|auth|cookie|credential|passw|secret|signature|(^|-)token$")
_FORWARDED = frozenset({"forwarded", "via", "x-real-ip"})
# Cookies and CORS are between the client and us; an engine's name and clock are nobody's business.
_NOT_DOWNSTREAM = _HOP_BY_HOP | frozenset(
    {"alt-svc", "date", "location", "server", "set-cookie", "strict-transport-security"}
)
# what aiohttp's lenient reader of answers lets in, and its writer refuses
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROLS = bytes(set(range(32)) - {9, 10, 13}) + b"\x7f"
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(client: Mapping[str, str]) -> str:
    """The client's own request id where it is harmless, a new one otherwise."""
    return given_id(client) or uuid.uuid4().hex


def given_id(client: Mapping[str, str]) -> str | None:
    """The client's own request id where it has a harmless one."""
    for name in (REQUEST_ID, "x-request-id"):
        given = client.get(name, "")
        if _SAFE_ID.fullmatch(given):
            return given
    return None


def to_upstream(client: MultiMapping[str], identity: str, *, trusted: bool) -> CIMultiDict[str]:
    """The headers that an engine gets for a client's request whose id is ``identity``.

    ``trusted`` says that the client is one of our own proxies, whose forwarding headers may be believed.
    """
    refused = _NOT_UPSTREAM | _named_by_connection(client.getall("connection", []))
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in client.items():
        lowered = name.lower()
        if lowered in refused or lowered.startswith("x-modelyard-") or _SECRET.search(lowered):
            continue
        if not trusted and (lowered in _FORWARDED or lowered.startswith("x-forwarded-")):
            continue
        headers.add(name, value)
    headers["Content-Type"] = "application/json"
    headers["Accept-Encoding"] = "identity"
    headers["X-Request-Id"] = identity
    return headers


def to_client(upstream: MultiMapping[str]) -> CIMultiDict[str]:
    """The headers of an engine's answer that its client gets; a content length stays, for the bytes do
    too.
    """
    named = _named_by_connection(upstream.getall("connection", []))
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in upstream.items():
        if goes_down(name) and name.lower() not in named and not _UNPRINTABLE.search(name + value):
            headers.add(name, value)
    return headers


@lru_cache(maxsize=4096)
def goes_down(name: str) -> bool:
    """Whether a header of an engine's answer is the client's business, as far as its name tells."""
    lowered = name.lower()
    return lowered not in _NOT_DOWNSTREAM and not lowered.startswith(("access-control-", "x-modelyard-"))


def lines_to_client(head: Head) -> bytes:
    """``to_client`` for a head in bytes, as lines."""
    named = head.named
    fields = [field for field in head.fields if field[2] not in named] if named else head.fields
    if head.status == 204:
        # RFC 9110, section 8.6: such an answer has no length, whatever an engine says
        fields = [field for field in fields if field[2] != b"content-length"]
    return b"".join(map(_line_down, fields))


def _line_down(field: Field) -> bytes:
    return _short_line_down(field) if len(field[1]) < 200 else _made_line_down(field)


def _made_line_down(field: Field) -> bytes:
    name, value, _ = field
    if not goes_down(name.decode("latin-1")) or len(value.translate(None, _CONTROLS)) != len(value):
        return b""
    return b"%b: %b\r\n" % (name, value)


_short_line_down = lru_cache(maxsize=2048)(_made_line_down)


def cross_origin(origins: Collection[str], origin: str | None) -> list[tuple[str, str]]:
    """What an answer tells browsers, where pages from ``origins`` may ask and this one comes from
    ``origin``.
    """
    told: list[tuple[str, str]] = []
    if origins and "*" not in origins:
        # also where no origin was named: a cache must not give that answer to a browser
        told.append(("Vary", "Origin"))
    if origin is not None and ("*" in origins or origin in origins):
        told.append(("Access-Control-Allow-Origin", "*" if "*" in origins else origin))
        told.append(("Access-Control-Expose-Headers", f"{REQUEST_ID}, {REPLICA}, {ATTEMPTS}"))
    return told


def is_trusted(peer: str | None, networks: Sequence[Network]) -> bool:
    """Whether the address ``peer`` lies in one of ``networks``."""
    if not peer or not networks:
        return False
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks if address.version == network.version)


def client_of(peer: str | None, forwarded: Iterable[str], networks: Sequence[Network]) -> str:
    """The address that a request came from: the connection's, or, where that is one of our own proxies, the last one of
    ``X-Forwarded-For`` (all its values) that is none of theirs. What clients themselves put before it is never reached.
    """
    found = peer or ""
    if not is_trusted(peer, networks):
        return found
    for address in reversed([part.strip() for value in forwarded for part in value.split(",")]):
        try:
            ipaddress.ip_address(address)
        except ValueError:
            return found
        found = address
        if not is_trusted(address, networks):
            return found
    return found


def _named_by_connection(values: Iterable[str]) -> frozenset[str]:
    return frozenset(name.strip().lower() for value in values for name in value.split(",") if name.strip())
