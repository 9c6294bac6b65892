"""Checks of single fleet settings that a JSON Schema cannot say."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.inventory.problems import KeyPath, Problem, nearest
from modelyard.inventory.schema import check_setting_shape
from modelyard.inventory.source import is_known, mapping

Engines = Mapping[str, Mapping[str, Any]]


def check_setting(name: str, value: Any, engines: Engines) -> Iterator[Problem]:
    """Everything that is wrong with one setting by itself."""
    found = list(check_setting_shape(name, value))
    yield from found
    if found or not is_known(value):
        return
    if name == "fleet_ports":
        yield from _ports(value)
    elif name == "fleet_gpus" and isinstance(value, list | tuple):
        counted = Counter(str(gpu) for gpu in value)
        for gpu, times in counted.items():
            if times > 1:
                yield Problem(
                    "duplicate-gpu",
                    f"GPU {gpu} is listed {times} times.",
                    (name,),
                    "List each GPU once, by index or by UUID.",
                )
    elif name == "fleet_images":
        for engine in mapping(value):
            if engine not in engines:
                path: KeyPath = (name, str(engine))
                yield Problem(
                    "unknown-engine", f"there is no engine {engine!r}.", path, nearest(str(engine), engines)
                )
    elif name == "fleet_proxy_addresses":
        yield from _networks((name,), value)
    elif name == "fleet_edge_address" and (not is_address(value) or is_wildcard(value)):
        yield Problem(
            "bad-address",
            f"{value!r} is no IP address of one host.",
            (name,),
            "Write the address that the host has on the network of the proxies.",
        )
    elif name in ("fleet_engine_access", "fleet_proxy_access"):
        for group, addresses in mapping(value).items():
            yield from _networks((name, str(group)), addresses)
    elif name == "fleet_address" and is_wildcard(value):
        yield Problem(
            "wildcard-address",
            f"{value} is every address of the host; proxies need one that they can connect to.",
            (name,),
            "Give the address of the network between proxies and engines.",
        )


def port_range(value: Any) -> tuple[int, int] | None:
    """First and last port, or None when the value is none."""
    first, dash, last = str(value).partition("-")
    if not (dash and first.isdigit() and last.isdigit()):
        return None
    low, high = int(first), int(last)
    return (low, high) if 1 <= low <= high <= 65535 else None


def _ports(value: Any) -> Iterator[Problem]:
    if port_range(value) is None:
        yield Problem(
            "bad-ports",
            f"{value} is no range of ports.",
            ("fleet_ports",),
            "Write the first and the last port, both between 1 and 65535, such as 8100-8199.",
        )


def _networks(path: KeyPath, addresses: Any) -> Iterator[Problem]:
    for at, address in enumerate(addresses):
        if not is_known(address):
            continue
        try:
            fault = "is every address" if ipaddress.ip_network(address, strict=False).prefixlen == 0 else ""
        except ValueError:
            fault = "is no IP address and no network"
        if fault or is_wildcard(address):
            yield Problem(
                "bad-address",
                f"{address!r} {fault or 'is every address'}.",
                (*path, at),
                "Write an IP address or a network, such as 192.0.2.21 or 2001:db8::/64.",
            )


def is_wildcard(value: str) -> bool:
    """Whether an address stands for every address of the host."""
    try:
        return ipaddress.ip_address(value).is_unspecified
    except ValueError:
        return False


def is_address(value: str) -> bool:
    """Whether the text is an IP address, as Docker needs to publish a port."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True
