"""The lock under real ansible-playbook runs: refusal, the end of a run in all its ways, and a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = """
- hosts: all
  gather_facts: false
  vars: {__fleet_check: {state_dir: STATE}, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
  tasks:
    - ansible.builtin.import_tasks: ROOT/playbooks/tasks/lock.yml
    - ansible.builtin.raw: touch STATE/began; for i in $(seq 600); do test -e STATE/go && break; sleep 0.1; done
      when: wait is defined
    - ansible.builtin.fail: {msg: on purpose}
      when: fail is defined
- hosts: all
  gather_facts: false
  vars: {__fleet_check: {state_dir: STATE}}
  tasks:
    - name: The same run holds it already
      ansible.builtin.import_tasks: ROOT/playbooks/tasks/lock.yml
"""


class Stage:
    """A playbook that holds the lock of its own state directory until it is told to go on."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.playbook = directory / "change.yml"
        text = PLAYBOOK.replace("ROOT", str(ROOT)).replace("STATE", str(self.state))
        self.playbook.write_text(text, encoding="utf-8")
        self.started: list[subprocess.Popen[str]] = []

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    def begin(self, *more: str) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        run = subprocess.Popen(
            [*command, str(self.playbook), *more], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.started.append(run)
        return run

    def holding(self) -> subprocess.Popen[str]:
        """A run that has the lock and is in the midst of a task, which goes on until it is told to end."""
        run = self.begin("-e", "wait=1")
        deadline = time.monotonic() + 60
        while not (self.state / "began").exists():
            assert run.poll() is None, run.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return run

    def go(self) -> None:
        (self.state / "go").touch()

    def run(self, *more: str) -> tuple[int, str]:
        run = self.begin(*more)
        output, _ = run.communicate(timeout=60)
        return run.returncode, output


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    if stage.state.exists():
        stage.go()  # a task that outlived its run ends
    for run in stage.started:
        if run.poll() is None:
            run.kill()
        run.communicate(timeout=60)


def test_two_runs_are_kept_apart(stage: Stage) -> None:
    first = stage.holding()
    held = json.loads(stage.lock.read_text(encoding="utf-8"))
    assert held["pid"] == first.pid, "the run itself, not the worker of one task"
    assert held["playbook"] == "change"
    code, output = stage.run()
    assert code != 0, output
    assert f"process {first.pid} on" in output.replace("\n", " ")
    assert "Wait until that run has ended" in " ".join(output.split())
    assert json.loads(stage.lock.read_text(encoding="utf-8")) == held
    # looking is never refused
    code, output = stage.run("--check")
    assert code == 0
    assert "is changing this fleet with change since" in output
    stage.go()
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0, output
    assert not stage.lock.exists()


def test_check_mode_takes_nothing(stage: Stage) -> None:
    code, output = stage.run("--check")
    assert code == 0, output
    assert not stage.state.exists()


def test_a_failure_gives_it_back(stage: Stage) -> None:
    code, output = stage.run("-e", "fail=1")
    assert code != 0, output
    assert "on purpose" in output
    assert not stage.lock.exists()
    assert stage.run()[0] == 0


def test_an_interrupted_run_gives_it_back_and_says_that_nobody_knows(stage: Stage) -> None:
    run = stage.holding()
    os.kill(run.pid, signal.SIGINT)
    run.wait(60)
    stage.go()  # for the task, which outlives its run and has our end of the pipe
    output = run.communicate(timeout=60)[0]
    assert run.returncode != 0
    assert not stage.lock.exists(), output
    assert "was cut off" in output


def test_a_killed_run_is_taken_over_with_a_word_once_its_last_task_has_ended(stage: Stage) -> None:
    run = stage.holding()
    run.kill()
    run.wait(60)
    assert stage.lock.exists()
    second = stage.begin()
    assert second.stdout is not None
    output = ""
    while "waiting for it" not in " ".join(output.split()):
        line = second.stdout.readline()
        assert line, output
        output += line
    stage.go()
    output += second.communicate(timeout=60)[0]
    assert second.returncode == 0, output
    said = " ".join(output.split())
    assert "did not end. What it did is unknown until the hosts have been observed" in said
    assert not stage.lock.exists()


def test_another_machines_lock_is_broken_by_its_id_only(stage: Stage) -> None:
    run = stage.holding()
    held = json.loads(stage.lock.read_text(encoding="utf-8"))
    run.kill()
    run.wait(60)
    stage.go()
    stage.lock.write_text(
        json.dumps(held | {"boot_id": "other", "machine_id": "m", "host": "far"}), encoding="utf-8"
    )
    code, output = stage.run()
    assert code != 0, output
    said = " ".join(output.split())
    assert "cannot be seen from" in said
    name = said.rpartition("-e break_lock=")[2][:8]
    for wrong in ("{{ 1 }}", "x", "00000000"):
        assert stage.run("-e", json.dumps({"break_lock": wrong}))[0] != 0
    assert stage.lock.exists()
    code, output = stage.run("-e", f"break_lock={name}")
    assert code == 0, output
    assert "was broken" in output
    assert not stage.lock.exists()


CHANGES_NOTHING = {"check", "plan", "status", "verify", "drift", "security", "doctor", "logs"}


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.stem)
def test_every_playbook_that_changes_something_takes_the_lock_before_it_looks(path: Path) -> None:
    imported = [
        play.get("ansible.builtin.import_playbook")
        for play in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]
    if path.stem in CHANGES_NOTHING:
        assert "plays/lock.yml" not in imported
    else:
        # of the playbook's own plays, those before the lock may look at what they were given, and at nothing else
        assert imported[0] == "check.yml"
        plays = yaml.safe_load(path.read_text(encoding="utf-8"))[: imported.index("plays/lock.yml")]
        tasks = [key for play in plays for task in play.get("tasks", ()) for key in task if "." in key]
        assert set(tasks) <= {"ansible.builtin.assert", "ansible.builtin.set_fact"}
        assert all(play["gather_facts"] is False for play in plays if "tasks" in play)
