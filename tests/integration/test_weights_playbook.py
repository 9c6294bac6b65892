"""Weights for a site of three "hosts" on this machine: one download, whatever dies or is damaged on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import make_manifest, write_manifest

from tests.integration.test_local_fleet import RECAP, ROOT
from tests.tools.ports import free_range

SERVER = ROOT / "tests" / "tools" / "weights_server.py"
REVISION = "0123456789abcdef0123456789abcdef01234567"
MIB = 1 << 20
SIZE = 200 * MIB
HOSTS = ("n1", "n2", "n3")


def settings(home: Path, url: str) -> dict[str, Any]:
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "fleet_name": "weights",
        "fleet_runtime": "process",
        "fleet_proxy_service": "supervisor",
        "fleet_home": f"{home}/{{{{ inventory_hostname }}}}",
        "fleet_hub_endpoint": url,
        "model_weights_hub_python": sys.executable,
        "model_weights_reserve_bytes": 0,
        "models": [
            {
                "id": "m",
                "engine": "vllm",
                "source": {"hub": "org/big", "revision": REVISION},
                "placement": {"replicas": 3, "gpus": 0},
            }
        ],
    }


class Site:
    """An inventory of three hosts, a hub, and playbooks over them."""

    def __init__(self, home: Path, hub: Path) -> None:
        self.home, self.hub = home, hub
        self.model = hub / "org" / "big"
        self.inventory = home / "inv" / "hosts.yml"
        self.inventory.parent.mkdir(parents=True)
        self.url = "http://127.0.0.1:9"
        self.ports = {name: "{}-{}".format(*free_range(10)) for name in HOSTS}
        self.programs = home / "bin"
        self.programs.mkdir()
        # Whether this machine has a container engine is nothing to these tests: the hosts have all its programs but that.
        for place in os.get_exec_path():
            for program in Path(place).glob("*"):
                if program.name != "docker" and not (self.programs / program.name).exists():
                    (self.programs / program.name).symlink_to(program)

    def silent_engine(self) -> None:
        """The hosts have a container engine from here on, which does not answer."""
        program = self.programs / "docker"
        program.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
        program.chmod(0o755)

    def write(self, **more: Any) -> None:
        hosts = {name: {"fleet_ports": ports} for name, ports in self.ports.items()}
        everything = settings(self.home, self.url) | more
        tree = {"all": {"vars": everything, "children": {"engine_hosts": {"hosts": hosts}}}}
        self.inventory.write_text(yaml.safe_dump(tree), encoding="utf-8")

    def command(self, name: str, *more: str) -> list[str]:
        binary = str(Path(sys.executable).with_name("ansible-playbook"))
        return [binary, "-i", str(self.inventory), str(ROOT / "playbooks" / f"{name}.yml"), *more]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ASYNC_DIR": str(self.home / "async"),
            "PATH": str(self.programs),
        }

    def play(self, name: str = "weights", *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(name, *more),
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def well(self, name: str = "weights", *more: str) -> tuple[str, int]:
        """Output and number of changed tasks of a run that must have gone well."""
        done = self.play(name, *more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, sum(
            int(match["changed"]) for line in done.stdout.splitlines() if (match := RECAP.match(line))
        )

    def place(self, host: str) -> Path:
        return self.home / host / "weights" / f"org--big@{REVISION[:12]}"

    def whole(self) -> list[str]:
        """Hosts whose weights are what the hub has, byte for byte."""
        wanted = (self.model / "model.safetensors").read_bytes()
        found = []
        for host in HOSTS:
            path = self.place(host) / "model.safetensors"
            if path.is_file() and path.read_bytes() == wanted:
                found.append(host)
        return found

    def sent(self) -> int:
        """Bytes of the large file that left the hub."""
        with urllib.request.urlopen(f"{self.url}/sent", timeout=10) as answer:
            return int(json.load(answer).get("model.safetensors", 0))

    def requests(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/requests", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path, float], str]]:
    """Start a hub over a directory, at so many bytes per second; gives its URL."""
    running: list[subprocess.Popen[str]] = []

    def start(root: Path, rate: float = 0) -> str:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(root), "/dev/stdout", "--rate", str(rate)],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{process.stdout.readline().strip()}"

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    # a short name: supervisors' sockets are below it
    made = Site(tmp_path_factory.mktemp("w"), tmp_path / "hub")
    made.model.mkdir(parents=True)
    (made.model / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return made


def fill(site: Site, size: int) -> None:
    (site.model / "model.safetensors").write_bytes(random.Random(size).randbytes(size))


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_200_mib_reach_three_hosts_with_one_download_although_the_controller_dies(
    site: Site, serve: Callable[..., str]
) -> None:
    fill(site, SIZE)
    site.url = serve(site.hub, 60 * MIB)
    site.write()
    with subprocess.Popen(
        site.command("weights"),
        cwd=ROOT,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as first:
        wait(lambda: site.sent() > random.uniform(0.05, 0.9) * SIZE)  # it is random where it dies
        first.kill()
    assert site.whole() == []
    # the host goes on by itself, and the next run waits for it
    said, _ = site.well()
    assert site.whole() == list(HOSTS)
    assert site.sent() == SIZE
    assert "m: " in said
    assert "downloaded n1's org/big" in said
    asked = len(site.requests())
    _, changed = site.well()
    assert changed == 0
    assert len(site.requests()) == asked
    left = sorted(path.name for host in HOSTS for path in (site.home / host / "weights").iterdir())
    assert left == [site.place("n1").name] * 3


ENGINE = """#!{python}
# stands for an engine: notes what its weights are when it is started, then serves
import hashlib, os, sys
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(hashlib.sha256(open(words[1] + "/model.safetensors", "rb").read()).hexdigest() + "\\n")
def value(flag):
    return words[words.index(flag) + 1]
