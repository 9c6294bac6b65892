"""What was seen -> weaknesses. Pure functions over plain data; the action plugin ``security`` gathers it.

A finding is ``finding`` (a weakness that was seen) or ``unknown`` (nobody could look). Unknown is never taken for well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.firewall import is_allowed
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.adopted import EVERYWHERE
from ansible_collections.modelyard.fleet.plugins.module_utils.reach import CLOSED, OPEN
from ansible_collections.modelyard.fleet.plugins.module_utils.security.containers import FOREIGN, everywhere
from ansible_collections.modelyard.fleet.plugins.module_utils.security.words import (
    HOST,
    Finding,
    finding,
    unknown,
)

_ENTITLED = {"engine-port-reachable": "a proxy", "proxy-port-reachable": "an edge host"}
_CONTAINERS = "containers"
_GROUP_AND_OTHERS, _OTHERS = 0o077, 0o007


def host_findings(
    host: str, facts: Mapping[str, Any], engines: Mapping[str, Mapping[str, Any]], adopted: Mapping[str, str]
) -> list[Finding]:
    """Every weakness of a host that answered. ``engines`` is the catalog, ``adopted`` the engine by container."""
    found: list[Finding] = []
    for item in facts["containers"]:
        found += _container(host, item, engines, adopted)
    for item in facts["programs"]:
        if item["secret_arguments"]:
            names = ", ".join(item["secret_arguments"])
            found.append(finding("secret-in-arguments", host, item["name"], names=names))
    told = {port for item in facts["containers"] for port in everywhere(item)}
    for port in sorted({one["port"] for one in facts["listening"] if one["address"] in EVERYWHERE} - told):
        found.append(finding("engine-port-everywhere", host, f"port {port}", port=port))
    found += _daemon(host, facts)
    found += _files(host, facts)
    if facts["firewall"] in ("missing", "different"):
        code = "firewall-missing" if facts["firewall"] == "missing" else "firewall-changed"
        found.append(finding(code, host, "table inet modelyard"))
    if facts["upgrades"]:
        names = ", ".join(facts["upgrades"]["names"])
        found.append(
            finding("engine-upgrades-itself", host, "Docker", how=facts["upgrades"]["how"], names=names)
        )
    for item in facts["problems"]:
        code = HOST if item["code"] == _CONTAINERS else item["code"]
        subject = "containers" if item["code"] == _CONTAINERS else host
        found.append(unknown(code, host, subject, item["why"]))
    return found


def silent(host: str, result: Mapping[str, Any]) -> Finding:
    """A host that did not answer, or on which nothing could be looked at."""
    why = str(result.get("msg") or "it did not answer").strip().splitlines() or ["it did not answer"]
    return unknown(HOST, host, host, why[0])


def _container(
    host: str,
    item: Mapping[str, Any],
    engines: Mapping[str, Mapping[str, Any]],
    adopted: Mapping[str, str],
) -> Iterator[Finding]:
    name = item["name"]
    if item["socket"]:  # of others too: it rules over ours
        yield finding("docker-socket-in-container", host, name)
    if item["kind"] == FOREIGN:
        return
    for port in everywhere(item):
        yield finding("engine-port-everywhere", host, name, port=port)
    if item["privileged"]:
        yield finding("container-privileged", host, name)
    if item["capabilities"]:
        yield finding("container-capabilities", host, name, names=", ".join(item["capabilities"]))
    if item["root"]:
        yield finding("container-root", host, name)
    engine = str(item["engine"] or adopted.get(item["adopted"] or "", ""))
    if item["writable"] and engine in engines and engines[engine]["container"]["read_only"]:
        yield finding("root-writable", host, name, engine=engine)
    if item["new_privileges"]:
        yield finding("new-privileges", host, name)
    if item["secret_arguments"]:
        yield finding("secret-in-arguments", host, name, names=", ".join(item["secret_arguments"]))


def _daemon(host: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    daemon, socket = facts["daemon"], facts["docker_socket"]
    if daemon["addresses"] and not daemon["verifies"]:
        yield finding("docker-api-open", host, "dockerd", addresses=", ".join(daemon["addresses"]))
    if socket and int(socket["mode"], 8) & _OTHERS:
        yield finding("docker-socket-open", host, socket["path"], mode=socket["mode"])


def _files(host: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    key = facts["admin_key"]
    for item in facts["files"]:
        if key and item["path"] == key["path"]:
            continue  # judged below
        if int(item["mode"], 8) & ~int(item["wanted"], 8) & _GROUP_AND_OTHERS:
            values = {name: item[name] for name in ("mode", "holds", "wanted")}
            yield finding("secret-file-open", host, item["path"], **values)
    if key:
        if key["weakness"]:
            yield finding("admin-key-weak", host, key["path"], weakness=key["weakness"])
        if int(key["mode"], 8) & _OTHERS:
            yield finding("admin-key-file-open", host, key["path"], mode=key["mode"])


# --- from outside ----------------------------------------------------------------------------------


def to_probe(facts: Mapping[str, Any], address: str) -> dict[str, list[int]]:
    """Where somebody listens for engines of a host that others might reach: ports by address.

    ``address`` is the host's own towards proxies; what is open everywhere is tried there.
    """
    seen = [
        *(
            (one["address"], one["port"])
            for item in facts["containers"]
            if item["runs"] and item["kind"] != FOREIGN
            for one in item["published"]
        ),
        *((one["address"], one["port"]) for one in facts["listening"]),
    ]
    found: dict[str, set[int]] = {}
    for listens, port in seen:
        at = address if listens in EVERYWHERE else listens
        if not _is_loopback(at):
            found.setdefault(at, set()).add(port)
    return {at: sorted(ports) for at, ports in sorted(found.items())}


def neighbours(
    host: str, seen: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What one engine host is to try of others, as ``tcp_reach`` takes it: the next two, in a ring of all that answered."""
    names = sorted(name for name, facts in seen.items() if "containers" in facts)
    at = names.index(host)
    return [
        {"host": name, "address": address, "ports": ports}
        for name in (names[at + 1 :] + names[:at])[:2]
        for address, ports in to_probe(seen[name], str(settings[name]["fleet_address"])).items()
    ]


