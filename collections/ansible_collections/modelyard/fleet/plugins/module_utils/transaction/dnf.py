"""dnf 4: the same with its shell, which makes one transaction of several commands, and with module streams."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.transaction import text
from ansible_collections.modelyard.fleet.plugins.module_utils.transaction.apt import Run, TransactionError


class Dnf:
    """The package manager of RHEL 9 and its kin. ``etc`` is where its configuration is."""

    def __init__(self, run: Run, etc: Path = Path("/etc/dnf")) -> None:
        self._run = run
        self._etc = etc

    def installed(self) -> dict[str, str]:
        """Versions by name."""
        out = self._must("rpm", "--query", "--all", "--queryformat", "%{NAME}\t%{VERSION}-%{RELEASE}\n")
        return dict(line.split("\t", 1) for line in out.splitlines() if "\t" in line)

    def refresh(self) -> None:
        """Dnf looks for itself whether its lists are too old."""

    def simulate(self, install: Sequence[str], remove: Sequence[str]) -> text.Steps | None:
        """What would happen; None where a package is in none of the repositories that dnf knows now."""
        code, out, err = self._shell("--assumeno", install, remove)
        if "Unable to find a match" in out + err or "No match for argument" in out + err:
            return None
        steps = text.parse_dnf(out)
        if not steps and code != 0:
            raise TransactionError(f"dnf cannot do this in one transaction: {_complaint(out, err)}")
        return steps

    def commit(self, install: Sequence[str], remove: Sequence[str]) -> None:
        """Do it, in one transaction."""
        code, out, err = self._shell("--assumeyes", install, remove)
        if code != 0 or "Error:" in err:
            raise TransactionError(f"dnf ended with status {code}: {_complaint(out, err)}")

    def held(self) -> list[str]:
        """Names of packages that are locked."""
        return sorted(
            {
                _name_of(line)
                for line in self._must("dnf", "--quiet", "versionlock", "list").splitlines()
                if line.strip()
            }
        )

    def hold(self, names: Sequence[str]) -> None:
        """Lock at the installed versions."""
        self._must("dnf", "--quiet", "versionlock", "add", *names)

    def release(self, names: Sequence[str]) -> None:
        """End the locks."""
        self._must("dnf", "--quiet", "versionlock", "delete", *names)

    def stream(self, name: str) -> str:
        """The stream of a module that is enabled; empty where none is."""
        try:
            found = text.stream_in((self._etc / "modules.d" / f"{name}.module").read_text(encoding="utf-8"))
        except OSError:
            return ""
        return f"{name}:{found}" if found else ""

    def enable(self, stream: str) -> None:
        """Change to a stream; no package is touched by that."""
        self._must("dnf", "--assumeyes", "module", "reset", stream.partition(":")[0])
        self._must("dnf", "--assumeyes", "module", "enable", stream)

    def _shell(self, answer: str, install: Sequence[str], remove: Sequence[str]) -> tuple[int, str, str]:
        there = self.installed()
        moved = [name for name in install if name in there]
        new = [name for name in install if name not in there]
        # locks would hide the versions that are to come
        commands = [
            " ".join([verb, *names])
            for verb, names in (("remove", remove), ("install", new), ("distro-sync", moved))
            if names
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".dnf", encoding="utf-8") as script:
            script.write("\n".join([*commands, "run"]) + "\n")
            script.flush()
            return self._run(
                ["dnf", answer, "--disableplugin=versionlock", "--setopt=install_weak_deps=False",
                 "--setopt=clean_requirements_on_remove=False", "shell", script.name]
            )  # fmt: skip

    def _must(self, *command: str) -> str:
        code, out, err = self._run(command)
        if code != 0:
            raise TransactionError(
                f"{' '.join(command[:4])} ended with status {code}: {_complaint(out, err)}"
            )
        return out


def _name_of(lock: str) -> str:
    """``nvidia-driver-cuda`` of ``nvidia-driver-cuda-3:580.95.05-1.el9.*``."""
    match = re.match(r"!?(.+)-(?:\d+:)?[^-:]+-[^-]+$", lock.strip())
    return match.group(1) if match else lock.strip()


def _complaint(out: str, err: str) -> str:
    lines = [line.strip() for line in (err + "\n" + out).splitlines() if line.strip()]
    first = next((n for n, line in enumerate(lines) if line.startswith("Error")), 0)
    return "; ".join(lines[first : first + 8])
