"""Three machines with nothing but sshd and Python, and one command: `site.yml` makes them serve.

Packages come from a source of apt on the hosts, images from a file, Python packages from a wheelhouse: there is no way out.
The tests are one story, told in the order in which they stand.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.site import PROXY_PORT, Run, Site
from tests.hosts.lab import Lab
from tests.parts import echo_image, wheelhouse
from tests.parts.docker import docker

pytestmark = pytest.mark.timeout(600)

NAMES = ("alpha", "beta", "gamma")
ARCHIVE = "/srv/images/echo.tar"
ENGINE = {
    # the machines are containers themselves: their engines keep off the networks of the outer one
    "bip": "198.18.0.1/24",
    "address_pools": [{"base": "198.18.16.0/20", "size": 24}],
}
# all machines at once: that the first one goes first is tested elsewhere
AT_ONCE: dict[str, Any] = {"batches": ["100%"]}


def model(identity: str, replicas: int) -> dict[str, Any]:
    return {
        "id": identity,
        "engine": "echo",
        "image": echo_image.tag(),
        "placement": {"replicas": replicas, "gpus": 0},
    }


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("bare")
    archive = directory / "echo.tar"
    docker("save", "--output", str(archive), echo_image.tag())
    hosts = lab.start_bare(*NAMES, mounts={archive: ARCHIVE})
    fleet = {
        "fleet_name": "bare",
        "fleet_container_ulimits": {},  # the engines of the test hosts lack CAP_SYS_RESOURCE
        "fleet_proxy_listen": "{{ ansible_host }}",
        "fleet_proxy_port": PROXY_PORT,
        "fleet_proxy_wheelhouse": str(wheelhouse.directory()),
        # one of them also closes its engines' ports, to all but the proxy and who counts tokens here
        "fleet_hardening": "{{ inventory_hostname == 'beta' }}",
        "fleet_engine_access": {"monitoring": [lab.controller]},
        "container_runtime_daemon": ENGINE,
        "container_runtime_images": [{"archive": ARCHIVE}],
    }
    yield Site(directory, fleet, hosts, {"wide": model("wide", 3), "single": model("single", 1)})
    archive.unlink()


@pytest.fixture(scope="module")
def foreseen(site: Site) -> Run:
    """A check of the first run, before anything is there."""
    site.write()
    for host in site.hosts:
        for command in ("docker", "dockerd", "containerd"):
            assert host.ssh(f"command -v {command}").returncode != 0, f"{host.name} is not bare"
        assert host.ssh("python3 -c 'import ensurepip'").returncode != 0
    return site.play("site", check=True, **AT_ONCE)


@pytest.fixture(scope="module")
def made(site: Site, foreseen: Run) -> Run:
    """The first run."""
    return site.play("site", **AT_ONCE)


def test_a_check_goes_through_says_what_will_be_and_touches_nothing(site: Site, foreseen: Run) -> None:
    said = " ".join(foreseen.output.split())
    for name in NAMES:
        assert f"{name}: it has no container engine" in said
        assert f"{name}: gets its container engine by this run" in said
    assert "docker.io: not installed -> the newest version there is" in said
    assert "4 to start" in said
    for host in site.hosts:
        left = host.ssh("ls -d /etc/docker /etc/modelyard /var/lib/modelyard /usr/bin/docker 2>/dev/null")
        assert left.stdout == "", f"{host.name}: a check must leave nothing behind"


def test_the_run_does_what_the_check_has_foreseen(site: Site, foreseen: Run, made: Run) -> None:
    assert sorted(made.changed()) == sorted(NAMES)
    assert foreseen.changed() == made.changed()
    containers = site.containers(running=True)
    assert sorted({replica.split(".")[0] for replica in containers}) == sorted(NAMES)
    assert sorted(replica.split(".", 1)[1] for replica in containers) == [
        "single.0",
        "wide.0",
        "wide.1",
        "wide.2",
    ]


def test_ports_are_closed_where_that_is_declared(site: Site, made: Run) -> None:
    tables = {host.name: host.run("nft", "list", "tables") for host in site.hosts}
    assert [name for name in NAMES if "inet modelyard" in tables[name]] == ["beta"]
    beta = site.hosts[1]
    rules = beta.run("nft", "list", "table", "inet", "modelyard")
    assert site.hosts[0].address in rules, "the proxy gets through"
    port = next(
        port_of(container) for name, container in site.containers().items() if name.startswith("beta.")
    )
    # gamma is no proxy
    knock = f"timeout 3 bash -c '</dev/tcp/{beta.address}/{port}'"
    assert site.hosts[2].ssh(knock).returncode != 0
    assert site.hosts[0].ssh(knock).returncode == 0


def test_every_replica_generates_through_the_proxy(site: Site, made: Run) -> None:
    before = {replica: generated(site, replica) for replica in site.containers(running=True)}
    asked = 0
    with site.client() as client:
        for name in ("wide", "single"):
            # replicas take turns; each must have had one after a few
            for _ in range(12):
                asked += 1
                reply = client.chat.completions.create(
                    model=name, messages=[{"role": "user", "content": f"word {asked}"}], max_tokens=8
                )
                # the engine says the prompt's words, over and over
                assert str(reply.choices[0].message.content).startswith(f"word {asked}")
    after = {replica: generated(site, replica) for replica in before}
    assert all(after[replica] > before[replica] for replica in before), (before, after)


def test_a_second_run_changes_nothing_and_installs_nothing(site: Site, made: Run) -> None:
    before = site.identities()
    engines = {host.name: host.run("systemctl", "show", "-p", "MainPID", "docker") for host in site.hosts}
    again = site.play("site", **AT_ONCE)
    assert set(again.changed().values()) == {0}, again
    assert "Install with apt" not in again.output
    assert site.identities() == before
    assert engines == {
        host.name: host.run("systemctl", "show", "-p", "MainPID", "docker") for host in site.hosts
    }


def port_of(container: dict[str, Any]) -> str:
    """The port on the host that a replica's container is published at."""
    (binding,) = [one for bindings in container["HostConfig"]["PortBindings"].values() for one in bindings]
    return str(binding["HostPort"])


def generated(site: Site, replica: str) -> float:
    """How many tokens the engine of `replica` has made, by its own count."""
    (host,) = [host for host in site.hosts if replica.startswith(f"{host.name}.")]
    address = f"http://{host.address}:{port_of(site.containers()[replica])}/metrics"
    with urllib.request.urlopen(address, timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("modelyard_echo_tokens_total")
    )
