"""Which packages a host needs changed, and whether it may have them changed now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

Installed = Mapping[str, Mapping[str, Any]]


def package_changes(
    wanted: Iterable[Mapping[str, Any]], installed: Installed, manager: str
) -> list[dict[str, Any]]:
    """The packages that are missing, or installed in another version than the one that is asked for.

    ``wanted`` has ``name``, ``version`` (a pattern as in a shell; empty takes what there is) and ``engine`` (whether
    containers depend on it). A result has ``name``, ``from`` (empty: not installed), ``to`` (empty: the newest that
    the repositories have), ``engine``, and ``spec`` as ``manager`` (``apt`` or ``dnf``) takes it.
    """
    changes = []
    for item in wanted:
        name, version = str(item["name"]), str(item.get("version") or "")
        there = str(installed[name]["version"]) if name in installed else ""
        if there and (not version or _matches(there, version)):
            continue
        separator = "=" if manager == "apt" else "-"
        changes.append(
            {
                "name": name,
                "from": there,
                "to": version,
                "engine": bool(item.get("engine")),
                "spec": f"{name}{separator}{version}" if version else name,
            }
        )
    return changes


def _matches(version: str, pattern: str) -> bool:
    """Whether a version is the one that is asked for; its epoch may be left out of the pattern."""
    bare = version.partition(":")[2] or version
    return any(fnmatchcase(one, pattern) for one in (version, bare))


def change_line(change: Mapping[str, Any]) -> str:
    """One change in words."""
    to = change["to"] or "the newest version there is"
    return f"{change['name']}: {change['from'] or 'not installed'} -> {to}"


def refusals(
    host: str,
    engine: Mapping[str, Any],
    running: list[str],
    changes: Iterable[Mapping[str, Any]],
    not_survived: Iterable[str],
) -> list[str]:
    """Why nothing may be changed on a host now, in sentences; none where it may.

    ``engine`` and ``running`` are what the module ``container_host`` saw, ``changes`` come from
    :func:`package_changes`, ``not_survived`` are settings that running containers do not survive.
    """
    upset = [change_line(change) for change in changes if change["engine"]]
    what = f"packages of its container engine would change ({'; '.join(upset)})" if upset else ""
    settings = sorted(not_survived)
    if settings:
        what += " and " if what else ""
        what += f"its daemon would be restarted with another {', '.join(settings)}"
    if not what:
        return []
    way_out = (
        f"Drain the host and stop its models first (playbooks/drain.yml -e host={host}, then playbooks/stop.yml), or set "
        f"container_runtime_disruption_allowed: true for a host that is drained. Nothing was changed on it."
    )
    if engine["state"] == "unknown":
        return [
            f"{host}: {what}, but its engine does not answer ({engine['problem']}), so whether models run there is "
            f"unknown. {way_out}"
        ]
    if running:
        return [f"{host}: {what} while models run that may not survive it: {', '.join(running)}. {way_out}"]
    return []
