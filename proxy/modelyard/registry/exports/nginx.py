"""Upstreams of nginx: one for each model, one server for each replica."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modelyard.registry.exports.common import (
    Address,
    Servers,
    balancer,
    comment,
    shares,
    whole,
    word,
)
from modelyard.registry.model import Endpoint, Model

_BALANCE = {"round_robin": "", "power_of_two": "random two least_conn;"}
_LARGEST_WEIGHT = 1000


def nginx(models: Collection[Model]) -> str:
    """The file: include it in ``http``, and pass requests to ``http://modelyard_<model id>``."""
    return balancer(models, _upstream)


def _upstream(model: Model, servers: Servers) -> Iterator[str]:
    schemes = {address.scheme for _, address in servers}
    if "https" in schemes:
        also = ", but not all of them" if len(schemes) > 1 else ""
        yield comment(f"{model.id}: its replicas speak https{also}; the location's proxy_pass has to say so")
    name = f"modelyard_{word(model.id)}"
    yield f"upstream {name} {{"
    # shared by nginx's workers: limits and failures count for all of them
    yield f"    zone {name} 256k;"
    backups = any(item.tier for item in model.endpoints)
    balance = _BALANCE.get(model.policy, "least_conn;")
    if backups and balance.startswith("random"):
        balance = "least_conn;"  # nginx knows no backups beside random
    if balance:
        yield f"    {balance}"
    weights = whole(shares(model), _LARGEST_WEIGHT)
    first = [item for item, _ in servers if not item.tier]
    for item, address in servers:
        # nginx wants one server that is no backup
        yield "    " + _server(item, address, weights.get(item.id, 0), backup=bool(item.tier and first))
    if not servers:
        yield "    server 127.0.0.1:9 down;  # nginx wants one server, and there is no replica"
    yield "    keepalive 32;"
    yield "}"


def _server(item: Endpoint, address: Address, weight: int, *, backup: bool) -> str:
    words = [f"server {address.authority}"]
    if weight > 1:
        words.append(f"weight={weight}")
    if item.max_in_flight is not None:
        words.append(f"max_conns={item.max_in_flight}")
    if backup:
        words.append("backup")
    if not weight:  # draining, disabled, or without a share
        words.append("down")
    state = "" if item.state == "active" else f", {item.state}"
    return " ".join(words) + f";  {comment(item.id + state)}"
