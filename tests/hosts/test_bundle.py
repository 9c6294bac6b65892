"""A bundle that was made where there is a network deploys on hosts that have none.

The image is pinned by a digest and comes from a registry, the weights come from a hub, the Python packages from where pip
finds them. Then registry and hub are gone, each host drops and counts what would leave its network, and the fleet is
deployed from the bundle. The tests are one story, told in the order in which they stand.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.hosts.inventories import write_inventory
from tests.hosts.lab import Lab
from tests.hosts.machine import Host
from tests.integration.modules.conftest import serve_weights
from tests.parts import rootfs
from tests.parts.docker import docker
from tests.tools.registry import registry

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
REVISION = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = random.Random(3).randbytes(300_000)
PORT = 8000

# What would leave the lab's network is counted and dropped, questions for names too. The route is what makes them
# countable: without one they would fail before they are packets.
CLOSED = """
set -e
ip route replace default via {gateway}
echo nameserver 192.0.2.53 > /etc/resolv.conf
iptables -N CLOSED
iptables -A CLOSED -o lo -j RETURN
iptables -A CLOSED -d {subnet} -j RETURN
iptables -A CLOSED -d 127.0.0.0/8 -j RETURN
iptables -A CLOSED -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
iptables -A CLOSED -m addrtype --dst-type LOCAL -j RETURN
iptables -A CLOSED -d 172.16.0.0/12 -j RETURN
iptables -A CLOSED -j DROP
iptables -I OUTPUT -j CLOSED
iptables -I DOCKER-USER -j CLOSED
"""


@dataclass
class Site:
    """The two machines that the story is about: where the bundle is made, and where it is used."""

    directory: Path
    hosts: list[Host]
    image: str

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory"

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle"

    def modelyard(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "modelyard", *words], environment)

    def play(self, name: str) -> str:
        """A playbook on the closed side, with no index and no way to one."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.inventory)]
        done = self._run([*command, f"playbooks/{name}.yml"], CLOSED_ENVIRONMENT)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        return done.stdout

    def dropped(self) -> dict[str, str]:
        """By host, how many packets wanted to leave the network."""
        counted = {}
        for host in self.hosts:
            (line,) = [
                one for one in host.run("iptables", "-nvxL", "CLOSED").splitlines() if " DROP " in f" {one} "
            ]
            counted[host.name] = line.split()[0]
        return counted

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        own = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "MODELYARD_HOME": str(ROOT),
        }
        return subprocess.run(
            command, cwd=ROOT, env=os.environ | own | environment, capture_output=True, text=True, check=False
        )


