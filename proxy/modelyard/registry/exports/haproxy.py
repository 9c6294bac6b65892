"""Backends of HAProxy (2.4 and newer): one for each model, one server for each replica."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modelyard.registry.exports.common import (
    Address,
    Servers,
    balancer,
    live_paths,
    shares,
    whole,
    word,
)
from modelyard.registry.model import Endpoint, Model

_BALANCE = {"round_robin": "roundrobin", "power_of_two": "random(2)"}
_LARGEST_WEIGHT = 256
_LONGEST_MS = 2**31 - 1


def haproxy(models: Collection[Model]) -> str:
    """The file: give it to HAProxy with a second ``-f``, and name ``modelyard_<model id>`` in a frontend."""
    return balancer(models, _backend)


def _backend(model: Model, servers: Servers) -> Iterator[str]:
    yield f"backend modelyard_{word(model.id)}"
    yield f"    balance {_BALANCE.get(model.policy, 'leastconn')}"
    times = model.timeouts
    yield f"    timeout connect {_ms(times.connect_s)}"
    yield f"    timeout server {_ms(max(times.first_byte_s, times.idle_s))}"
    if model.queue is not None and model.queue.wait_s:
        yield f"    timeout queue {_ms(model.queue.wait_s)}"
    paths = live_paths(model)
    if len(paths) == 1:
        yield "    option httpchk"
        yield f"    http-check send meth GET uri {paths.pop()}"
    if any(item.tier for item in model.endpoints):
        yield "    option allbackups"
    yield "    default-server check inter 5s fall 3 rise 2 init-addr last,libc,none"
    weights = whole(shares(model), _LARGEST_WEIGHT)
    for item, address in servers:
        yield "    " + _server(item, address, weights.get(item.id, 0))


def _server(item: Endpoint, address: Address, weight: int) -> str:
    words = [f"server {word(item.id)} {address.authority}", f"weight {weight}"]
    if item.max_in_flight is not None:
        words.append(f"maxconn {item.max_in_flight}")
    if address.scheme == "https":
        words.append(f"ssl verify required ca-file @system-ca sni str({address.host})")
    if item.tier:
        words.append("backup")
    if item.state == "disabled":
        words.append("disabled")
    return " ".join(words)


def _ms(seconds: float) -> str:
    return f"{min(_LONGEST_MS, max(1, round(seconds * 1000)))}ms"
