"""Debian root file systems as images: mmdebstrap piped into ``docker import``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from tests.parts import machine
from tests.parts.errors import PartError
from tests.parts.fingerprint import image_tag

SUITE = "bookworm"


@dataclass(frozen=True)
class RootFs:
    """A minimal Debian with some packages and, where named, one user.

    `user` is (name, uid): a person without any right beyond their home directory.
    """

    name: str
    packages: tuple[str, ...]
    user: tuple[str, int] | None = None

    @property
    def tag(self) -> str:
        """The image's content-hash tag."""
        return image_tag(self.name, SUITE, *sorted(self.packages), repr(self.user))

    def build(self) -> None:
        """Make the image; about 15 to 60 seconds, most of it downloads.

        Raises :class:`PartError` when mmdebstrap is missing or fails.
        """
        if shutil.which("mmdebstrap") is None:
            raise PartError("mmdebstrap is not installed. Debian and Ubuntu: apt-get install mmdebstrap.")
        with tempfile.TemporaryFile() as words:
            with subprocess.Popen(
                self._command(machine.debian_sources(SUITE)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
            ) as bootstrap:
                imported = subprocess.run(
                    ["docker", "import", "-", f"{self.tag}-unchecked"],
                    stdin=bootstrap.stdout,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            words.seek(0)
            said = words.read().decode(errors="replace").strip()
        # the tag is given only when both ends were well: half an archive can import without complaint
        try:
            if bootstrap.returncode != 0:
                raise PartError(f"mmdebstrap failed with status {bootstrap.returncode}:\n{said[-4000:]}")
            if imported.returncode != 0:
                raise PartError(f"docker import failed: {imported.stderr.strip()}")
            subprocess.run(["docker", "tag", f"{self.tag}-unchecked", self.tag], check=True)
        finally:
            subprocess.run(["docker", "rmi", f"{self.tag}-unchecked"], capture_output=True, check=False)

    def _command(self, sources: Sequence[str]) -> list[str]:
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(self.packages)}"]
        if self.user is not None:
            name, uid = self.user
            command.append(f'--customize-hook=chroot "$1" useradd -m -s /bin/bash -u {uid} {name}')
        return [*command, SUITE, "-", *sources]


BASE = RootFs("base", ("ca-certificates", "curl", "libgomp1", "libnuma1", "python3"))

# A machine as a new user finds it: three packages more than nothing.
PLAIN = RootFs("plain", ("make", "python3", "python3-venv"), user=("newcomer", 1000))

HOST_OS = RootFs(
    "host-os",
    (
        "ca-certificates",
        "curl",
        "dbus",
        "docker.io",
        "iproute2",
        "iptables",
        "iputils-ping",
        "kmod",
        "nftables",
        "openssh-server",
        "procps",
        "python3",
        "python3-apt",
        "python3-docker",
        "python3-venv",
        "sudo",
        "systemd",
        "systemd-sysv",
    ),
)
