"""The test hosts are what the other tests take them for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.inventories import write_inventory
from tests.hosts.lab import Lab
from tests.hosts.machine import Host, SshAccess
from tests.hosts.newcomer import Newcomer
from tests.parts import vllm_image
from tests.parts.rootfs import BASE

pytestmark = pytest.mark.timeout(900)  # a first run builds the parts


@pytest.fixture(scope="module")
def hosts(start_hosts: Callable[..., list[Host]]) -> list[Host]:
    return start_hosts("one", "two")


@pytest.fixture(scope="module")
def host(hosts: list[Host]) -> Host:
    return hosts[0]


def test_ssh_reaches_each_host_and_sudo_makes_root(hosts: list[Host]) -> None:
    for host in hosts:
        done = host.ssh("hostname && sudo --non-interactive id -u")
        assert done.stdout.split() == [host.name, "0"], done.stderr


def test_ssh_refuses_a_host_with_another_key(hosts: list[Host], tmp_path: Path) -> None:
    # each host presents the other's key, as after a mix-up or an attack
    first, second = hosts
    swapped = tmp_path / "known_hosts"
    known = first.access.known_hosts.read_text()
    swapped.write_text(
        known.replace(first.address, "x").replace(second.address, first.address).replace("x", second.address)
    )
    mistaken = Host(
        first.name, first.address, first.container, SshAccess(first.access.key, swapped), first.models
    )
    done = mistaken.ssh("true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_hosts_reach_each_other_and_the_controller(hosts: list[Host], lab: Lab) -> None:
    first, second = hosts
    first.run("ping", "-c", "1", "-W", "5", second.address)
    first.run("ping", "-c", "1", "-W", "5", lab.controller)


def test_systemd_runs_and_no_unit_failed(hosts: list[Host]) -> None:
    for host in hosts:
        state = host.ssh("systemctl is-system-running --wait").stdout.strip()
        assert state == "running", host.run("systemctl", "--failed", "--no-legend")


def test_ansible_reaches_all_hosts_and_becomes_root(hosts: list[Host], tmp_path: Path) -> None:
    inventory = write_inventory(tmp_path, {"engine_hosts": hosts}, models=[], fleet={})
    ansible = Path(sys.executable).parent / "ansible"
    done = subprocess.run(
        [
            str(ansible),
            "-i",
            str(inventory),
            "all",
            "--become",
            "-m",
            "ansible.builtin.command",
            "-a",
            "id -un",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line == "root"] == ["root", "root"]


def test_each_engine_is_a_hosts_own_and_limits_what_it_runs(hosts: list[Host]) -> None:
    first, second = hosts
    first.docker(
        "run", "--detach", "--name", "mine", "--cpus", "0.5", "--memory", "64m", BASE.tag, "sleep", "60"
    )
    try:
        assert [container["Name"] for container in first.containers()] == ["/mine"]
        assert second.containers() == []
        limits = first.containers()[0]["HostConfig"]
        assert (limits["NanoCpus"], limits["Memory"]) == (500_000_000, 64 * 1024**2)
    finally:
        first.docker("rm", "--force", "mine")


def test_what_one_engine_writes_over_a_shared_layer_stays_its_own(hosts: list[Host]) -> None:
    first = hosts[0]
    change = "echo changed > /etc/debian_version; rm /usr/bin/curl"
    first.docker("run", "--rm", BASE.tag, "sh", "-c", change)
    first.docker("run", "--name", "kept", BASE.tag, "sh", "-c", change)
    first.docker("rm", "kept")
    for each in hosts:
        seen = each.docker("run", "--rm", BASE.tag, "sh", "-c", "cat /etc/debian_version; command -v curl")
        assert seen.splitlines()[0].startswith("12")
        assert seen.splitlines()[1] == "/usr/bin/curl"


@pytest.fixture(scope="module")
def engine_url(host: Host) -> Iterator[str]:
    """A real vLLM inside the host's engine, started as the roles start one, seen from outside."""
    host.docker(
        *["run", "--detach", "--name", "vllm", "--user", "1000:1000", "--read-only"],
        *["--tmpfs", "/tmp:rw,exec,size=2g", "--shm-size", "1g", "--memory", "3g"],
        *["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
        *["--publish", f"{host.address}:8100:8000", "--volume", f"{host.models}:/weights:ro"],
        *[vllm_image.tag(), "/weights", "--served-model-name", "tiny", "--host", "0.0.0.0", "--port", "8000"],
        *["--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "32", "--enforce-eager"],
    )
    url = f"http://{host.address}:8100"
    end = time.monotonic() + 240
    while not _answers(f"{url}/health"):
        state = host.docker("inspect", "--format", "{{.State.Status}}", "vllm")
        if state != "running" or time.monotonic() > end:
            pytest.fail(f"vLLM is {state}:\n{host.ssh('sudo docker logs --tail 40 vllm 2>&1').stdout}")
        time.sleep(0.5)
    yield url
    host.docker("rm", "--force", "vllm")


def test_real_vllm_inside_a_host_answers_from_outside(engine_url: str) -> None:
    first, again = (_chat(engine_url, "Say hello.") for _ in range(2))
    assert first["usage"]["completion_tokens"] == 8
    text = first["choices"][0]["message"]["content"]
    assert text.isprintable()
    assert text.strip()
    assert again["choices"][0]["message"]["content"] == text, "greedy decoding gave two texts"


def test_a_newcomer_has_a_clean_clone_and_nothing_else(plain_host: Newcomer) -> None:
    done = plain_host.run("id -un; python3 -c 'import venv, ensurepip'; make --version; git status; ls -a")
    words = done.stdout.splitlines()
    assert words[0] == plain_host.user
    assert "GNU Make" in words[1], done.stderr
    assert "pyproject.toml" in words
    assert ".venv" not in words
    assert "git: command not found" in done.stderr
    assert plain_host.processes() == []
    assert plain_host.listening_ports() == set()


def test_a_newcomer_can_install_from_the_package_index(plain_host: Newcomer) -> None:
    done = plain_host.run(
        "python3 -m venv /tmp/v && /tmp/v/bin/pip install --quiet colorama==0.4.6", timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = plain_host.run("/tmp/v/bin/python -c 'import colorama; print(colorama.__version__)'")
    assert found.stdout.strip() == "0.4.6"


def test_what_a_newcomer_starts_goes_on_and_is_reached_beside_it(plain_host: Newcomer) -> None:
    started = plain_host.run("nohup python3 -m http.server --bind 127.0.0.1 8765 >/dev/null 2>&1 & echo $!")
    seen = plain_host.beside(
        "curl -fsS --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:8765/"
    )
    assert "Makefile" in seen.stdout, seen.stderr
    assert plain_host.listening_ports() == {8765}
    assert any("http.server" in line for line in plain_host.processes())
    plain_host.run(f"kill {started.stdout.strip()}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _chat(url: str, text: str) -> dict[str, Any]:
    body = {
        "model": "tiny",
        "max_tokens": 8,
        "temperature": 0,
        "messages": [{"role": "user", "content": text}],
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        found: dict[str, Any] = json.load(reply)
    return found