# pip, hub and everything else that heeds a proxy would fail at once
CLOSED_ENVIRONMENT = {
    "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(
    lab: Lab,
    start_hosts: Callable[..., list[Host]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Hosts that are closed, and a bundle for them; the registry and the hub that it came from are gone."""
    directory = tmp_path_factory.mktemp("closed")
    mark = f"bundle-{random.randrange(16**8):08x}"
    docker("create", "--name", mark, rootfs.BASE.tag, "true")
    docker("cp", str(ROOT / "tests" / "tools" / "tiny_engine.py"), f"{mark}:/tiny_engine.py")
    start = 'ENTRYPOINT ["sh", "-c", "exec python3 /tiny_engine.py 8000"]'
    docker("commit", "--change", start, "--change", "CMD []", mark, f"{mark}:engine")
    docker("rm", mark)
    docker("save", "--output", str(directory / "engine.tar"), f"{mark}:engine")
    docker("rmi", f"{mark}:engine")
    hosts = start_hosts("alpha", "beta")
    pinned = ""
    try:
        model = directory / "hub" / "org" / "tiny"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(WEIGHTS)
        with (
            registry(directory / "engine.tar", directory / "registry") as images,
            serve_weights(directory / "hub") as weights,
        ):
            pinned = f"{images.address}/{mark}/engine@{images.digest}"
            found = Site(directory, hosts, pinned)
            _write(found, weights.url)
            done = found.modelyard(
                "bundle", "create", "-i", str(found.inventory), str(found.bundle), "--json"
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert any(path.endswith(images.digest) for path in images.asked), "the image was not pulled"
        for host in hosts:
            host.run("sh", "-c", CLOSED.format(subnet=lab.subnet, gateway=lab.controller))
        yield found
    finally:
        if pinned:
            subprocess.run(["docker", "rmi", pinned], capture_output=True, check=False)


def _write(site: Site, hub: str) -> None:
    alpha, beta = site.hosts
    models = [
        {"id": "big", "engine": "vllm", "image": site.image, "env": {"GREETING": "closed"},
         "source": {"hub": "org/tiny", "revision": REVISION}, "placement": {"hosts": "alpha", "replicas": 1, "gpus": 0},
         "resources": {"memory": "256m", "shm_mib": 64}},
        {"id": "small", "engine": "echo", "placement": {"hosts": "beta", "replicas": 1, "gpus": 0}},
    ]  # fmt: skip
    fleet = {"fleet_name": "closed", "fleet_accelerator": "cpu", "fleet_container_ulimits": {}, "fleet_proxy_port": PORT,
             "fleet_hub_endpoint": hub}  # fmt: skip
    write_inventory(site.inventory, {"engine_hosts": site.hosts, "proxy_hosts": [alpha]}, models, fleet)
    for host, more in (
        (alpha, {"fleet_proxy_listen": alpha.address}),
        (beta, {"fleet_runtime": "process", "fleet_home": "/home/ops/fleet"}),
    ):
        (site.inventory / "host_vars").mkdir(exist_ok=True)
        (site.inventory / "host_vars" / f"{host.name}.yml").write_text(yaml.safe_dump(more))


def ask(site: Site, model: str) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    url = f"http://{site.hosts[0].address}:{PORT}/v1/chat/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])


def test_the_hosts_have_no_way_out_and_who_tries_is_noticed(site: Site) -> None:
    for host in site.hosts:
        address = "timeout 2 bash -c '</dev/tcp/192.0.2.1/80'"
        name = "timeout 2 python3 -c 'import socket; socket.gethostbyname(\"example.org\")'"
        tried = host.run(
            "sh", "-c", f"{address} 2>/dev/null && echo out; {name} 2>/dev/null && echo out; true"
        )
        assert tried == ""
    assert all(int(count) >= 2 for count in site.dropped().values()), site.dropped()
    for host in site.hosts:
        host.run("iptables", "-Z", "CLOSED")


def test_an_altered_bundle_is_refused_before_a_host_is_touched(site: Site) -> None:
    (file,) = site.bundle.glob("weights/*/model.safetensors")
    file.write_bytes(WEIGHTS[:-1] + b"x")
    done = site.modelyard("bundle", "verify", str(site.bundle), "--json")
    assert (done.returncode, [one["kind"] for one in json.loads(done.stdout)["faults"]]) == (1, ["altered"])
    done = site.modelyard("bundle", "apply", "-i", str(site.inventory), str(site.bundle))
    assert done.returncode == 1
    assert "model.safetensors has another content" in done.stderr
    file.write_bytes(WEIGHTS)
    alpha, beta = site.hosts
    assert not _there(alpha, "/var/lib/modelyard/weights")
    assert not _there(beta, "/home/ops/fleet")
    assert not (site.inventory / "group_vars" / "all" / "zz-bundle.yml").exists()


def test_it_deploys_from_the_bundle_alone(site: Site) -> None:
    applied = site.modelyard(
        "bundle", "apply", "-i", str(site.inventory), str(site.bundle), **CLOSED_ENVIRONMENT
    )
    assert applied.returncode == 0, applied.stdout + applied.stderr
    site.play("site")
    assert ask(site, "big") == "uid 1000 says closed, root writable: False"
    assert ask(site, "small") == "Hello"
    (container,) = site.hosts[0].containers(running=True)
    (mount,) = [one for one in container["Mounts"] if one["Destination"] == "/weights"]
    digest = site.hosts[0].run("sha256sum", f"{mount['Source']}/model.safetensors").split()[0]
    listed = json.loads((site.bundle / "manifest.json").read_text())["files"]
    assert digest in [file["sha256"] for file in listed if file["path"].endswith("model.safetensors")]


def test_a_second_time_nothing_changes_and_nothing_has_drifted(site: Site) -> None:
    applied = site.modelyard("bundle", "apply", "-i", str(site.inventory), str(site.bundle), "--json")
    assert json.loads(applied.stdout)["settings"]["changed"] is False, applied.stdout + applied.stderr
    recap = [line for line in site.play("deploy").splitlines() if "changed=" in line]
    assert recap
    assert all("changed=0" in line for line in recap), recap
    # an image that goes by another name than the inventory's is still the inventory's
    drift = site.modelyard("drift", "-i", str(site.inventory), "--json")
    assert drift.returncode == 0, drift.stdout + drift.stderr


def test_nobody_outside_was_asked(site: Site) -> None:
    assert site.dropped() == {"alpha": "0", "beta": "0"}


def _there(host: Host, path: str) -> bool:
    return host.ssh(f"sudo test -e {path}").returncode == 0
