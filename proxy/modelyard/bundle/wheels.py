"""Python packages: what a lock names, as wheels for the Pythons that will install them."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.bundle.locks import for_python
from modelyard.bundle.manifest import BundleError
from modelyard.bundle.sources import Collected, Told, run, watching

_GLIBC = range(5, 35)  # manylinux_2_5 ... manylinux_2_34: no newer C library than that of RHEL 9
_OLD = ("manylinux1", "manylinux2010", "manylinux2014")

Run = Callable[..., str]


@dataclass(frozen=True, slots=True)
class WheelsSource:
    """The wheels of one lock, for each of ``pythons`` (``3.11``) on ``machine`` (``x86_64``).

    ``lock`` is the lock's text and ``lock_name`` its file in the bundle.
    """

    title: str
    lock: str
    lock_name: str
    pythons: tuple[str, ...]
    machine: str
    run: Run = field(default=run, compare=False)
    kind: str = "wheels"

    @property
    def name(self) -> str:
        """For whom they are."""
        return f"{self.title}: Python {', '.join(self.pythons)}, {self.machine}"

    @property
    def path(self) -> str:
        """Of the directory."""
        return f"wheels/{self.title}"

    @property
    def wish(self) -> Mapping[str, Any]:
        """The lock and the Pythons."""
        return {
            "lock": hashlib.sha256(self.lock.encode()).hexdigest(),
            "pythons": sorted(self.pythons),
            "machine": self.machine,
        }

    def expected(self) -> int | None:
        """Nobody knows before."""
        return None

    def collect(self, scratch: Path, told: Told) -> Collected:
        """Download them, each checked against the lock's hashes. See ``Source.collect``."""
        told.part(self.name, None)
        content = scratch / "content"
        # pip skips what is there already, and looks at its hash
        content.mkdir(parents=True, exist_ok=True)
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in reversed(_GLIBC)]
        platforms += [f"{old}_{self.machine}" for old in reversed(_OLD)] + [f"linux_{self.machine}"]
        with watching(content, told):
            for python in self.pythons:
                wanted = scratch / f"lock-{python}.txt"
                wanted.write_text(for_python(self.lock, python, self.machine), encoding="utf-8")
                try:
                    self.run(
                        [
                            *[
                                sys.executable,
                                "-m",
                                "pip",
                                "download",
                                "--quiet",
                                "--disable-pip-version-check",
                            ],
                            *["--no-input", "--no-deps", "--require-hashes", "--only-binary", ":all:"],
                            *["--python-version", python],
                            *[word for platform in platforms for word in ("--platform", platform)],
                            *["--dest", str(content), "--requirement", str(wanted)],
                        ],
                        f"The wheels of {self.title} could not be downloaded for Python {python} on {self.machine}",
                    )
                except BundleError:
                    # what was cut off must not be taken for a wheel by the next try
                    shutil.rmtree(content, ignore_errors=True)
                    raise
        (content / self.lock_name).write_text(self.lock, encoding="utf-8")
        return Collected(
            content, {"lock": self.lock_name, "pythons": list(self.pythons), "machine": self.machine}
        )
