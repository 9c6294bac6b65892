"""A machine as a new user finds it: Debian, Python, make, a fresh clone, and nothing else.

The clone holds what is committed. pip works as it does on the machine that runs the tests: the same
indexes, the same certificates, so that nothing about them has to be known here.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from types import TracebackType

from tests.hosts.owner import LABEL, Owner
from tests.parts import machine
from tests.parts.docker import docker
from tests.parts.fingerprint import PREFIX
from tests.parts.rootfs import BASE, PLAIN

_CACHE_VOLUME = f"{PREFIX}-newcomer-cache"


class Newcomer:
    """A container with a user who has just cloned the repository; leaving the context removes it."""

    def __init__(self, repository: Path, name: str) -> None:
        self._repository = repository
        self._container = name
        self.user, self._uid = PLAIN.user or ("root", 0)
        self.home = f"/home/{self.user}"
        self.clone = f"{self.home}/modelyard"

    def __enter__(self) -> Newcomer:
        docker(
            *["run", "--detach", "--init", "--name", self._container, "--hostname", "newcomer"],
            *["--label", f"{LABEL}={Owner.current()}"],
            *["--volume", f"{_CACHE_VOLUME}:{self.home}/.cache", *_pip_flags()],
            *[PLAIN.tag, "sleep", "infinity"],
        )
        try:
            docker("exec", self._container, "chown", f"{self._uid}:{self._uid}", f"{self.home}/.cache")
            docker("cp", "--archive", "-", f"{self._container}:{self.home}", stdin=self._clone_archive())
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def run(self, command: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the clone as the new user; what it leaves running goes on running."""
        return _run(
            [
                *["docker", "exec", "--user", self.user, "--workdir", self.clone],
                *["--env", f"HOME={self.home}", self._container, "bash", "-c", command],
            ],
            timeout,
        )

    def beside(self, command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the same network, with curl at hand, which a bare machine lacks."""
        network = f"--network=container:{self._container}"
        return _run(["docker", "run", "--rm", network, BASE.tag, "bash", "-c", command], timeout)

    def processes(self) -> list[str]:
        """The command lines of all processes but the two that keep the container up."""
        lines = docker("top", self._container, "-eo", "pid,args").splitlines()[1:]
        commands = [line.split(maxsplit=1)[1] for line in lines]
        return [command for command in commands if not command.endswith("sleep infinity")]

    def listening_ports(self) -> set[int]:
        """The TCP ports on which something listens, on any address."""
        table = docker("exec", self._container, "cat", "/proc/net/tcp", "/proc/net/tcp6")
        rows = (line.split() for line in table.splitlines())
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[0] != "sl" and row[3] == "0A"}

    def _clone_archive(self) -> bytes:
        def belongs_to_user(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = self._uid
            entry.uname = entry.gname = ""
            return entry

        archive = io.BytesIO()
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory, "modelyard")
            subprocess.run(
                ["git", "clone", "--quiet", "--no-hardlinks", str(self._repository), str(place)],
                stdin=subprocess.DEVNULL,
                check=True,
            )
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(place, arcname=place.name, filter=belongs_to_user)
        return archive.getvalue()

    def _remove(self) -> None:
        docker("rm", "--force", "--volumes", self._container)


def _pip_flags() -> list[str]:
    """Flags of ``docker run`` that give a container this machine's pip settings and certificates."""
    flags = [flag for path in machine.mounts_for_pip() for flag in ("--volume", f"{path}:{path}:ro")]
    settings = machine.pip_settings()
    bundle = machine.ca_bundle()
    if bundle is not None:
        flags += ["--volume", f"{bundle.resolve()}:{bundle}:ro"]
        settings["cert"] = [str(bundle)]
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            flags += ["--env", f"{name}={bundle}"]
    for option, values in settings.items():
        flags += ["--env", f"PIP_{option.upper().replace('-', '_')}={' '.join(values)}"]
    return flags


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )
