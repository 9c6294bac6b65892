"""The edge in front of the proxies: what is wrong with a wish for it, and who its hosts and proxies are. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PASSWORD_LENGTH = 8
"""VRRP carries that many characters; keepalived would cut a longer one without refusing it."""
# from guides and lists; those of one or two different characters are found without
_KNOWN = """
    password passw0rd pass1234 changeme changeit 12345678 87654321 abcdefgh abcd1234 qwertyui secret12 keepaliv vrrppass
    mypasswd s3cr3tpw letmein1 admin123 k@l!ve1p modelyar testtest example1 abc12345 1234abcd topsecre
"""
_KNOWN_PASSWORDS = frozenset(_KNOWN.split())
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def known_password(password: str) -> bool:
    """Whether a password is one that stands in guides and lists, or one character again and again."""
    lowered = password.lower()
    return lowered in _KNOWN_PASSWORDS or len(set(lowered)) < 3


def edge_problems(wish: Mapping[str, Any]) -> list[str]:
    """What is wrong with a wish, one sentence each; no secret is in any.

    ``wish``: ``host``, ``hosts`` and ``proxies`` (lists of ``name``, ``address``, the latter with ``port``), ``addresses``,
    ``certificates``, ``acme``, ``password``, ``advert_s``, ``port``, ``http_port``, ``local_port``.
    """
    hosts, addresses = list(wish["hosts"]), list(wish["addresses"])
    names = [str(one.get("name")) for one in hosts]
    return [
        *_host_problems("edge_hosts", hosts),
        *_host_problems("edge_proxies", wish["proxies"]),
        *_ports(wish),
        *(
            []
            if wish["host"] in names
            else [f"edge_hosts does not name this host ({wish['host']}): it lists {', '.join(names)}."]
        ),
        *_address_problems(addresses, hosts, names),
        *_certificate_problems(wish["certificates"], wish["acme"], wish["http_port"]),
        *_vrrp_problems(wish),
    ]


def address_of(text: Any) -> Address | None:
    """An IP address; None for what is none."""
    try:
        return ipaddress.ip_address(str(text).strip("[]"))
    except ValueError:
        return None


def interface_of(text: Any) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """An address with the length of its network (``192.0.2.10/24``); None for what is none."""
    try:
        return ipaddress.ip_interface(str(text)) if "/" in str(text) else None
    except ValueError:
        return None


def _host_problems(where: str, hosts: Sequence[Mapping[str, Any]]) -> list[str]:
    problems = []
    seen: set[str] = set()
    if not hosts:
        problems.append(f"{where} is empty: name at least one.")
    for one in hosts:
        name = str(one.get("name"))
        if not _NAME.fullmatch(name):
            problems.append(f"{where}: {name!r} is no name (letters, digits, dot, dash, underscore).")
        if name in seen:
            problems.append(f"{where}: {name} is named twice.")
        seen.add(name)
        address = address_of(one.get("address"))
        if address is None or address.is_unspecified or address.is_loopback:
            problems.append(
                f"{where}: {name} has the address {str(one.get('address'))!r}; it must be an IP address that other "
                "machines reach."
            )
    return problems


def _ports(wish: Mapping[str, Any]) -> list[str]:
    problems = []
    taken: dict[int, str] = {}
    for key in ("port", "http_port", "local_port"):
        number = int(wish[key])
        if number == 0 and key == "http_port":
            continue
        if not 0 < number < 65536:
            problems.append(f"edge_{key} is {number}, which is no port.")
        elif number in taken:
            problems.append(f"edge_{key} and edge_{taken[number]} are both {number}.")
        taken[number] = key
    return problems


def _address_problems(
    addresses: Sequence[Mapping[str, Any]], hosts: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[str]:
    problems = []
    routers: dict[int, str] = {}
    own = [address for one in hosts if (address := address_of(one.get("address")))]
    if addresses and len(hosts) < 2:
        problems.append(
            "edge_addresses has an address that moves, and there is one edge host only: add a second one, or leave "
            "edge_addresses empty, and clients use the host's own address."
        )
    for one in addresses:
        text = str(one.get("address"))
        wanted = interface_of(text)
        if wanted is None:
            problems.append(
                f"edge_addresses: {text!r} is no address with the length of its network, such as 192.0.2.10/24."
            )
        elif wanted.ip in own:
            problems.append(
                f"edge_addresses: {wanted.ip} is an edge host's own address; one that moves belongs to nobody else."
            )
        elif any(address.version != wanted.version for address in own):
            problems.append(
                f"edge_addresses: {wanted.ip} is IPv{wanted.version}, and the edge hosts have addresses of the other "
                "version: VRRP speaks one of them."
            )
        try:
            router = int(one.get("router_id") or 0)
        except (TypeError, ValueError):
            router = 0
        if not 0 < router < 256:
            problems.append(
                f"edge_addresses: {text} needs a router_id from 1 to 255, which nobody else uses on this network."
            )
        elif router in routers:
            problems.append(f"edge_addresses: {routers[router]} and {text} have the same router_id {router}.")
        else:
            routers[router] = text
        prefer = one.get("prefer")
        if prefer and prefer not in names:
            problems.append(
                f"edge_addresses: {text} prefers {prefer}, which is no edge host ({', '.join(names)})."
            )
    texts = [str(item.ip) for one in addresses if (item := interface_of(one.get("address")))]
    problems += [
        f"edge_addresses: {text} stands there twice."
        for text in sorted({text for text in texts if texts.count(text) > 1})
    ]
    return problems


def _certificate_problems(
    certificates: Sequence[Mapping[str, Any]], acme: Mapping[str, Any], http_port: Any
) -> list[str]:
    problems = []
    names = [str(one.get("name")) for one in certificates]
    if not certificates and not acme.get("names"):
        problems.append(
            "There is no certificate: declare edge_certificates, or the names for edge_acme to get one for."
        )
    for name in names:
        if not _NAME.fullmatch(name):
            problems.append(
                f"edge_certificates: {name!r} is no name (letters, digits, dot, dash, underscore)."
            )
    problems += [
        f"edge_certificates: {name} stands there twice."
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for one in certificates:
        given = bool(one.get("certificate")) or bool(one.get("key"))
        on_host = bool(one.get("certificate_path")) or bool(one.get("key_path"))
        name = str(one.get("name"))
        if given == on_host:
            problems.append(
                f"edge_certificates: {name} needs either certificate and key (their text, from a vault) or "
                "certificate_path (and key_path where the key is a file of its own)."
            )
            continue
        if on_host:
            if not one.get("certificate_path"):
                problems.append(f"edge_certificates: {name} has a key_path and no certificate_path.")
            problems += [
                f"edge_certificates: {key} of {name} is not an absolute path on the host."
                for key in ("certificate_path", "key_path")
                if one.get(key) and not str(one[key]).startswith("/")
            ]
            continue
        whole = f"{one.get('certificate') or ''}\n{one.get('key') or ''}"
        if "BEGIN CERTIFICATE" not in whole:
            problems.append(
                f"edge_certificates: certificate of {name} is no PEM text (-----BEGIN CERTIFICATE-----)."
            )
        if "ENCRYPTED" in whole:
            problems.append(
                f"edge_certificates: the key of {name} is encrypted, and nobody is there to type its passphrase: "
                "give it as it is, from a vault."
            )
        elif "PRIVATE KEY-----" not in whole:
            problems.append(
                f"edge_certificates: {name} has no private key (-----BEGIN ... PRIVATE KEY-----)."
            )
    if acme.get("names") and not acme.get("email"):
        problems.append("edge_acme needs an email address, which the authority warns about its certificates.")
    if acme.get("names") and int(http_port) == 0:
        problems.append(
            "edge_acme needs edge_http_port: the authority asks on port 80, so that must be 80 or lead there."
        )
    return problems


def _vrrp_problems(wish: Mapping[str, Any]) -> list[str]:
    problems = []
    password, advert = str(wish["password"] or ""), float(wish["advert_s"])
    if not 0.05 <= advert <= 40:
        problems.append(f"edge_advert_s is {advert:g}; it may be 0.05 to 40 seconds.")
    if password:
        if len(password) != PASSWORD_LENGTH or not password.isascii() or not password.isprintable():
            problems.append(
                f"edge_vrrp_password must have exactly {PASSWORD_LENGTH} characters (ASCII): VRRP carries no more, and a "
                "longer one would be cut."
            )
        elif re.search(r"[\s\"'#!{}]", password):
            problems.append("edge_vrrp_password must have no blanks, quotes, braces, # or !.")
        # also a longer one: what counts of it is its beginning
        if known_password(password) or known_password(password[:PASSWORD_LENGTH]):
            problems.append(
                "edge_vrrp_password is one that everybody knows: take a random one (openssl rand -hex 4) "
                "and keep it in a vault."
            )
        if advert != int(advert):
            problems.append(
                f"edge_vrrp_password is for VRRP version 2, whose adverts come in whole seconds: set edge_advert_s to 1 in "
                f"place of {advert:g}, and the address moves in three to four seconds; or leave the password out."
            )
    return problems


def vrrp_priority(host: str, hosts: Iterable[Mapping[str, Any]], prefer: str | None) -> int:
    """Priority of a host for an address: the preferred one first, then in the order in which they are named."""
    names = [str(one["name"]) for one in hosts]
    order = sorted(names, key=lambda name: (name != prefer, names.index(name)))
    return 200 - order.index(host)


def certificate_files(certificates: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The files of declared certificates by their paths within a configuration: ``secrets`` (texts) and ``gathered`` (lists
    of paths on the host).
    """
    declared = list(certificates)
    secrets = {
        _certificate_file(one): "".join(
            f"{str(one.get(key) or '').strip()}\n" for key in ("certificate", "key") if one.get(key)
        )
        for one in declared
        if not one.get("certificate_path")
    }
    return {"secrets": secrets, "gathered": gathered_files(declared)}


