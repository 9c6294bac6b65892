"""Ansible collections that an inventory's own plugins need, as the files that ``ansible-galaxy`` installs offline."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.bundle.archives import pack, read_json, unpack
from modelyard.bundle.manifest import BundleError
from modelyard.bundle.paths import sha256_of, unsafe
from modelyard.bundle.sources import Collected, Told

_NAME = re.compile(r"[a-z_][a-z0-9_]*\.[a-z_][a-z0-9_]*")
_VERSION = re.compile(r"[A-Za-z0-9.+_-]{1,64}")
OURS = "modelyard.fleet"


@dataclass(frozen=True, slots=True)
class CollectionSource:
    """One installed collection, at ``place``."""

    name: str
    version: str
    place: Path
    kind: str = "collection"

    @property
    def path(self) -> str:
        """Of the archive, named as Galaxy names it."""
        return f"collections/{self.name.replace('.', '-')}-{self.version}.tar.gz"

    @property
    def wish(self) -> Mapping[str, Any]:
        """Name and version."""
        return {"collection": self.name, "version": self.version}

    def expected(self) -> int | None:
        """Unpacked, by its own list."""
        return sum(path.stat().st_size for _, path in self._members())

    def collect(self, scratch: Path, told: Told) -> Collected:
        """See ``Source.collect``."""
        told.part(f"{self.name} {self.version}", None)
        target = scratch / "collection.tar.gz"
        pack(target, self._members())
        return Collected(target, {"version": self.version})

    def _members(self) -> list[tuple[str, Path]]:
        members = [("MANIFEST.json", self.place / "MANIFEST.json"), ("FILES.json", self.place / "FILES.json")]
        try:
            listed = json.loads((self.place / "FILES.json").read_text(encoding="utf-8"))["files"]
            for entry in listed:
                if entry["ftype"] != "file":
                    continue
                path = self.place / entry["name"]
                if unsafe(entry["name"]) or sha256_of(path) != entry["chksum_sha256"]:
                    raise BundleError(
                        f"{path} is not as {self.name} {self.version} has it: install the collection anew."
                    )
                members.append((entry["name"], path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{self.name} in {self.place} is not whole: {error}") from error
        return members


def find(names: Iterable[str], paths: Sequence[Path]) -> list[CollectionSource]:
    """The installed collections of these names and those that they depend on. Raises ``BundleError``."""
    found: dict[str, CollectionSource] = {}
    pending = list(names)
    while pending:
        name = pending.pop(0)
        if name in found or name == OURS:
            continue
        if not _NAME.fullmatch(name):
            raise BundleError(f"{name[:80]!r} is no name of a collection, such as community.general.")
        places = [path / "ansible_collections" / name.replace(".", "/") for path in paths]
        place = next((place for place in places if (place / "MANIFEST.json").is_file()), None)
        if place is None:
            raise BundleError(
                f"The collection {name} is not installed here (ansible-galaxy collection install {name}); looked in "
                f"{', '.join(map(str, paths))}."
            )
        info = _info(json.loads((place / "MANIFEST.json").read_text(encoding="utf-8")), name)
        found[name] = CollectionSource(name, str(info["version"]), place)
        pending += [str(one) for one in info.get("dependencies") or {}]
    return list(found.values())


def search_paths(root: Path, environment: Mapping[str, str]) -> list[Path]:
    """Where Ansible would look for collections when it runs from here."""
    given = [Path(path) for path in environment.get("ANSIBLE_COLLECTIONS_PATH", "").split(os.pathsep) if path]
    usual = [Path.home() / ".ansible" / "collections", Path("/usr/share/ansible/collections")]
    return [
        root / "collections",
        *given,
        *usual,
        *(Path(path) for path in sys.path if path.endswith("site-packages")),
    ]


def install(archive: Path, name: str, collections: Path, *, check: bool) -> bool:
    """Unpack a collection's archive below ``collections`` unless it is there in that version; whether it was not.

    Raises ``BundleError`` when the archive holds another collection than ``name`` says, or is not safe to unpack.
    """
    info = _info(read_json(archive, "MANIFEST.json"), name)
    target = collections / "ansible_collections" / name.replace(".", "/")
    try:
        there = json.loads((target / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"][
            "version"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        there = None
    if there == info["version"]:
        return False
    if not check:
        unpack(archive, target)
    return True


def _info(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    info = manifest.get("collection_info")
    if not isinstance(info, Mapping) or f"{info.get('namespace')}.{info.get('name')}" != name or name == OURS:
        raise BundleError(f"This is not the collection {name}.")
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(str(info.get("version"))):
        raise BundleError(f"The collection {name[:80]!r} has no proper name or version.")
    return info
