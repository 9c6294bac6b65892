"""Names of packages: filled in from platform data, and told apart when they are installed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Route = Mapping[str, Any]
_WORDS = {"open": "-open", "proprietary": ""}
_VERSION = re.compile(r"(?:\d+:)?(?P<upstream>(?P<branch>\d{3})(?:\.\d+)*)")
_FLAVOUR = re.compile(r"^\d+(?:\.\d+)*-\d+(?:\.\d+)*-(.+)$")


@dataclass(frozen=True)
class Member:
    """An installed package that belongs to a driver.

    ``named_branch`` is the branch in its name, ``branch`` that or the one of its version; ``is_open`` is None for what
    is the same with both kinds of kernel modules.
    """

    name: str
    version: str
    branch: int | None
    named_branch: int | None
    is_open: bool | None


def members(family: Iterable[Mapping[str, str]], installed: Mapping[str, str]) -> list[Member]:
    """The installed packages that look like one of the family, by name."""
    rules = [
        (re.compile(rule["name"]), re.compile(rule["version"]) if "version" in rule else None)
        for rule in family
    ]
    found = []
    for name, version in sorted(installed.items()):
        for names, versions in rules:
            match = names.fullmatch(name)
            if match and (versions is None or versions.fullmatch(version)):
                found.append(_member(name, version, match))
                break
    return found


def _member(name: str, version: str, match: re.Match[str]) -> Member:
    groups = match.groupdict()
    named = int(groups["branch"]) if groups.get("branch") else None
    is_open = bool(groups["open"]) if "open" in groups else None
    return Member(name, version, named or branch_of(version), named, is_open)


def branch_of(version: str) -> int | None:
    """580 of ``580.95.05-0ubuntu1``, and of ``3:580.95.05``."""
    match = _VERSION.match(version)
    return int(match["branch"]) if match else None


def upstream_of(version: str) -> str | None:
    """``580.95.05`` of a package's version."""
    match = _VERSION.match(version)
    return match["upstream"] if match else None


def flavour_of(kernel: str) -> str:
    """``generic`` of the kernel ``6.8.0-45-generic``; empty where a release has none."""
    match = _FLAVOUR.match(kernel)
    return match.group(1) if match else ""


def set_of(route: Route, branch: int) -> Mapping[str, Any]:
    """The packages' names as they are with this branch."""
    return next(one for one in route["packages"] if one.get("first", 0) <= branch <= one.get("last", branch))


def fill(names: Iterable[str], route: Route, branch: int, modules: str, flavour: str) -> list[str]:
    """Names with everything filled in; ``modules`` is open or proprietary."""
    words = route.get("words", _WORDS)
    return [name.format(branch=branch, open=words[modules], flavour=flavour) for name in names]


def anonymous(pattern: str) -> str:
    """A pattern without names for its groups, for programs that only match with it."""
    return re.sub(r"\?P<[a-z_]+>", "?:", pattern)
