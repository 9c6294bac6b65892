"""Container images as archives of ``docker save``, named so that a host without a registry finds them again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.bundle.archives import image_names
from modelyard.bundle.manifest import BundleError
from modelyard.bundle.paths import slug
from modelyard.bundle.sources import Collected, Told, run, watching

_PINNED = re.compile(r"(?P<name>[^@]+)@sha256:(?P<digest>[0-9a-f]{64})")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")

Run = Callable[..., str]


def repository(reference: str) -> str:
    """A reference without tag and digest."""
    name = reference.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def loaded_as(reference: str) -> str:
    """The name under which an archive carries an image.

    ``docker load`` gives an image its tags and never its digest. One that is pinned gets its digest as a tag, by which
    hosts find it: ``name_here`` of the collection's ``containers/engine.py`` is the other half of this.
    """
    match = _PINNED.fullmatch(reference)
    if match is not None:
        return f"{repository(match['name'])}:modelyard-{match['digest']}"
    return reference if repository(reference) != reference else f"{reference}:latest"


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image, from the engine of this machine, which pulls it when it does not have it.

    ``platform`` (``linux/arm64``) is what is pulled, empty for the machine's own.
    """

    reference: str
    models: tuple[str, ...]
    platform: str = ""
    run: Run = field(default=run, compare=False)
    kind: str = "image"

    @property
    def name(self) -> str:
        """The reference."""
        return self.reference

    @property
    def path(self) -> str:
        """Of its archive."""
        return f"images/{slug(loaded_as(self.reference))}.tar"

    @property
    def wish(self) -> Mapping[str, Any]:
        """Reference and platform. A tag is not asked about again: what has been collected stays."""
        return {"image": self.reference, "platform": self.platform}

    def expected(self) -> int | None:
        """Its size in the engine, when that has it."""
        try:
            found = self._inspect(self.reference)
        except BundleError:
            return None
        return int(found["Size"]) if found else None

    def collect(self, scratch: Path, told: Told) -> Collected:
        """Pull it where that is needed, name it, save it. See ``Source.collect``."""
        if not _REFERENCE.fullmatch(self.reference):
            raise BundleError(f"{self.reference[:120]!r} is no reference of an image.")
        found = self._inspect(self.reference)
        if found is None:
            wanted = ["--platform", self.platform] if self.platform else []
            self.run(["docker", "pull", "--quiet", *wanted, self.reference],
                     f"The image {self.reference} could not be pulled")  # fmt: skip
            found = self._inspect(self.reference)
            if found is None:
                raise BundleError(
                    f"The image {self.reference} was pulled, and the engine still does not know it."
                )
        here = f"{found.get('Os', '')}/{found.get('Architecture', '')}"
        if self.platform and not f"{self.platform}/".startswith(f"{here}/"):
            raise BundleError(
                f"The image {self.reference} is here for {here}, and {self.platform} is asked for: "
                f"remove it here first (docker rmi), so that the right one is pulled."
            )
        name = loaded_as(self.reference)
        target = scratch / "image.tar"
        target.unlink(missing_ok=True)
        told.part(self.reference, int(found["Size"]))
        tagged = name != self.reference and self._inspect(name) is None
        if name != self.reference:
            self.run(["docker", "tag", self.reference, name], f"{self.reference} could not be named {name}")
        try:
            with watching(target, told):
                self.run(["docker", "save", "--output", str(target), name], f"{name} could not be saved")
        finally:
            if tagged:
                self.run(["docker", "rmi", name], f"The name {name} could not be taken back")
        if image_names(target) != [name]:
            raise BundleError(
                f"The engine saved something else than {name}: {', '.join(image_names(target))}."
            )
        digests = [str(one) for one in found.get("RepoDigests") or ()]
        digest = self.reference if _PINNED.fullmatch(self.reference) else _digest_of(self.reference, digests)
        details = {
            "reference": self.reference,
            "loaded_as": name,
            "id": found["Id"],
            "digest": digest,
            "platform": here,
        }
        return Collected(target, details)

    def _inspect(self, reference: str) -> dict[str, Any] | None:
        """What the engine knows of an image, None when it has none. ``BundleError`` when it does not answer."""
        try:
            text = self.run(["docker", "image", "inspect", "--format", "{{json .}}", reference],
                            f"The image {reference} cannot be asked about")  # fmt: skip
        except BundleError as error:
            if any("no such image" in line.lower() for line in error.problems):
                return None
            raise
        return dict(json.loads(text))


def _digest_of(reference: str, digests: list[str]) -> str | None:
    """Which of an image's repository digests belongs to the reference."""
    own = repository(reference)
    short = own.removeprefix("docker.io/")
    known = {own, short, f"library/{short}", short.removeprefix("library/")}
    return next((one for one in digests if one.partition("@")[0] in known), None)
