"""The manifest: what a bundle holds, and the checksum of every file. It is written last, in one step."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from modelyard.bundle.paths import unsafe
from modelyard.errors import ConfigError

MANIFEST = "manifest.json"
WORK = ".incomplete"
"""Directory of a bundle that is being made; with it, or without a manifest, a bundle is not complete."""

KINDS = ("image", "weights", "wheels", "collection", "packages", "project")
_MOST_TOLD = 20
_LARGEST = 256 << 20  # bytes of a manifest; one with a million files has half of that


@dataclass(frozen=True, slots=True)
class File:
    """One file: path relative to the bundle, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that the fleet needs. ``wish`` is the digest of what was asked for, ``details`` depend on the kind."""

    kind: str
    name: str
    path: str
    wish: str
    details: Mapping[str, Any]

    def holds(self, path: str) -> bool:
        """Whether a file of the bundle belongs to this part."""
        return path == self.path or path.startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole manifest; see the schema for the meaning of each field."""

    created: str
    modelyard: str
    without: tuple[str, ...]
    parts: tuple[Part, ...]
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def of_kind(self, kind: str) -> list[Part]:
        """The parts of one kind."""
        return [part for part in self.parts if part.kind == kind]

    def files_of(self, part: Part) -> list[File]:
        """The files of one part."""
        return [file for file in self.files if part.holds(file.path)]

    def text(self) -> str:
        """As it stands in the file."""
        document: dict[str, Any] = {
            "version": 1,
            "created": self.created,
            "modelyard": self.modelyard,
            "without": sorted(self.without),
            "parts": [{**asdict(part), "details": dict(part.details)} for part in self.parts],
            "files": [asdict(file) for file in self.files],
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


class BundleError(ConfigError):
    """A bundle that cannot be made, or is not what its manifest says: nothing of it is used."""


@cache
def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    schema: dict[str, Any] = json.loads(
        files(__package__).joinpath("schemas", "manifest.schema.json").read_text(encoding="utf-8")
    )
    return schema


def parse(text: str, shown: str) -> Manifest:
    """A manifest out of its text; ``shown`` names it in messages. Raises ``BundleError`` with every fault."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BundleError(
            f"{shown} is no JSON ({error}): the bundle is damaged, copy or make it anew."
        ) from error
    faults = [
        f"{'.'.join(map(str, error.absolute_path)) or 'the whole'}: {_short(error.message)}"
        for error in Draft202012Validator(manifest_schema()).iter_errors(document)
    ]
    if not faults:
        manifest = Manifest(
            created=document["created"],
            modelyard=document["modelyard"],
            without=tuple(document["without"]),
            parts=tuple(Part(**part) for part in document["parts"]),
            files=tuple(File(**file) for file in document["files"]),
        )
        faults = list(_faults(manifest))
        if not faults:
            return manifest
    more = len(faults) - _MOST_TOLD
    told = [*faults[:_MOST_TOLD], f"... and {more} more"] if more > 0 else faults
    raise BundleError(f"{shown} is no manifest of a bundle that this version can use:", told)


def _faults(manifest: Manifest) -> Iterable[str]:
    """What a schema cannot say: paths that lead out, files that belong to nothing, parts without files."""
    for place, path in [
        *((f"parts.{at}", part.path) for at, part in enumerate(manifest.parts)),
        *((f"files.{at}", file.path) for at, file in enumerate(manifest.files)),
    ]:
        reason = unsafe(path)
        if reason:
            yield f"{place}: the path {path[:120]!r} {reason}: refused"
    for part in manifest.of_kind("wheels"):
        if unsafe(part.details["lock"]) or "/" in part.details["lock"]:
            yield f"the lock of {part.name} is no file name: refused"
    for kind, counted in (
        ("file", Counter(file.path for file in manifest.files)),
        ("part", Counter(part.path for part in manifest.parts)),
    ):
        yield from (
            f"the {kind} {path!r} is listed {times} times" for path, times in counted.items() if times > 1
        )
    paths = {part.path for part in manifest.parts}
    # every part is KIND/NAME, so its first two words name the part of a file
    held = {"/".join(file.path.split("/")[:2]) for file in manifest.files}
    yield from (f"the file {file.path!r} belongs to no part" for file in manifest.files
                if "/".join(file.path.split("/")[:2]) not in paths)  # fmt: skip
    yield from (f"the part {path!r} has no file" for path in sorted(paths - held))
    names = {file.path for file in manifest.files}
    for part in manifest.parts:
        single = part.kind in ("image", "collection", "project")
        if single and part.path not in names:
            yield f"the part {part.path!r} is no file"
        if part.kind == "wheels" and f"{part.path}/{part.details['lock']}" not in names:
            yield f"the part {part.path!r} lacks its lock"


def load(directory: Path) -> Manifest:
    """The manifest of a complete bundle. ``BundleError`` where there is none, or the bundle is still being made."""
    if not directory.is_dir():
        raise BundleError(
            f"{directory} is no directory: name the one that `modelyard bundle create` has made."
        )
    place = directory / MANIFEST
    if (directory / WORK).exists() or not place.exists():
        told = "is not complete: it was not finished" if (directory / WORK).exists() else f"has no {MANIFEST}"
        raise BundleError(
            f"{directory} {told}. Run `modelyard bundle create` again, which goes on from there, or copy it again."
        )
    return parse(read(place), str(place))


def read(place: Path) -> str:
    """The text of a manifest's file, which is no link and not endless. Raises ``BundleError``."""
    if place.is_symlink() or not place.is_file() or place.stat().st_size > _LARGEST:
        raise BundleError(f"{place} is no manifest: it is a link, no file, or far too large.")
    try:
        return place.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BundleError(f"{place} cannot be read: {error}") from error


def write(place: Path, text: str) -> None:
    """Replace a file in one step; a reader sees the old one or the new one. Raises ``OSError``."""
    descriptor, name = tempfile.mkstemp(prefix=".modelyard-", dir=place.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            os.fchmod(handle.fileno(), 0o644)
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    parent = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
