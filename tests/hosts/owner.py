"""Who owns a container, network or store that a test session made, and removing what the dead left.

Everything carries its owner's identity: a process of this machine. A session that ends, even by Ctrl-C,
removes what it made; for one that was killed the next session does.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tests.parts import store
from tests.parts.docker import docker

LABEL = "modelyard-test.owner"
_FORM = re.compile(r"(\d+)-(\d+)-(\d+)")


@dataclass(frozen=True)
class Owner:
    """A process: its namespace of process ids, its id, its start (in clock ticks since the boot)."""

    namespace: int
    pid: int
    started: int

    @classmethod
    def current(cls) -> Owner:
        """Return the owner that this process is."""
        return cls(_namespace(), os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that ``str(owner)`` wrote, or None for another text."""
        found = _FORM.fullmatch(text)
        return cls(*(int(number) for number in found.groups())) if found else None

    def __str__(self) -> str:
        return f"{self.namespace}-{self.pid}-{self.started}"

    def is_dead(self) -> bool:
        """Whether this process surely does not run any more; one that cannot be seen from here may."""
        return self.namespace == _namespace() and _started(self.pid) != self.started


def sweep() -> list[str]:
    """Remove what sessions left that do not run any more; return the names of what was removed."""
    removed = []
    for kind, listing in (
        ("container", ["container", "ls", "--all"]),
        ("network", ["network", "ls"]),
    ):
        form = '{{.ID}} {{.Label "' + LABEL + '"}}'
        lines = docker(*listing, "--filter", f"label={LABEL}", "--format", form).splitlines()
        for identity, _, label in (line.partition(" ") for line in lines):
            if _is_left(label):
                flags = ["--force", "--volumes"] if kind == "container" else []
                docker(kind, "rm", *flags, identity)
                removed.append(f"{kind} {identity}")
    for name in store.names():
        if _is_left(name.removeprefix("run-").rpartition(".")[0]):
            store.drop(name)
            removed.append(f"store {name}")
    return removed


def store_name(owner: Owner, host: str) -> str:
    """The name of the store of one of `owner`'s hosts."""
    return f"run-{owner}.{host}"


def _is_left(text: str) -> bool:
    owner = Owner.parse(text)
    return owner is not None and owner.is_dead()


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _started(pid: int) -> int | None:
    try:
        # the command's name may hold blanks and brackets: count the fields behind its last bracket
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[19])
