"""Who may reach the ports of engines, and of proxies behind an edge: from what operators write to nftables. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.edge import edge_address

GROUPS = ("proxies", "monitoring", "controllers")
"""Who may be let through to engines; the order in which they are told."""
PROXY_GROUPS = ("edge", "monitoring", "controllers")
"""The same for the port of a proxy behind an edge."""


class FirewallError(ValueError):
    """A port or address that is none; the text is a sentence for the operator."""


def port_ranges(ports: Iterable[Any]) -> list[str]:
    """Ports and ranges (``8100-8199``) as the shortest list of them, in order. Raises ``FirewallError``."""
    spans: list[tuple[int, int]] = []
    for low, high in sorted(_span(port) for port in ports):
        if spans and low <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(high, spans[-1][1]))
        else:
            spans.append((low, high))
    return [str(low) if low == high else f"{low}-{high}" for low, high in spans]


def within(port: int, ports: Iterable[Any]) -> bool:
    """Whether a port is one of these ports and ranges."""
    return any(low <= port <= high for low, high in map(_span, ports))


def networks(addresses: Iterable[Any], version: int) -> list[str]:
    """The addresses and networks of one IP version (4 or 6), each once, in order. Raises ``FirewallError``."""
    found = [network for network in map(network_of, addresses) if network.version == version]
    collapsed: Iterable[Any] = ipaddress.collapse_addresses(found)
    return [str(one.network_address if one.num_addresses == 1 else one) for one in sorted(collapsed)]


def network_of(address: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address or a network as a network; one with host bits set as the network that it is in.

    Raises ``FirewallError`` for a name, a wildcard, an address with a zone, or everything.
    """
    text = str(address).strip().strip("[]")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FirewallError(
            f"{text!r} is no IP address and no network: a name may stand for something else tomorrow."
        ) from None
    if network.prefixlen == 0 or network.network_address.is_unspecified:
        raise FirewallError(f"{text} is every address: it would open the ports to everybody.")
    if "%" in text:
        raise FirewallError(f"{text} has a zone, which means something on one machine only.")
    return network


def is_allowed(address: str, allowed: Iterable[Any]) -> bool:
    """Whether an address is one of these addresses and networks; those that are none are passed over."""
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return False
    for item in allowed:
        try:
            network = network_of(item)
        except FirewallError:
            continue
        if one.version == network.version and one in network:
            return True
    return False


def firewall_problems(firewall: Mapping[str, Any], ssh: Any = 22, first: str = "proxies") -> list[str]:
    """What is wrong with ``ports`` and ``allow`` of a host, one sentence each. ``ssh`` is its port of SSH.

    ``first`` is who must get through: ``proxies`` to engines, ``edge`` to a proxy.
    """
    groups = GROUPS if first in GROUPS else PROXY_GROUPS
    problems = []
    ports = firewall.get("ports") or []
    if not ports:
        problems.append("No ports are named: there is nothing to close.")
    for port in ports:
        told = _said(_span, port)
        problems += told
        for entry in sorted({22, int(ssh)}):
            if not told and within(entry, [port]):
                problems.append(f"{port} holds {entry}, the port of SSH, which is never closed here.")
    allow = firewall.get("allow") or {}
    problems += [
        f"{group!r} is not known: allow has {', '.join(groups)}." for group in allow if group not in groups
    ]
    for group in groups:
        for address in allow.get(group) or []:
            problems += [f"{group}: {problem}" for problem in _said(network_of, address)]
    if not any(allow.get(group) for group in groups):
        whom = ("the engines", "proxies") if groups is GROUPS else ("the proxy", "edge hosts")
        problems.append(f"Nobody is allowed to reach {whom[0]}: name the {whom[1]}' addresses.")
    return problems


