"""The image of a test host, and how a container of it is started so that it behaves like a machine."""

from __future__ import annotations

import time
from pathlib import Path

from tests.parts.docker import build, docker, succeeds
from tests.parts.errors import PartError
from tests.parts.fingerprint import image_tag
from tests.parts.rootfs import HOST_OS

USER = "ops"
UID = 1500
_FILES = Path(__file__).parent / "host"

# All that an engine inside a container needs. SYS_RESOURCE is missing on purpose: some build machines do
# not have it to give, and `--privileged` would ask for it.
_CAPABILITIES = (
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYSLOG",
)


def tag() -> str:
    """The image's content-hash tag."""
    return image_tag("host", HOST_OS.tag, _FILES)


def build_image() -> None:
    """Build the image in a few seconds; the host's root file system must be there."""
    build(_FILES, tag(), secrets={}, arguments={"BASE": HOST_OS.tag})


def machine_flags() -> list[str]:
    """Flags of ``docker run`` with which systemd and an inner Docker engine work."""
    flags = [f"--cap-add={name}" for name in _CAPABILITIES]
    # systemd mounts its own cgroup trees below the tmpfs; without one it exits 255.
    return [
        *flags,
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--cgroupns=private",
        "--tmpfs=/run",
        "--tmpfs=/run/lock",
        "--tmpfs=/sys/fs/cgroup",
        "--volume=/var/lib/containerd",
    ]


def wait_for_engine(container: str, seconds: float = 90) -> None:
    """Wait until the Docker engine inside `container` answers.

    Raises :class:`PartError` with the end of the container's journal when it has not after `seconds`.
    """
    end = time.monotonic() + seconds
    while not succeeds("exec", container, "docker", "version"):
        if time.monotonic() > end:
            raise PartError(f"No engine in {container} after {seconds:.0f} s:\n{journal(container)}")
        time.sleep(0.2)


def journal(container: str, lines: int = 60) -> str:
    """The last `lines` of the container's journal, or of its log where it has no journal yet."""
    try:
        return docker("exec", container, "journalctl", "--no-pager", "-n", str(lines), timeout=30)
    except PartError:
        return docker("logs", "--tail", str(lines), container, timeout=30)
