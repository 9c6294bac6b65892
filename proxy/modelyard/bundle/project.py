"""The project itself: playbooks, roles, our collection and the package, so that the closed side needs nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from modelyard.bundle.archives import pack
from modelyard.bundle.manifest import BundleError
from modelyard.bundle.sources import Collected, Told, run

# Inventories of somebody's own never go along: they hold secrets.
_TAKEN = (
    "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "ansible.cfg", "pyproject.toml", "collections/requirements.yml",
    "collections/fetch.py", "collections/wheel.txt", "collections/ansible_collections/modelyard/", "docs/",
    "inventories/example/", "inventories/local/", "playbooks/", "proxy/", "roles/", "templates/",
)  # fmt: skip
_LEFT = {"molecule", "__pycache__"}

Run = Callable[..., str]


def taken(path: str) -> bool:
    """Whether a file of the checkout goes along."""
    parts = PurePosixPath(path).parts
    if _LEFT & set(parts) or path.endswith(".pyc") or any(part.startswith(".") for part in parts):
        return False
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in _TAKEN)


@dataclass(frozen=True, slots=True)
class ProjectSource:
    """The checkout at ``root``: of what Git knows what is there now, without Git all files of its directories."""

    root: Path
    version: str
    run: Run = field(default=run, compare=False)
    kind: str = "project"

    @property
    def name(self) -> str:
        """With its version."""
        return f"modelyard {self.version}"

    @property
    def path(self) -> str:
        """Of the archive."""
        return f"project/modelyard-{self.version}.tar.gz"

    @property
    def wish(self) -> Mapping[str, Any]:
        """The content."""
        digest = hashlib.sha256()
        for name in self._names():
            content = (self.root / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return {"project": digest.hexdigest()}

    def expected(self) -> int | None:
        """Unpacked."""
        return sum((self.root / name).stat().st_size for name in self._names())

    def collect(self, scratch: Path, told: Told) -> Collected:
        """See ``Source.collect``."""
        names = self._names()
        if not names:
            raise BundleError(f"{self.root} holds nothing of Modelyard.")
        told.part(self.name, None)
        target = scratch / "project.tar.gz"
        top = f"modelyard-{self.version}"
        pack(target, [(f"{top}/{name}", self.root / name) for name in names])
        return Collected(target, {"version": self.version})

    def _names(self) -> list[str]:
        return sorted(name for name in self._listed() if taken(name) and _plain(self.root / name))

    def _listed(self) -> Iterator[str]:
        if (self.root / ".git").exists():
            listed = self.run(
                ["git", "-C", str(self.root), "ls-files", "-z", "--cached"], f"Git cannot list {self.root}"
            )
            yield from (name for name in listed.split("\0") if name)
            return
        for top in sorted({one.partition("/")[0] for one in _TAKEN}):
            place = self.root / top
            files = place.rglob("*") if place.is_dir() else [place]
            yield from (path.relative_to(self.root).as_posix() for path in files)


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
