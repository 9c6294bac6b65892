"""Packages of the operating system, with everything that they need: for hosts that run what this machine runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.bundle.manifest import BundleError
from modelyard.bundle.sources import Collected, Told, run, watching

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,100}")
_LINE = re.compile(
    r"'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+)(?: (?P<kind>[A-Za-z0-9]+):(?P<digest>[0-9a-f]+))?"
)
LIST = "Packages"

Run = Callable[..., str]


@dataclass(frozen=True, slots=True)
class PackagesSource:
    """Debian packages of ``platform`` (``debian-12``), as apt of this machine has them."""

    platform: str
    names: tuple[str, ...]
    run: Run = field(default=run, compare=False)
    kind: str = "packages"

    @classmethod
    def of_this_machine(cls, names: tuple[str, ...]) -> PackagesSource:
        """For hosts like this one. ``BundleError`` where this is no Debian or Ubuntu, or a name is none."""
        for name in names:
            if not _NAME.fullmatch(name):
                raise BundleError(f"{name[:80]!r} is no name of a package.")
        platform = platform_of(Path("/etc/os-release").read_text(encoding="utf-8"))
        return cls(platform, tuple(sorted(set(names))))

    @property
    def name(self) -> str:
        """The packages that were asked for."""
        return f"{self.platform}: {', '.join(self.names)}"

    @property
    def path(self) -> str:
        """Of the directory."""
        return f"packages/{self.platform}"

    @property
    def wish(self) -> Mapping[str, Any]:
        """The names; newer versions are no reason to collect them again."""
        return {"packages": list(self.names), "platform": self.platform}

    def expected(self) -> int | None:
        """What apt says."""
        try:
            return sum(int(match["size"]) for match in self._needed(None))
        except BundleError:
            return None

    def collect(self, scratch: Path, told: Told) -> Collected:
        """Download them and list them as apt wants it. See ``Source.collect``."""
        content = scratch / "content"
        content.mkdir(exist_ok=True)
        needed = list(self._needed(scratch))
        told.part(self.name, sum(int(match["size"]) for match in needed))
        state = self._state(scratch)
        with watching(content, told):
            self.run(
                [
                    *["apt-get", *state, "-o", f"Dir::Cache::archives={content}", "--yes", "--download-only"],
                    *["--no-install-recommends", "install", *self.names],
                ],
                f"The packages {', '.join(self.names)} could not be downloaded",
            )
        for left in ("lock", "partial"):
            place = content / left
            if place.is_dir():
                place.rmdir()
            else:
                place.unlink(missing_ok=True)
        entries = [self._entry(path) for path in sorted(content.glob("*.deb"))]
        if not entries:
            raise BundleError(f"apt downloaded nothing for {', '.join(self.names)}.")
        (content / LIST).write_text("\n".join(entries), encoding="utf-8")
        return Collected(content, {"platform": self.platform, "names": list(self.names)})

    def _entry(self, path: Path) -> str:
        control = self.run(["dpkg-deb", "--field", str(path)], f"{path.name} cannot be read").strip()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return f"{control}\nFilename: ./{path.name}\nSize: {path.stat().st_size}\nSHA256: {digest}\n"

    def _state(self, scratch: Path | None) -> list[str]:
        """Options with which apt believes that nothing is installed, so that nothing is left out."""
        if scratch is None:
            return ["-o", "Dir::State::status=/dev/null"]
        status = scratch / "status"
        status.touch()
        return [
            "-o",
            f"Dir::State::status={status}",
            "-o",
            "Debug::NoLocking=true",
            "-o",
            "APT::Sandbox::User=",
        ]

    def _needed(self, scratch: Path | None) -> Iterator[re.Match[str]]:
        text = self.run(
            [
                "apt-get",
                *self._state(scratch),
                "--yes",
                "--print-uris",
                "--no-install-recommends",
                "install",
                *self.names,
            ],
            f"apt does not know how to install {', '.join(self.names)}",
        )
        yield from (match for line in text.splitlines() if (match := _LINE.match(line)))


def platform_of(os_release: str) -> str:
    """``debian-12`` out of ``/etc/os-release``. ``BundleError`` for what has no apt."""
    found = dict(line.partition("=")[::2] for line in os_release.splitlines() if "=" in line)
    name, version = found.get("ID", "").strip('"'), found.get("VERSION_ID", "").strip('"')
    if name not in ("debian", "ubuntu") or not version:
        raise BundleError("Packages of the operating system can be collected on Debian and Ubuntu only.")
    return f"{name}-{version}"
