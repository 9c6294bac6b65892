"""Ports closed for all but the proxies, then weaknesses planted on real hosts: exactly those are found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosts.fixtures import REPOSITORY
from tests.hosts.inventories import write_inventory
from tests.hosts.lab import Lab
from tests.hosts.machine import Host
from tests.parts.rootfs import BASE

SECRET = "correct-horse-battery"
SAFE = ("--user=1000:1000", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
OVERRIDE = (
    "[Service]\nExecStart=\n"
    "ExecStart=/usr/sbin/dockerd -H fd:// -H tcp://127.0.0.1:2375 --tls=false "
    "--containerd=/run/containerd/containerd.sock\n"
)
UPGRADES = 'APT::Periodic::Unattended-Upgrade "1";\n'


@dataclass(frozen=True)
class Site:
    """An engine host and a proxy host, and the inventory that has both."""

    gpu: Host
    proxy: Host
    inventory: Path

    def engine(
        self, name: str, *flags: str, safe: tuple[str, ...] = SAFE, arguments: tuple[str, ...] = ()
    ) -> None:
        """Make a container that passes for a replica of the fleet; it runs unless the flags say otherwise."""
        labels = {"fleet": "f", "replica": f"gpu.{name}.0", "engine": "vllm"}
        self.gpu.docker(
            *("create", "--name", f"f-gpu.{name}.0", *safe, *flags),
            *(f"--label=modelyard.{key}={value}" for key, value in labels.items()),
            *(BASE.tag, "python3", "-m", "http.server", "8000", *arguments),
        )

    def play(self, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self._run(
            str(Path(sys.executable).with_name("ansible-playbook")), f"playbooks/{name}.yml", *more
        )

    def security(self) -> tuple[int, list[tuple[str, str, str]]]:
        """Exit code; host, code and subject of every finding."""
        done = self._run(sys.executable, "-m", "modelyard", "security", "--json")
        assert SECRET not in done.stdout + done.stderr
        findings = json.loads(done.stdout)["findings"]
        assert {item["severity"] for item in findings} <= {"finding"}, findings
        return done.returncode, [(item["host"], item["code"], item["subject"]) for item in findings]

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        ours = {
            "MODELYARD_HOME": REPOSITORY,
            "ANSIBLE_CONFIG": REPOSITORY / "ansible.cfg",
            "ANSIBLE_NOCOLOR": 1,
        }
        return subprocess.run(
            [*command, "-i", str(self.inventory)],
            cwd=REPOSITORY,
            env=os.environ | {name: str(value) for name, value in ours.items()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def reaches(host: Host, port: int) -> bool:
    """Whether this machine, which is no proxy, gets through to a port."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host.address, port)) == 0


def answers(host: Host, port: int) -> None:
    """Wait until an engine that was just started listens, and this machine gets through to it."""
    end = time.monotonic() + 30
    while not reaches(host, port):
        assert time.monotonic() < end
        time.sleep(0.1)


def write(host: Host, path: str, text: str, mode: str = "0644") -> None:
    script = 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1" && chmod "$3" "$1"'
    host.run("sh", "-c", script, "sh", path, text, mode)


@pytest.fixture(scope="module")
def site(lab: Lab, start_hosts: Callable[..., list[Host]], tmp_path_factory: pytest.TempPathFactory) -> Site:
    gpu, proxy = start_hosts("gpu", "proxy")
    groups = {"engine_hosts": [gpu], "proxy_hosts": [proxy]}
    fleet = {"fleet_name": "f", "fleet_ports": "8100-8109", "fleet_hub_token_file": "/etc/hub-token"}
    return Site(gpu, proxy, write_inventory(tmp_path_factory.mktemp("security"), groups, [], fleet))


def plant(site: Site) -> None:
    """Everything that the check knows, once each."""
    gpu = site.gpu
    write(gpu, "/etc/systemd/system/docker.service.d/tcp.conf", OVERRIDE)
    write(gpu, "/etc/apt/apt.conf.d/20auto-upgrades", UPGRADES)
    write(gpu, "/usr/bin/unattended-upgrade", "#!/bin/sh\n", "0755")
    write(gpu, "/etc/hub-token", SECRET)
    gpu.run("sh", "-c", "systemctl daemon-reload && systemctl restart docker.service", timeout=120)
    gpu.run("chmod", "0666", "/var/run/docker.sock")
    gpu.run("nft", "insert", "rule", "inet", "modelyard", "engines", "tcp", "dport", "8101", "accept")
    without = {flag.partition("=")[0]: tuple(one for one in SAFE if one != flag) for flag in SAFE}
    site.engine("everywhere", "--publish=8101:8000")
    site.engine("privileged", "--privileged")  # never started: test machines cannot give that much
    site.engine("capable", "--cap-add=NET_RAW")
    site.engine("socket", "--volume=/var/run/docker.sock:/docker.sock")
    site.engine("root", safe=without["--user"])
    site.engine("writable", safe=without["--read-only"])
    site.engine("gaining", safe=without["--security-opt"])
    site.engine("telling", arguments=("--api-key", SECRET))
    gpu.docker("start", "f-gpu.m.0", "f-gpu.everywhere.0")
    answers(gpu, 8101)
    write(
        site.proxy,
        "/opt/modelyard/modelyard-proxy.env",
        'MODELYARD_ADMIN_KEY_FILE="/etc/admin-key"\n',
        "0640",
    )
    write(site.proxy, "/etc/admin-key", "changeme")


@pytest.mark.timeout(600)
def test_ports_are_closed_and_planted_weaknesses_are_found(site: Site) -> None:
    site.engine("m", f"--publish={site.gpu.address}:8100:8000")
    site.gpu.docker("start", "f-gpu.m.0")
    answers(site.gpu, 8100)

    # a proxy that would come from elsewhere than the inventory says: nothing is changed
    wrong = site.play("hardening", "-e", '{"fleet_proxy_addresses": ["192.0.2.99"]}')
    assert wrong.returncode != 0
    assert f"proxy reaches gpu from {site.proxy.address}, and the inventory says 192.0.2.99" in wrong.stdout
    assert reaches(site.gpu, 8100)

    done = site.play("hardening")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not reaches(site.gpu, 8100)
    assert reaches(site.gpu, 22)
    connect = f"import socket; socket.create_connection(('{site.gpu.address}', 8100), 5)"
    site.proxy.run("python3", "-c", connect)
    assert site.security() == (0, [])

    plant(site)
    code, found = site.security()
    assert sorted(found) == [
        ("gpu", "container-capabilities", "f-gpu.capable.0"),
        ("gpu", "container-privileged", "f-gpu.privileged.0"),
        ("gpu", "container-root", "f-gpu.root.0"),
        ("gpu", "docker-api-open", "dockerd"),
        ("gpu", "docker-socket-in-container", "f-gpu.socket.0"),
        ("gpu", "docker-socket-open", "/var/run/docker.sock"),
        ("gpu", "engine-port-everywhere", "f-gpu.everywhere.0"),
        ("gpu", "engine-port-reachable", "port 8101"),
        ("gpu", "engine-upgrades-itself", "Docker"),
        ("gpu", "firewall-changed", "table inet modelyard"),
        ("gpu", "new-privileges", "f-gpu.gaining.0"),
        ("gpu", "root-writable", "f-gpu.writable.0"),
        ("gpu", "secret-file-open", "/etc/hub-token"),
        ("gpu", "secret-in-arguments", "f-gpu.telling.0"),
        ("proxy", "admin-key-file-open", "/etc/admin-key"),
        ("proxy", "admin-key-weak", "/etc/admin-key"),
    ]
    assert code == 2
