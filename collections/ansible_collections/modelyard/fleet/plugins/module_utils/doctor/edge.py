"""The edge: HAProxy, who has the addresses, certificates and their keys, and how it has the proxies. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import (
    CRITICAL,
    UNKNOWN,
    WARNING,
    Facts,
    Finding,
    finding,
    some,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.compare import is_secret, wanted_units
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.rows import address_rows

FLEET = "fleet"
"""In place of a host: what is about an address, not about one of those that may have it."""
_RENEW = "Renew it (change edge_certificates, or the files on the host) and run playbooks/edge.yml"


def findings(
    host: str, seen: Facts, declared: Facts, certificates: Sequence[Facts], limits: Facts
) -> Iterator[Finding]:
    """One edge host that answered. ``seen`` is a result of ``edge_facts``, ``certificates`` are its own, read."""
    yield from _services(host, seen, declared)
    for one in certificates:
        yield from _certificate(host, one, declared, limits)
    for _, there in sorted(seen["configurations"].items()):
        for item in there["open"]:
            if is_secret(item["path"]):
                text = (
                    f"{item['path']} has the mode {item['mode']}: others than root may have read what is secret in it. Run "
                    "playbooks/edge.yml, which closes it, and replace the key."
                )
                yield finding("edge_key_open", CRITICAL, host, "edge", text, item["path"])
    yield from _proxies(host, seen, declared)


def _services(host: str, seen: Facts, declared: Facts) -> Iterator[Finding]:
    running = seen["haproxy"]
    if not declared:
        return
    names = wanted_units(declared)
    unit = seen["units"].get("haproxy")
    told = "" if unit is None else f" (its unit is {unit['active']})"
    if running["state"] != "up":
        if unit is not None and unit["load"] == "not-found":
            text = "The edge is declared here and not installed. Run playbooks/edge.yml."
        else:
            text = (
                f"HAProxy does not serve{told}: {running['reason']}. Look at its log (journalctl -u {names['haproxy']}), "
                "then run playbooks/edge.yml, which starts it."
            )
        yield finding("edge_down", CRITICAL, host, "edge", text, names["haproxy"])
    for key, code, what in (
        (
            "address",
            "edge_address_service_down",
            "this host cannot take an address over when another one fails",
        ),
        ("renewal", "edge_renewal_off", "its certificate is not renewed and will end"),
    ):
        unit = seen["units"].get(key)
        if key in names and unit is not None and unit["active"] not in ("active", "reloading"):
            text = (
                f"{names[key]} is {unit['active']}, so {what}. Look at its log (journalctl -u {names[key]}), then run "
                "playbooks/edge.yml."
            )
            yield finding(code, WARNING, host, "edge", text, names[key])


def _certificate(host: str, one: Facts, declared: Facts, limits: Facts) -> Iterator[Finding]:
    file = one["file"]
    shown = one["name"] or file
    left = one["days_left"]
    if one["problem"] or left is None:
        text = f"When the certificate in {file} ends is not known: {one['problem']}. Look at it (openssl x509 -text)."
        yield finding("edge_certificate_unknown", UNKNOWN, host, "edge", text, file)
        return
    renewed = (
        "Look at why it was not renewed (journalctl -u the unit of certbot, modelyard-edge-acme)"
        if file.endswith("/acme.pem")
        else _RENEW
    )
    if left < 0:
        text = f"The certificate for {shown} ended on {one['until'][:10]}: clients refuse it. {renewed}."
        yield finding("edge_certificate_expired", CRITICAL, host, "edge", text, file)
    elif not one["began"]:
        text = f"The certificate for {shown} is not good yet: clients refuse it. See whether the host's clock is right."
        yield finding("edge_certificate_early", CRITICAL, host, "edge", text, file)
    elif left < limits["certificate_days"]:
        days = "today" if left == 0 else f"in {left} day{'s' if left > 1 else ''}"
        text = f"The certificate for {shown} ends {days} ({one['until'][:10]}). {renewed}."
        yield finding("edge_certificate_ends", WARNING, host, "edge", text, file)
    wanted = (declared.get("names") or {}).get(file.rpartition("/")[2].removesuffix(".pem")) or ()
    missing = [name for name in wanted if not any(covers(own, name) for own in one["names"])]
    if missing:
        text = (
            f"The certificate in {file} is not good for {some(missing)}, only for {some(one['names']) or 'no name'}: "
            f"clients that use that name refuse it. {_RENEW}."
        )
        yield finding("edge_certificate_names", CRITICAL, host, "edge", text, file)


def covers(own: str, name: str) -> bool:
    """Whether a name of a certificate, with a star for its first label maybe, is good for a host name or an IP address."""
    try:
        return ipaddress.ip_address(own) == ipaddress.ip_address(name)
    except ValueError:
        pass
    own, name = own.lower().rstrip("."), name.lower().rstrip(".")
    first, dot, rest = name.partition(".")
    return own == name or bool(first and dot and own == f"*.{rest}")


def _proxies(host: str, seen: Facts, declared: Facts) -> Iterator[Finding]:
    if seen["haproxy"]["state"] != "up":
        return
    states: Mapping[str, Any] = seen["haproxy"]["proxies"]
    wanted = declared.get("proxies") or list(states)
    lost = sorted(name for name in wanted if name in states and states[name] != "up")
    unknown = sorted(name for name in wanted if name not in states)
    if unknown:
        text = (
            f"How HAProxy has {some(unknown)} is not known: its metrics do not tell. Look at them on the host "
            "(/metrics at edge_local_port)."
        )
        yield finding("edge_proxy_unknown", UNKNOWN, host, "edge", text, ", ".join(unknown))
    if lost and len(lost) == len(wanted):
        text = (
            f"The edge gives requests to no proxy: it has {some(lost)} as down. Clients are told to come again. See "
            "whether they are ready (modelyard status) and whether this host reaches their port."
        )
        yield finding("edge_no_proxy", CRITICAL, host, "edge", text, ", ".join(lost))
    elif lost:
        how = "/".join(sorted({states[name] for name in lost}))
        text = (
            f"The edge has {some(lost)} as {how} and gives it no requests. See whether "
            "it is ready (modelyard status), and whether this host reaches its port."
        )
        yield finding("edge_proxy_down", WARNING, host, "edge", text, ", ".join(lost))


def address_findings(seen: Mapping[str, Facts], addresses: Sequence[str]) -> Iterator[Finding]:
    """Whether each address is where exactly one host has it; ``seen`` holds every edge host."""
    for row in address_rows(seen, addresses):
        address, holders = row["address"], row["holders"]
        if len(holders) > 1:
            text = (
                f"{address} is held by {', '.join(holders)} at once: they do not hear each other. VRRP is IP protocol 112, "
                "which a firewall between them must let through; clients reach one or the other by chance until then."
            )
            yield finding("edge_address_twice", CRITICAL, FLEET, "edge", text, address)
        elif row["state"] == "down":
            text = (
                f"{address} is held by no edge host, so clients reach nobody. Look at keepalived's log on them "
                "(journalctl -u modelyard-edge-address): a host without a HAProxy that answers steps back."
            )
            yield finding("edge_address_nobody", CRITICAL, FLEET, "edge", text, address)
        elif row["state"] == "unknown":
            text = (
                f"Who holds {address} is not known: {row['reason']}. Make those hosts answer, and look again."
            )
            yield finding("edge_address_unknown", UNKNOWN, FLEET, "edge", text, address)