def engine_firewall(
    host: str,
    settings: Mapping[str, Mapping[str, Any]],
    proxies: Sequence[str],
    replicas: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """``ports`` and ``allow`` of an engine host as the inventory has them, and the ``problems`` with that.

    ``settings`` are those of every host. The address of a proxy host is one of ``fleet_proxy_addresses``, else
    its ``fleet_address`` where that is an IP address that other machines can have. What is not known is a problem,
    never an open port. ``replicas`` are those that run or shall run here: adopted ones have ports of their own.
    """
    own = settings[host]
    # what a host sends to itself is let through in any case: a proxy beside the engines needs no address
    allow: dict[str, list[str]] = {"proxies": ["127.0.0.1"] if host in proxies else []}
    problems = []
    for proxy in sorted(set(proxies) - {host}):
        addresses, problem = proxy_addresses(proxy, settings[proxy])
        allow["proxies"] += addresses
        problems += [problem] if problem else []
    for group in GROUPS[1:]:
        allow[group] = [str(one) for one in (own.get("fleet_engine_access") or {}).get(group) or []]
    ports = {port for item in replicas if (port := port_of(item)) is not None}
    outside = sorted(port for port in ports if not within(port, [own["fleet_ports"]]))
    return {"ports": [str(own["fleet_ports"]), *map(str, outside)], "allow": allow, "problems": problems}


def proxy_firewall(
    host: str, settings: Mapping[str, Mapping[str, Any]], edges: Sequence[str]
) -> dict[str, Any]:
    """``ports`` and ``allow`` of a proxy host behind the edge hosts, and the ``problems`` with that.

    The edge asks from the address that ``edge_address`` gives, and from no other.
    """
    own = settings[host]
    allow: dict[str, list[str]] = {"edge": []}
    problems = []
    for name in edges:
        address, problem = edge_address(name, settings[name])
        allow["edge"] += [address] if address else []
        problems += [problem] if problem else []
    for group in PROXY_GROUPS[1:]:
        allow[group] = [str(one) for one in (own.get("fleet_proxy_access") or {}).get(group) or []]
    return {"ports": [str(own["fleet_proxy_port"])], "allow": allow, "problems": problems}


def proxy_addresses(name: str, settings: Mapping[str, Any]) -> tuple[list[str], str]:
    """The addresses from which a proxy host reaches engines on other hosts; else why they are not known."""
    given = [str(one) for one in settings.get("fleet_proxy_addresses") or []]
    how = "fleet_proxy_addresses" if given else "fleet_address"
    addresses = given or [str(settings["fleet_address"])]
    for address in addresses:
        try:
            network = network_of(address)
        except FirewallError as error:
            return [], _unknown(name, how, str(error))
        if network.is_loopback:
            return [], _unknown(name, how, f"{address} is an address that only the host itself has.")
    return addresses, ""


def shut_out(
    targets: Iterable[Mapping[str, Any]], proxy: str, settings: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Engine hosts that see a proxy under an address that they would not let through, one sentence each.

    ``targets`` are what ``tcp_reach`` found on the proxy host: the address that its kernel would ask from.
    """
    addresses, problem = proxy_addresses(proxy, settings[proxy])
    if problem:
        return [problem]
    found: dict[str, list[str]] = {}
    for target in targets:
        access = settings[target["host"]].get("fleet_engine_access") or {}
        allowed = [*addresses, *(one for group in access.values() for one in group)]
        if target["source"] is not None and not is_allowed(target["source"], allowed):
            found.setdefault(target["source"], []).append(target["host"])
    return [
        f"{proxy} reaches {', '.join(hosts)} from {source}, and the inventory says {', '.join(addresses)}: it would be "
        "shut out. Set fleet_proxy_addresses of this host."
        for source, hosts in sorted(found.items())
    ]


def targets(hosts: Iterable[str], settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Engine hosts as ``tcp_reach`` takes them, without ports."""
    return [{"host": host, "address": str(settings[host]["fleet_address"]), "ports": []} for host in hosts]


def port_of(replica: Mapping[str, Any]) -> int | None:
    """The port on the host of an assignment, or of a replica as it was observed."""
    publish = (replica.get("spec") or {}).get("publish") or {}
    port = publish.get("port") or replica.get("port")
    return int(port) if port else None


def _unknown(name: str, setting: str, why: str) -> str:
    return (
        f"{name}: the address from which this proxy reaches the engines is not known. Its {setting} says: {why} "
        "Set fleet_proxy_addresses of this host to the addresses that its connections come from."
    )


def _span(port: Any) -> tuple[int, int]:
    low, dash, high = str(port).partition("-")
    if low.isdigit() and (high.isdigit() if dash else True):
        first, last = int(low), int(high or low)
        if 1 <= first <= last <= 65535:
            return first, last
    raise FirewallError(f"{port!r} is no port and no range of ports, such as 8100-8199.")


def _said(function: Any, value: Any) -> list[str]:
    try:
        function(value)
    except FirewallError as error:
        return [str(error)]
    return []
