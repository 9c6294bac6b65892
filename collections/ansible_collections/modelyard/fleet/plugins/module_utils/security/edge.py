"""Weaknesses of an edge host: what HAProxy listens on and speaks, its socket, and who may read keys. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.edge import edge_wiring
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import answered, is_secret
from ansible_collections.modelyard.fleet.plugins.module_utils.fleet_status import why_silent
from ansible_collections.modelyard.fleet.plugins.module_utils.security.words import (
    HOST,
    Finding,
    finding,
    unknown,
)

Facts = Mapping[str, Any]
_EDGE = "edge"
_OTHERS = 0o077


def edge_findings(host: str, seen: Facts, declared: Facts) -> Iterator[Finding]:
    """Every weakness of one edge host. ``seen`` is a result of the module ``edge_facts``."""
    if not answered(seen):
        yield unknown(HOST, host, _EDGE, why_silent(seen))
        return
    for why in seen["problems"]:
        yield unknown(HOST, host, _EDGE, why)
    for part, there in sorted(seen["configurations"].items()):
        if there["problem"]:
            yield unknown("secret-file-open", host, part, there["problem"])
        for item in there["open"]:
            if is_secret(item["path"]):
                holds = "a password" if item["path"].endswith(".conf") else "the key of a certificate"
                yield finding(
                    "secret-file-open", host, item["path"], mode=item["mode"], holds=holds, wanted="0600"
                )
    socket = seen["socket"]
    if socket and int(socket["mode"], 8) & _OTHERS:
        yield finding("edge-socket-open", host, socket["path"], mode=socket["mode"])
    if declared:
        yield from _listening(host, seen["listening"], declared)
        yield from _tls(host, seen["tls"], declared)


def _listening(host: str, listening: Sequence[Facts] | None, declared: Facts) -> Iterator[Finding]:
    if listening is None:
        yield unknown("edge-listens-wider", host, _EDGE, "what HAProxy listens on could not be seen")
        return
    wanted = {(_address("127.0.0.1"), declared["local_port"])}
    for address in declared["listen"]:
        wanted.add((_address(address), declared["port"]))
        if declared["http_port"]:
            wanted.add((_address(address), declared["http_port"]))
    wider = [
        f"{one['address']} port {one['port']}"
        for one in listening
        if (_address(one["address"]), one["port"]) not in wanted
    ]
    if wider:
        yield finding("edge-listens-wider", host, _EDGE, addresses=", ".join(wider))


def _tls(host: str, tls: Facts | None, declared: Facts) -> Iterator[Finding]:
    if tls is None:
        return  # whoever has the address tells
    if tls["state"] == "accepted":
        yield finding("edge-old-tls", host, _EDGE, version=tls["version"], minimum=declared["tls_minimum"])
    elif tls["state"] == "unknown":
        yield unknown("edge-old-tls", host, _EDGE, tls["reason"])


def _address(text: str) -> str:
    """An address as everybody writes it."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def ports_behind_edge(
    settings: Mapping[str, Facts], edges: Sequence[str], proxies: Sequence[str]
) -> list[dict[str, Any]]:
    """The proxies' ports behind an edge, as ``tcp_reach`` takes them; none without an edge."""
    if not edges:
        return []
    return [
        {"host": one["name"], "address": one["address"], "ports": [one["port"]]}
        for one in edge_wiring(settings, edges, proxies)["proxies"]
        if one["address"]
    ]