def gathered_files(certificates: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The paths on the host that declared certificates are put together from. No key's text is looked at: who only looks at
    the edge may not be able to decrypt it.
    """
    return {
        _certificate_file(one): [str(one[key]) for key in ("certificate_path", "key_path") if one.get(key)]
        for one in certificates
        if one.get("certificate_path")
    }


def _certificate_file(one: Mapping[str, Any]) -> str:
    return f"certificates/{one['name']}.pem"


def edge_wiring(
    settings: Mapping[str, Mapping[str, Any]], edges: Sequence[str], proxies: Sequence[str]
) -> dict[str, Any]:
    """``hosts`` and ``proxies`` as the role takes them, from the fleet's settings, and the ``problems`` with that."""
    hosts, behind, problems = [], [], []
    for name in edges:
        address, problem = edge_address(name, settings[name])
        problems += [problem] if problem else []
        hosts.append({"name": name, "address": address})
    for name in proxies:
        listen = address_of(settings[name]["fleet_proxy_listen"])
        if listen is None or listen.is_loopback:
            problems.append(
                f"{name}: the proxy listens on {settings[name]['fleet_proxy_listen']}, where the edge does not reach it. "
                "Set fleet_proxy_listen to an IP address of the network between them."
            )
            continue
        address, problem = edge_address(name, settings[name])
        if not listen.is_unspecified:
            address, problem = str(listen), ""
        problems += [problem] if problem else []
        behind.append({"name": name, "address": address, "port": int(settings[name]["fleet_proxy_port"])})
    return {"hosts": hosts, "proxies": behind, "problems": problems}


def edge_address(name: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    """The address that an edge host asks proxies and speaks to its peers from; else an empty one and why.

    ``fleet_edge_address``, else the address that the host's proxy listens on, else ``fleet_address``.
    """
    listen = address_of(settings.get("fleet_proxy_listen"))
    own = listen is not None and not listen.is_loopback and not listen.is_unspecified
    given = settings.get("fleet_edge_address") or (str(listen) if own else settings.get("fleet_address"))
    address = address_of(given)
    if address is None or address.is_loopback or address.is_unspecified:
        return "", (
            f"{name}: {given} is no IP address that other machines reach. Set fleet_edge_address to the one that this "
            "host has towards the proxies and the other edge hosts."
        )
    return str(address), ""


def edge_sources(settings: Mapping[str, Mapping[str, Any]], edges: Sequence[str]) -> list[str]:
    """The addresses of the edge hosts: what proxies may believe where a request came from. Unknown ones are left out."""
    found = (edge_address(name, settings[name])[0] for name in edges)
    return sorted({address for address in found if address})
