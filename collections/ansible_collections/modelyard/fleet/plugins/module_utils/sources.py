"""The kinds of places that weights come from, as data: what the planner, the roles and the hosts know of each.

``models.schema.json`` has the same keys for the operator; a test holds the two together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind. ``pin`` is the key that fixes the content, empty where nothing does (the files are taken as they are).

    ``listed``: the place holds many files and a list of their checksums, whose own SHA-256 is the pin. ``contacts``: a
    connection is made to read it. ``in_place``: the engine reads the very files; nothing is fetched.
    """

    key: str
    pin: str = ""
    listed: bool = False
    contacts: bool = True
    in_place: bool = False


KINDS: Mapping[str, Kind] = {
    kind.key: kind
    for kind in (
        Kind("path", contacts=False, in_place=True),
        Kind("custom", contacts=False, in_place=True),
        Kind("hub", "revision"),
        Kind("url", "sha256"),
        Kind("files", "sha256", listed=True),
        Kind("s3", "sha256", listed=True),
        Kind("rsync", "sha256", listed=True),
        Kind("copy", "sha256", listed=True, contacts=False),
    )
}

LIST = "SHA256SUMS"
"""The file with the checksums at a listed place, as ``sha256sum`` writes it."""


def list_text(checksums: Mapping[str, str]) -> str:
    """Checksums by path as the text that ``sha256sum`` would print for them, sorted by path."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(checksums.items()))


def pin_of(kind: Kind, source: Mapping[str, object]) -> str | None:
    """What fixes the content of a declared source: its revision or checksum, or the digest of the checksums it lists."""
    checksums = source.get("checksums")
    if kind.listed and isinstance(checksums, Mapping) and checksums:
        return hashlib.sha256(list_text(checksums).encode()).hexdigest()
    value = source.get(kind.pin) if kind.pin else None
    return str(value) if value else None


def kinds_in(source: Mapping[str, object]) -> list[str]:
    """The kinds that a source names; right is exactly one."""
    return [key for key in KINDS if source.get(key) is not None]
