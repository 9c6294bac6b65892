"""What was seen of the edge and what is declared for it, by host, with its certificates read. Runs on the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data
from cryptography import x509
from cryptography.x509.oid import NameOID

_DAY_S = 86400


@dataclass(frozen=True)
class EdgeHost:
    """One edge host: a result of ``edge_facts``, what is ``declared`` for it, and its ``certificates``."""

    seen: Mapping[str, Any]
    declared: Mapping[str, Any]
    certificates: list[dict[str, Any]]


def edge_seen(
    hostvars: Mapping[str, Any], hosts: Iterable[str], now: datetime | None = None
) -> dict[str, EdgeHost]:
    """The edge hosts by their names, from what the role's ``look`` left with them."""
    at = now or datetime.now(UTC)
    found = {}
    for host in hosts:
        seen = data(hostvars[host].get("__edge_facts")) or {}
        if seen.get("skipped"):
            continue  # no edge is wished there
        there = (seen.get("configurations") or {}).get("haproxy") or {}
        certificates = [
            read_certificate(name, pem, at) for name, pem in sorted((there.get("certificates") or {}).items())
        ]
        found[str(host)] = EdgeHost(seen, data(hostvars[host].get("__edge_declared")) or {}, certificates)
    return found


def read_certificate(file: str, pem: str, now: datetime) -> dict[str, Any]:
    """``file``, ``name`` (its subject), ``names`` that it is good for, ``until`` (ISO 8601), ``days_left`` (negative: it
    has ended) and ``began``; or the ``problem`` with it.
    """
    empty: dict[str, Any] = {
        "file": file,
        "name": None,
        "names": [],
        "until": None,
        "days_left": None,
        "began": None,
        "problem": "",
    }
    try:
        read = x509.load_pem_x509_certificate(pem.encode())
        until, began = read.not_valid_after_utc, read.not_valid_before_utc
        names = _names(read)
        common = [str(one.value) for one in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, x509.DuplicateExtension) as error:
        return empty | {"problem": f"it cannot be read: {error}"}
    return empty | {
        "name": next(iter([*names, *common]), read.subject.rfc4514_string()),
        "names": names,
        "until": until.isoformat(timespec="seconds"),
        "days_left": int((until - now).total_seconds() // _DAY_S),
        "began": began <= now,
    }


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *said.get_values_for_type(x509.DNSName),
        *(str(one) for one in said.get_values_for_type(x509.IPAddress)),
    ]
