"""A test host as a test sees it: a machine reached by SSH, with a Docker engine of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.parts import store
from tests.parts.docker import docker
from tests.parts.host_image import USER, journal


@dataclass(frozen=True)
class SshAccess:
    """How hosts are reached: a private key, and the only host keys that are believed."""

    key: Path
    known_hosts: Path

    @property
    def options(self) -> list[str]:
        """Options of ``ssh`` besides key and user: strict checking, nothing of the caller's own settings."""
        return [
            *["-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"],
            *["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"],
            *["-o", "GlobalKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10"],
        ]


@dataclass(frozen=True)
class Host:
    """One running host. `container` is its name in the outer engine, `models` where it has weights."""

    name: str
    address: str
    container: str
    access: SshAccess
    models: Path

    def ssh(self, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `command` over SSH as the operator; the caller looks at the result's status."""
        return subprocess.run(
            ["ssh", *self.access.options, "-i", str(self.access.key), f"{USER}@{self.address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, *command: str, timeout: float = 60) -> str:
        """Run `command` as root inside the host, past SSH; return its output, raise when it fails."""
        return docker("exec", self.container, *command, timeout=timeout)

    def docker(self, *arguments: str, timeout: float = 120) -> str:
        """Run a command of the host's own Docker engine."""
        return self.run("docker", *arguments, timeout=timeout)

    def containers(self, *, running: bool = False) -> list[dict[str, Any]]:
        """What ``docker inspect`` says about each container of the host's own engine."""
        names = self.docker("ps", "--quiet", *([] if running else ["--all"])).split()
        return list(json.loads(self.docker("inspect", *names))) if names else []

    def load_images(self, references: Sequence[str]) -> None:
        """Bring images of the outer engine into the host's own, those that it does not have yet."""
        there = set(self.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split())
        missing = [reference for reference in references if reference not in there]
        if missing:
            store.load(self.container, missing)

    def journal(self, lines: int = 80) -> str:
        """The end of the host's journal, for messages about failures."""
        return journal(self.container, lines)
