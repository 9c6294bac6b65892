"""Servers of the distribution: those installed, else Debian's packages unpacked into a cache.

Unpacked, not installed: a package's own installation would start a server on every address of the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .machine import cache_directory

# what each needs beyond what a small system has
PACKAGES = {
    "nginx": ["nginx"],
    "haproxy": ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"],
}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


class Absent(Exception):  # noqa: N818 - it is no fault
    """A program cannot be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the libraries that came with it."""

    path: Path
    libraries: Path | None = None

    @property
    def command(self) -> list[str]:
        """The beginning of its command line."""
        if self.libraries is None:
            return [str(self.path)]
        return ["env", f"LD_LIBRARY_PATH={self.libraries}", str(self.path)]


def program(name: str) -> Program:
    """One of ``PACKAGES`` from the path, or out of Debian's packages. Raises ``Absent``."""
    installed = shutil.which(name, path=_PATH)
    if installed:
        return Program(Path(installed))
    kept = cache_directory() / f"debian-{name}"
    packages = PACKAGES[name]
    if not kept.is_dir():
        _unpack(packages, kept)
    found = shutil.which(name, path=f"{kept}/usr/sbin:{kept}/usr/bin")
    if not found:
        raise Absent(f"Debian's {' '.join(packages)} hold no {name}")
    library = next(iter(sorted(kept.glob("usr/lib/*-linux-gnu*"))), None)
    return Program(Path(found), library)


def _unpack(packages: Sequence[str], target: Path) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Absent(f"not installed, and there is no apt-get to fetch {packages[0]} with")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        fetched = subprocess.run(
            ["apt-get", "download", *packages], cwd=work, capture_output=True, text=True, check=False
        )
        if fetched.returncode:
            said = fetched.stderr.strip().splitlines() or ["apt-get download failed"]
            raise Absent(f"not installed, and not to be had: {said[-1]}")
        for package in work.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, work / "root"], check=True)
        # renamed last: what stands under the final name is whole
        (work / "root").rename(target)
