"""A stand-in for the project: its own ansible.cfg and playbooks that write prepared results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Done = subprocess.CompletedProcess[str]

WRITE = """
    - name: Write the result
      ansible.builtin.copy:
        content: "{{ lookup('ansible.builtin.file', playbook_dir ~ '/result.json') }}"
        dest: "{{ modelyard_result_file }}"
        mode: "0600"
"""

HOSTS = """
all:
  hosts:
    localhost:
      ansible_connection: local
      ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""


@dataclass
class Project:
    """Playbooks of one's own under ``root`` and an inventory of one local host."""

    root: Path
    inventory: Path

    def playbook(self, name: str, tasks: str, result: Any = None) -> None:
        """Write ``playbooks/<name>.yml``; with a result it ends by writing that."""
        text = "- name: Stand-in\n  hosts: all\n  gather_facts: false\n  tasks:\n" + tasks
        if result is not None:
            (self.root / "playbooks" / "result.json").write_text(json.dumps(result), encoding="utf-8")
            text += WRITE
        (self.root / "playbooks" / f"{name}.yml").write_text(text, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        """The process's environment with this project in it."""
        hidden = {"ANSIBLE_CONFIG", "MODELYARD_INVENTORY", "MODELYARD_URL"}
        kept = {key: value for key, value in os.environ.items() if key not in hidden}
        return kept | {"MODELYARD_HOME": str(self.root)}

    def run(self, *arguments: str) -> Done:
        """``modelyard ...`` in a process of its own."""
        command = [sys.executable, "-m", "modelyard", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(), cwd=self.root)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    (root / "playbooks").mkdir(parents=True)
    (root / "ansible.cfg").write_text("[defaults]\n", encoding="utf-8")
    inventory = root / "inventories" / "local"
    inventory.mkdir(parents=True)
    (inventory / "hosts.yml").write_text(HOSTS, encoding="utf-8")
    return Project(root, inventory)


@pytest.fixture
def modelyard() -> Callable[..., Done]:
    """``modelyard ...`` in a process of its own, with an optional standard input."""

    def run(*arguments: str, stdin: str = "", cwd: Path | None = None) -> Done:
        command = [sys.executable, "-m", "modelyard", *arguments]
        return subprocess.run(command, capture_output=True, text=True, input=stdin, cwd=cwd)

    return run
