"""A laboratory: an isolated network with test hosts on it, a key to them, and nothing left afterwards."""

from __future__ import annotations

import io
import ipaddress
import random
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from tests.hosts.machine import Host, SshAccess
from tests.hosts.owner import LABEL, Owner, store_name
from tests.parts import bare_image, debs, engine_packages, host_image, store, tiny_model
from tests.parts.docker import docker
from tests.parts.errors import PartError

MODELS = Path("/srv/models")
_FIRST_HOST = 11


class Lab:
    """A network without a way out, and the hosts on it; leaving the context removes all of it.

    Each run has a subnet of its own, on which hosts have fixed addresses. The machine that runs the tests
    reaches them directly. `directory` gets the keys.
    """

    def __init__(self, directory: Path, random_source: random.Random) -> None:
        self._owner = Owner.current()
        self._directory = directory
        self._random = random_source
        self._hosts: dict[str, Host] = {}
        self._started = 0
        suffix = f"{self._owner.pid}-{random_source.randrange(16**4):04x}"
        self._network = f"modelyard-test-{suffix}"
        self.subnet = ipaddress.IPv4Network("0.0.0.0/32")
        self.access = SshAccess(directory / "id_ed25519", directory / "known_hosts")

    def __enter__(self) -> Lab:
        self.subnet = self._create_network()
        _generate_key(self.access.key)
        self.access.known_hosts.touch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._hosts):
            self.remove(name)
        docker("network", "rm", self._network)

    @property
    def controller(self) -> str:
        """The address at which hosts reach the machine that runs the tests."""
        return str(self.subnet[1])

    def start(self, *names: str) -> list[Host]:
        """Start hosts side by side and wait until SSH and the engine of each answer.

        Each host has the tiny model below :data:`MODELS` and the images of :func:`tests.parts.store.images`.
        """
        hosts = [self._launch(name) for name in names]
        for host in hosts:
            host_image.wait_for_engine(host.container)
            _wait(lambda host=host: host.ssh("true").returncode == 0, 60, host)  # type: ignore[misc]
        return hosts

    def start_bare(self, *names: str, mounts: Mapping[Path, str] | None = None) -> list[Host]:
        """Start hosts that have nothing but sshd and Python, and wait until SSH of each answers.

        Their apt has :mod:`tests.parts.engine_packages` as its only source. `mounts` are further files and directories of
        this machine, with the path that they have on the hosts, read-only.
        """
        extra = {engine_packages.DEBS.directory(): debs.PLACE, **(mounts or {})}
        hosts = [self._launch(name, extra) for name in names]
        for host in hosts:
            _wait(lambda host=host: host.ssh("true").returncode == 0, 60, host)  # type: ignore[misc]
        return hosts

    def remove(self, name: str) -> None:
        """Remove a host and all that it stored."""
        host = self._hosts[name]
        docker("rm", "--force", "--volumes", host.container)
        store.drop(store_name(self._owner, host.container))
        del self._hosts[name]

    def _launch(self, name: str, bare: Mapping[Path, str] | None = None) -> Host:
        if name in self._hosts:
            raise ValueError(f"a host called {name} runs already")
        container = f"{self._network}-{name}"
        address = str(self.subnet[_FIRST_HOST + self._started])
        host = Host(name, address, container, self.access, MODELS / "tiny-llama")
        host_key = self._directory / f"{container}.host_key"
        _generate_key(host_key)
        self._started += 1
        self._hosts[name] = host
        if bare is None:
            engine = store.copy(store_name(self._owner, container))
            volumes = [f"{engine}:/var/lib/docker", f"{tiny_model.directory()}:{host.models}:ro"]
        else:
            volumes = ["/var/lib/docker", *(f"{here}:{there}:ro" for here, there in bare.items())]
        docker(
            *["create", "--name", container, "--hostname", name, "--label", f"{LABEL}={self._owner}"],
            *["--network", self._network, "--ip", address, *host_image.machine_flags()],
            *(f"--volume={volume}" for volume in volumes),
            host_image.tag() if bare is None else bare_image.tag(),
        )
        docker("cp", "--archive", "-", f"{container}:/", stdin=self._files_for(host_key, bare is not None))
        docker("start", container)
        public = host_key.with_suffix(".host_key.pub").read_text().split()
        with self.access.known_hosts.open("a") as known:
            known.write(f"{address} {public[0]} {public[1]}\n")
        return host

    def _files_for(self, host_key: Path, bare: bool) -> bytes:
        """An archive, laid over ``/``: the host's own key, the operator's public key, a bare host's sources of apt."""
        operator = self.access.key.with_suffix(".pub").read_bytes()
        files = [
            ("etc/ssh/ssh_host_ed25519_key", host_key.read_bytes(), 0o600, 0),
            (f"home/{host_image.USER}/.ssh/authorized_keys", operator, 0o600, host_image.UID),
        ]
        if bare:
            files.append(("etc/apt/sources.list", engine_packages.SOURCES.encode(), 0o644, 0))
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, content, mode, uid in files:
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, uid, uid
                tar.addfile(entry, io.BytesIO(content))
        return archive.getvalue()

    def _create_network(self) -> ipaddress.IPv4Network:
        """Make the network on a subnet that neither the machine's routes nor other networks use."""
        taken = _routed_networks()
        last: PartError | None = None
        for _ in range(40):
            subnet = ipaddress.IPv4Network(
                (f"10.{self._random.randrange(64, 255)}.{self._random.randrange(256)}.0", 24)
            )
            if any(subnet.overlaps(other) for other in taken):
                continue
            try:
                docker(
                    *["network", "create", "--internal", "--driver", "bridge", "--subnet", str(subnet)],
                    *["--label", f"{LABEL}={self._owner}", self._network],
                )
            except PartError as error:
                if "overlap" not in str(error):
                    raise
                last = error
            else:
                return subnet
        raise PartError(f"No free subnet found below 10.64.0.0 for the test network. {last or ''}")


def _routed_networks() -> list[ipaddress.IPv4Network]:
    """The networks that the machine has routes to, the default route left out."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        _, destination, _, _, _, _, _, mask = line.split()[:8]
        if mask != "00000000":
            address, netmask = (
                ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(word), "little"))
                for word in (destination, mask)
            )
            found.append(ipaddress.IPv4Network(f"{address}/{netmask}"))
    return found


def _generate_key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)],
        stdin=subprocess.DEVNULL,
        check=True,
    )


def _wait(condition: Callable[[], bool], seconds: float, host: Host) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            said = host.ssh("true").stderr.strip()
            raise PartError(
                f"No SSH to {host.name} ({host.address}) after {seconds:.0f} s: {said}\n{host.journal()}"
            )
        time.sleep(0.2)
