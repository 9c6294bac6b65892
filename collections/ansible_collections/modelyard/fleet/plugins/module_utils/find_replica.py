"""Which replica somebody means, and on which host it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_MOST = 8


def find_replica(
    typed: str, known: Iterable[Mapping[str, Any]], hosts: Collection[str]
) -> tuple[str, str, str]:
    """Replica, host and, when there is not exactly one, what is wrong with the name (else empty).

    ``known`` are assignments of the last deploy. A part of an id that only one of them has (``m.0``, a model with one
    replica) is enough. A full id of a host of ``hosts`` is taken as it is: the host knows what it has.
    """
    where = {str(item["replica"]): str(item["host"]) for item in known if item["host"] in hosts}
    if typed in where:
        return typed, where[typed], ""
    # the longest first: host names may contain dots, and one may begin like another
    for host in sorted(hosts, key=len, reverse=True):
        rest = typed[len(host) + 1 :]
        if typed.startswith(f"{host}.") and rest.rpartition(".")[2].isdigit() and "." in rest:
            return typed, host, ""
    meant = sorted(name for name in where if typed and f".{typed}." in f".{name}.")
    if len(meant) == 1:
        return meant[0], where[meant[0]], ""
    if meant:
        return "", "", f"{typed!r} may be any of these, say which: {_listed(meant)}."
    near = get_close_matches(typed, where, n=3, cutoff=0.5)
    if near:
        return "", "", f"There is no replica {typed!r}. Near it: {_listed(near)}."
    if where:
        return "", "", f"There is no replica {typed!r}. There are {_listed(sorted(where))}."
    return (
        "",
        "",
        f"There is no replica {typed!r}: no deploy is remembered here. Ids are <host>.<model>.<number>.",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