os.execv({python!r}, [{python!r}, "-m", "modelyard", "echo", "--model", value("--served-model-name"),
                      "--host", value("--host"), "--port", value("--port"), "--like", "vllm"])
"""


def test_no_engine_is_started_on_weights_that_changed(
    site: Site, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(site, MIB)
    site.url = serve(site.hub)
    site.write()
    log, binary = site.home / "launches", site.programs / "vllm"
    binary.write_text(ENGINE.format(python=sys.executable, log=str(log)), encoding="utf-8")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:{os.environ['PATH']}")
    site.well("weights")
    with (site.place("n2") / "model.safetensors").open("r+b") as handle:
        handle.write(b"flip")
    try:
        # past the fetching, as when the files change between it and the start
        done = site.play("deploy", "-e", '{"model_weights_items": []}')
        assert done.returncode != 0
        assert "model.safetensors has another content than was downloaded" in done.stdout
        assert "No engine is started on it" in done.stdout
        right = hashlib.sha256((site.model / "model.safetensors").read_bytes()).hexdigest()
        before = log.read_text(encoding="utf-8").split() if log.exists() else []
        assert set(before) <= {right}
        done = site.play("deploy", "-e", '{"fleet_offline": true}')
        assert done.returncode != 0
        assert "model_weights_offline forbids to download" in done.stdout
        site.well("deploy")
        assert set(log.read_text(encoding="utf-8").split()) == {right}
        assert site.whole() == list(HOSTS)
    finally:
        stopped = site.play("stop", "-e", "confirm=all")
    assert stopped.returncode == 0, stopped.stdout


def test_unused_weights_are_listed_and_removed_when_just_that_list_is_confirmed(site: Site) -> None:
    fill(site, MIB)
    site.write()
    other = {"hub": "org/other", "revision": "f" * 40}
    wanted = {"hub": "org/big", "revision": REVISION}
    for host, source, name in (
        ("n1", other, "org--other@ffffffffffff"),
        ("n2", other, "org--other@ffffffffffff"),
        ("n3", other, "org--other@ffffffffffff"),
        ("n1", wanted, site.place("n1").name),
    ):
        place = site.home / host / "weights" / name
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(b"x" * 1000)
        write_manifest(place, make_manifest(place, "m", source), -1, -1)
    tree = yaml.safe_load(site.inventory.read_text(encoding="utf-8"))
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    tree["all"]["children"]["engine_hosts"]["hosts"]["n3"] |= away
    site.inventory.write_text(yaml.safe_dump(tree), encoding="utf-8")
    unused = {host: site.home / host / "weights" / "org--other@ffffffffffff" for host in HOSTS}

    # nothing is removed, or offered, where containers that cannot be seen may use it
    site.silent_engine()
    said, _ = site.well("weights_clean")
    assert said.count("its container engine did not answer") == 2, said
    assert said.count("left as they are: it did not answer") == 1, said
    assert "-e confirm=" not in said
    (site.programs / "docker").unlink()
    done = site.play("weights_clean", "-e", "confirm=00000000")
    assert done.returncode != 0
    assert "Nothing was removed" in done.stdout
    (token,) = set(re.findall(r"-e confirm=([0-9a-f]{8})\b", done.stdout)) - {"00000000"}
    assert f"n1: {unused['n1']}: weights of m, " in " ".join(done.stdout.split())
    assert all(place.exists() for place in unused.values())
    done = site.play("weights_clean", "-e", f"confirm={token}")
    assert [host for host, place in unused.items() if place.exists()] == ["n3"], done.stdout
    assert site.place("n1").exists()
