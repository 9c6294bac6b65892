"""The role container_runtime picks a platform's names by what the host says of itself, or says which ones it knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        cacheable: true
        distribution: "{{ says[0] }}"
        os_family: "{{ says[1] }}"
        distribution_version: "{{ says[2] }}"
        distribution_major_version: "{{ says[2].split('.')[0] }}"
    - ansible.builtin.include_role: {name: container_runtime, tasks_from: platform.yml, rolespec_validate: false}
    - ansible.builtin.debug: {msg: "{{ inventory_hostname }} is {{ __container_runtime_platform.title }}"}
"""
HOSTS = {
    "bookworm": ["Debian", "Debian", "12.11"],
    "jammy": ["Ubuntu", "Debian", "22.04"],
    "noble": ["Ubuntu", "Debian", "24.04"],
    "rocky": ["Rocky", "RedHat", "9.5"],
    "rhel": ["RedHat", "RedHat", "9.4"],
    "old": ["Debian", "Debian", "11.9"],
    "fedora": ["Fedora", "RedHat", "41"],
}


def test_each_host_gets_its_platform_and_an_unknown_one_is_told_what_is_supported(tmp_path: Path) -> None:
    hosts = {name: {"says": says, "ansible_connection": "local"} for name, says in HOSTS.items()}
    inventory, playbook = tmp_path / "hosts.yml", tmp_path / "play.yml"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    playbook.write_text(PLAYBOOK, encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(playbook)],
        cwd=ROOT, env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    said = " ".join((done.stdout + done.stderr).split())
    for name, title in {
        "bookworm": "Debian 12",
        "jammy": "Ubuntu 22.04",
        "noble": "Ubuntu 24.04",
        "rocky": "RHEL 9 and its kin",
        "rhel": "RHEL 9 and its kin",
    }.items():
        assert f"{name} is {title}" in said
    for unknown in ("Debian 11.9 (debian-11)", "Fedora 41 (redhat-41)"):
        assert (
            f"{unknown} is not supported. Supported are debian-12, redhat-9, ubuntu-22.04, ubuntu-24.04;"
            in said
        )
