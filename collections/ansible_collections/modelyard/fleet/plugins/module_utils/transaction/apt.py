"""apt: what is installed and held, a simulation, one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansible_collections.modelyard.fleet.plugins.module_utils.transaction import text

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]
"""Runs a command with LC_ALL=C; gives status, output, errors."""
_ASK = (
    "apt-get", "--yes", "--no-install-recommends", "--allow-change-held-packages", "--allow-downgrades",
    "--option=DPkg::Lock::Timeout=300", "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
)  # fmt: skip
_UNKNOWN = ("Unable to locate package", "has no installation candidate", "was not found")


class TransactionError(Exception):
    """A sentence for the operator."""


class Apt:
    """Debian's package manager."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def installed(self) -> dict[str, str]:
        """Versions by name."""
        out = self._must("dpkg-query", "--show", "--showformat=${db:Status-Status}\t${Package}\t${Version}\n")
        rows = [line.split("\t") for line in out.splitlines()]
        return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}

    def refresh(self) -> None:
        """Fetch the lists of packages anew."""
        self._must("apt-get", "--option=DPkg::Lock::Timeout=300", "update", "--quiet")

    def simulate(self, install: Sequence[str], remove: Sequence[str]) -> text.Steps | None:
        """What would happen; None where a package is in none of the repositories that apt knows now."""
        code, out, err = self._run([*_ASK, "--simulate", "install", *_words(install, remove)])
        if code == 0:
            return text.parse_apt(out)
        if any(word in err for word in _UNKNOWN):
            return None
        raise TransactionError(f"apt cannot do this in one transaction: {_complaint(out, err)}")

    def commit(self, install: Sequence[str], remove: Sequence[str]) -> None:
        """Do it, in one transaction."""
        code, out, err = self._run([*_ASK, "install", *_words(install, remove)])
        if code != 0:
            raise TransactionError(f"apt-get ended with status {code}: {_complaint(out, err)}")

    def held(self) -> list[str]:
        """Packages on hold."""
        return self._must("apt-mark", "showhold").split()

    def hold(self, names: Sequence[str]) -> None:
        """Put on hold."""
        self._must("apt-mark", "hold", *names)

    def release(self, names: Sequence[str]) -> None:
        """End the hold."""
        self._must("apt-mark", "unhold", *names)

    def stream(self, name: str) -> str:
        """Apt has no streams."""
        return ""

    def enable(self, stream: str) -> None:
        """Apt has no streams."""

    def _must(self, *command: str) -> str:
        code, out, err = self._run(command)
        if code != 0:
            raise TransactionError(f"{command[0]} ended with status {code}: {_complaint(out, err)}")
        return out


def _words(install: Sequence[str], remove: Sequence[str]) -> list[str]:
    return [*install, *(f"{name}-" for name in remove)]


def _complaint(out: str, err: str) -> str:
    """What apt says is wrong: its errors, and the lines on dependencies before them."""
    lines = [
        line.strip()
        for line in out.splitlines()
        if "Depends:" in line or "Conflicts:" in line or "Breaks:" in line
    ]
    lines += [line.strip() for line in err.splitlines() if line.startswith(("E:", "dpkg:"))]
    return "; ".join(lines[:12]) or (err.strip() or out.strip())[-600:]
