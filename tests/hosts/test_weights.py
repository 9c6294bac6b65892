"""A model of 200 MB for three hosts: one download from a hub, and copies from host to host over SSH."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts import hub as stand_in
from tests.hosts.fixtures import REPOSITORY
from tests.hosts.inventories import write_inventory
from tests.hosts.lab import Lab
from tests.hosts.machine import Host

REVISION = "0123456789abcdef0123456789abcdef01234567"
SIZE = 200_000_000
PLACE = f"/var/lib/modelyard/weights/org--big@{REVISION[:12]}"
KEYS = "/home/ops/.ssh/authorized_keys"


@pytest.fixture
def hub(lab: Lab, tmp_path: Path) -> Iterator[str]:
    """A hub that the hosts can reach; gives its URL."""
    model = tmp_path / "hub" / "org" / "big"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    with stand_in.hub(tmp_path / "hub", lab.controller) as url:
        yield url


def play(inventory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    ours = {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(inventory),
            "playbooks/weights.yml",
            *more,
        ],
        cwd=REPOSITORY,
        env=os.environ | ours,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def digest(host: Host) -> str:
    return host.run("sha256sum", f"{PLACE}/model.safetensors").split()[0]


@pytest.mark.timeout(600)
def test_three_hosts_share_one_download(
    hub: str, start_hosts: Callable[..., list[Host]], tmp_path: Path
) -> None:
    hosts = start_hosts("one", "two", "three")
    model = {
        "id": "m",
        "engine": "vllm",
        "source": {"hub": "org/big", "revision": REVISION},
        "placement": {"replicas": 3, "gpus": 0},
    }
    fleet = {"fleet_name": "w", "fleet_hub_endpoint": hub}
    inventory = write_inventory(
        tmp_path / "inventory", {"engine_hosts": hosts, "proxy_hosts": []}, [model], fleet
    )
    before = [host.run("cat", KEYS) for host in hosts]

    done = play(inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    with urllib.request.urlopen(f"{hub}/sent", timeout=10) as answer:
        assert json.load(answer)["model.safetensors"] == SIZE
    assert len({digest(host) for host in hosts}) == 1
    for host in hosts:
        owners = host.run("find", PLACE, "-printf", "%U:%G\n").split()
        assert set(owners) == {"1000:1000"}
    # neither the permission nor a key nor the program is left
    assert [host.run("cat", KEYS) for host in hosts] == before
    for host in hosts:
        assert host.run("ls", "-A", "/home/ops/.ssh").split() == ["authorized_keys"]
        assert host.run("ls", "-A", "/var/lib/modelyard/weights").split() == [Path(PLACE).name]

    # what is damaged on one host is mended from another one, not from the hub
    script = (
        f"printf x | dd of={PLACE}/model.safetensors bs=1 seek=1000 conv=notrunc; chown 0 {PLACE}/config.json"
    )
    hosts[2].run("sh", "-c", script)
    done = play(inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model.safetensors has another content than was downloaded" in done.stdout
    with urllib.request.urlopen(f"{hub}/sent", timeout=10) as answer:
        assert json.load(answer)["model.safetensors"] == SIZE
    assert len({digest(host) for host in hosts}) == 1
    assert hosts[2].run("stat", "-c", "%u", f"{PLACE}/config.json").strip() == "1000"

    # where hosts cannot reach each other the source is asked again, and the run says so
    hosts[1].run("rm", "-rf", PLACE)
    done = play(inventory, "-e", "fleet_weights_address=192.0.2.1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "It is fetched from its source instead" in done.stdout + done.stderr
    assert len({digest(host) for host in hosts}) == 1
    assert [host.run("cat", KEYS) for host in hosts] == before