def outside_findings(
    host: str,
    wanted: Mapping[str, Sequence[int]],
    allowed: Iterable[str],
    looks: Iterable[Mapping[str, Any]],
    code: str = "engine-port-reachable",
) -> list[Finding]:
    """What others reached of the ports ``wanted`` of a host, by address.

    ``looks`` are targets of ``tcp_reach`` with ``by``, who looked. Who is allowed, or is the
    host itself, or has no way to it, says nothing.
    """
    entitled = list(allowed)
    by_port: dict[int, set[str]] = {}
    judged: set[tuple[str, int]] = set()
    failed: dict[int, str] = {}
    for look in looks:
        source = look["source"]
        if source is None or source in wanted or _is_loopback(source) or is_allowed(source, entitled):
            continue  # without a route, or entitled: it says nothing about others
        for one in look["ports"]:
            if one["port"] not in wanted.get(look["address"], ()):
                continue  # another matter: a host may have engines and a proxy
            if one["result"] in (OPEN, CLOSED):
                judged.add((look["address"], one["port"]))
            else:
                failed[one["port"]] = one["result"]
            if one["result"] == OPEN:
                by_port.setdefault(one["port"], set()).add(f"{look['by']} ({source})")
    found = [
        finding(code, host, f"port {port}", port=port, source=", ".join(sorted(who)))
        for port, who in sorted(by_port.items())
    ]
    missing = {port for at, ports in wanted.items() for port in ports if (at, port) not in judged}
    for port in sorted(missing - by_port.keys()):
        why = failed.get(
            port, f"there is no other machine to look from that is neither {_ENTITLED[code]} nor monitoring"
        )
        found.append(unknown(code, host, f"port {port}", why))
    return found


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By host, code and subject."""
    return sorted(findings, key=lambda item: (item["host"], item["code"], item["subject"], item["what"]))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
