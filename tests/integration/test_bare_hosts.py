"""Which hosts site.yml makes container hosts: by what they say of themselves, and by nothing else.

The roles are ones that only say what was seen and write down that they were called: what they do to a host has scenarios of
their own, and what follows from a look is a function with tests of its own. Which engine this machine has does not matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SSH = ROOT / "tests" / "tools" / "unreachable-ssh"
PLAYBOOK = """
- ansible.builtin.import_playbook: ROOT/playbooks/check.yml
- ansible.builtin.import_playbook: ROOT/playbooks/plays/bare_hosts.yml
- hosts: engine_hosts
  gather_facts: false
  tasks:
    - ansible.builtin.include_tasks: ROOT/playbooks/tasks/observe.yml
      vars: {ansible_become: false}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} has docker {{ __fleet_facts.docker | default('not known') }}"}
"""
NEEDED = """
- name: Look
  ansible.builtin.ping:
  register: __seen
  ignore_unreachable: true
- ansible.builtin.set_fact:
    container_runtime_needed:
      known: "{{ __seen.ping is defined }}"
      absent: "{{ __seen.ping is defined and seen == 'absent' }}"
      why: "{{ 'it was seen to be ' ~ seen if __seen.ping is defined and seen != 'as wished' else '' }}"
"""
MADE = """
- ansible.builtin.fail: {msg: it could not be made}
  when: spoil | default('') == inventory_hostname
- ansible.builtin.lineinfile: {path: "{{ book }}", line: "{{ inventory_hostname }} ROLE", create: true, mode: "0644"}
  check_mode: false
"""
MODEL = {"id": "echo", "engine": "echo", "runtime": "process", "placement": {"replicas": 0, "gpus": 0}}


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """What was done to which host, a line each, in order."""
    return tmp_path / "book"


def play(
    tmp_path: Path, book: Path, hosts: dict[str, dict[str, Any]], *more: str
) -> subprocess.CompletedProcess[str]:
    for role, tasks in (
        ("container_runtime", {"main": MADE, "needed": NEEDED}),
        ("gpu_driver", {"main": MADE}),
    ):
        for name, text in tasks.items():
            path = tmp_path / "roles" / role / "tasks" / f"{name}.yml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("ROLE", role), encoding="utf-8")
    shared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_become": False,
        "book": str(book),
        "seen": "absent",
    }
    (tmp_path / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    (tmp_path / "group_vars" / "all" / "models.yml").write_text(json.dumps({"models": [MODEL]}), "utf-8")
    inventory, playbook = tmp_path / "hosts.yml", tmp_path / "play.yml"
    inventory.write_text(
        json.dumps({"all": {"vars": shared, "children": {"engine_hosts": {"hosts": hosts}}}}), "utf-8"
    )
    playbook.write_text(PLAYBOOK.replace("ROOT", str(ROOT)), encoding="utf-8")
    # neither an engine nor a command of one is there
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for tool in ("sh", "env", "python3", "id", "uname"):
        found = Path("/usr/bin", tool)
        if not (tools / tool).exists():
            (tools / tool).symlink_to(found)
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_ROLES_PATH": f"{tmp_path}/roles:{ROOT}/roles",
        "PATH": str(tools),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(tmp_path), str(playbook)]
    return subprocess.run(
        [*command, *more], cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False
    )


def done(book: Path) -> list[str]:
    return book.read_text(encoding="utf-8").splitlines() if book.exists() else []


# of which this machine has no driver
GPUS = {"fleet_accelerator": "rocm" if Path("/proc/driver/nvidia/version").exists() else "nvidia"}
HOSTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "gpu": {**GPUS},
    "own": {**GPUS, "gpu_driver_vendor": "none"},
    "off": {**GPUS, "fleet_host_setup": False},
    "laptop": {"fleet_runtime": "process"},
    "made": {"seen": "as wished"},
    "changed": {"seen": "changed"},
    "away": {"ansible_connection": "ssh", "ansible_ssh_executable": str(SSH), "fleet_address": "192.0.2.1"},
}
NEW = [
    "bare container_runtime",
    "gpu gpu_driver",
    "gpu container_runtime",
    "own container_runtime",
    "changed container_runtime",
]


def test_hosts_without_engine_and_driver_get_them_and_no_others(tmp_path: Path, book: Path) -> None:
    run = play(tmp_path, book, {name: dict(host) for name, host in HOSTS.items()}, "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(done(book)) == sorted(NEW)
    assert done(book)[0] == "bare container_runtime", "one host first"
    assert done(book).index("gpu gpu_driver") < done(book).index("gpu container_runtime")
    said = run.stdout
    assert "bare: it was seen to be absent" in said
    assert "gpu: it was seen to be absent; no driver of its GPUs is loaded" in said
    # a check counts on the engines that it has not installed
    for name in ("bare", "gpu", "own"):
        assert f"{name} has docker foreseen" in said, said
    for name in ("off", "laptop", "made", "changed"):
        assert f"{name} has docker absent" in said, said
    assert "away has docker not known" in said


def test_what_is_wrong_on_the_first_host_ends_the_run(tmp_path: Path, book: Path) -> None:
    run = play(tmp_path, book, {"one": {}, "two": {}, "three": {}}, "-e", "spoil=one")
    assert run.returncode != 0
    assert "it could not be made" in run.stdout
    assert done(book) == []
    # out of a check nothing is foreseen, and a host that is as wished is no reason to begin
    run = play(tmp_path, book, {"made": {"seen": "as wished"}, "one": {}})
    assert run.returncode == 0, run.stdout + run.stderr
    assert done(book) == ["one container_runtime"]
    assert "one has docker absent" in run.stdout
