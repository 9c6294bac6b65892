"""plan, status and the runner behind them, against real ansible-playbook runs of stand-in playbooks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.tools import UNREACHABLE_SSH

from modelyard.cli.playbooks import run_playbook
from modelyard.errors import ConfigError

OK = "    - name: Look\n      ansible.builtin.debug:\n        msg: hello\n"
START = {"action": "start", "replica": "localhost.m.0", "host": "localhost", "reason": "new"}
PLAN = {"changes": [START], "problems": []}


def test_a_plan_is_shown_and_leaves_nothing_behind(project, tmp_path: Path) -> None:
    project.playbook("plan", OK, PLAN)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = project.environment
    project.environment = lambda: before() | {"TMPDIR": str(scratch)}
    done = project.run("plan")
    assert (done.returncode, done.stderr) == (0, "")
    assert "localhost.m.0" in done.stdout
    assert done.stdout.endswith("1 to start.\n")
    assert [entry.name for entry in scratch.iterdir() if entry.name.startswith("modelyard-")] == []


def test_the_whole_result_as_json(project) -> None:
    project.playbook("status", OK, {"hosts": [{"name": "localhost", "state": "up"}], "replicas": []})
    done = project.run("status", "--json", "-i", str(project.inventory))
    assert (done.returncode, json.loads(done.stdout)["hosts"][0]["state"]) == (0, "up")


def test_problems_make_exit_code_1(project) -> None:
    problem = {"message": "8 GPUs are wished for, 4 are there", "model": "m", "hint": "Lower replicas."}
    project.playbook("plan", OK, {"changes": [], "problems": [problem]})
    done = project.run("plan")
    assert done.returncode == 1
    for part in ("8 GPUs are wished for", "model m", "Lower replicas."):
        assert part in done.stderr


def test_a_failing_task_is_named_with_its_host_and_reason(project) -> None:
    project.playbook(
        "plan", "    - name: Count GPUs\n      ansible.builtin.fail:\n        msg: no [bold]driver\n"
    )
    done = project.run("plan")
    assert done.returncode == 1
    assert 'localhost: failed at "Count GPUs": no [bold]driver' in done.stderr
    assert "Traceback" not in done.stderr
    done = project.run("plan", "--json")
    assert json.loads(done.stdout)["failures"] == ['localhost: failed at "Count GPUs": no [bold]driver']


def test_an_unreachable_host_is_told(project) -> None:
    (project.inventory / "hosts.yml").write_text(
        f"all:\n  hosts:\n    gpu01:\n      ansible_host: 127.0.0.1\n      ansible_ssh_executable: {UNREACHABLE_SSH}\n",
        encoding="utf-8",
    )
    project.playbook("status", "    - name: Look\n      ansible.builtin.ping:\n")
    done = project.run("status")
    assert done.returncode == 1
    assert 'gpu01: did not answer at "Look"' in done.stderr


@pytest.mark.parametrize(
    ("tasks", "part"),
    [("    - name: Odd\n      ansible.builtin.nothing_like_it:\n", "nothing_like_it"), ("  - [\n", "ERROR")],
)
def test_a_broken_playbook_shows_what_ansible_says(project, tasks: str, part: str) -> None:
    project.playbook("plan", tasks)
    done = project.run("plan")
    assert done.returncode == 1
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_a_playbook_that_is_missing(project) -> None:
    done = project.run("plan")
    assert (done.returncode, "plan.yml is missing" in done.stderr) == (1, True)


@pytest.mark.parametrize("limit", ["", " ", "-x", "--version"])
def test_a_limit_cannot_become_an_option(project, limit: str) -> None:
    project.playbook("plan", OK, PLAN)
    with pytest.raises(ConfigError, match="no host pattern"):
        run_playbook("plan", project.inventory, project.root, limit=limit)


def test_outside_a_checkout_it_says_what_to_set(
    modelyard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    done = modelyard("plan", cwd=tmp_path)
    assert done.returncode == 1
    assert "set it to the checkout" in done.stderr
    done = modelyard("plan", "--json", cwd=tmp_path)
    assert "set it to the checkout" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize(("overall", "code"), [("up", 0), ("down", 2), ("unknown", 3)])
def test_status_judges_by_its_exit_code(project, overall: str, code: int) -> None:
    project.playbook("status", OK, {"hosts": [], "replicas": [], "overall": overall})
    assert project.run("status", "--json").returncode == code


DRIFT = {"hosts": ["gpu01"], "kinds": ["image"], "checked_at": "2026-01-01T00:00:00+00:00", "notes": []}
UNSEEN = {"severity": "unknown", "host": "gpu01", "kind": "host", "subject": "gpu01", "field": "state"}


def test_drift_that_could_not_be_looked_at_leaves_the_old_figures(project, tmp_path: Path) -> None:
    path = tmp_path / "drift.prom"
    project.playbook("drift", OK, DRIFT | {"findings": [UNSEEN]})
    assert project.run("drift", "--prometheus", str(path)).returncode == 3
    before = path.read_text(encoding="utf-8")
    assert 'modelyard_drift_unknown{host="gpu01"} 1' in before
    project.playbook("drift", "    - name: Break\n      ansible.builtin.fail:\n        msg: broken\n")
    done = project.run("drift", "--prometheus", str(path))
    assert (done.returncode, path.read_text(encoding="utf-8")) == (1, before)
    project.playbook("drift", OK, DRIFT | {"findings": []})
    done = project.run("drift", "--prometheus", str(tmp_path / "missing" / "x.prom"))
    assert (done.returncode, "cannot be written" in done.stderr) == (1, True)


TELL = """
    - name: Tell
      ansible.builtin.copy:
        content: "{{ told | to_json }}"
        dest: "{{ modelyard_result_file }}"
        mode: "0600"
      vars:
        told:
"""


def test_extra_variables_are_text_and_never_templates(project, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    typed = "{{ lookup('ansible.builtin.pipe', 'touch " + str(trap) + "') }}"
    project.playbook("plan", TELL + '          seen: "{{ model }}"\n')
    outcome = run_playbook("plan", project.inventory, project.root, extra={"model": typed})
    assert outcome.ok, outcome
    assert outcome.result == {"seen": typed}
    assert not trap.exists()


LOOK = """
    - name: Look at the directory
      ansible.builtin.stat:
        path: "{{ modelyard_result_file | dirname }}"
      register: found
"""


def test_the_result_stands_in_a_private_directory(project) -> None:
    told = '          mode: "{{ found.stat.mode }}"\n          path: "{{ found.stat.path }}"\n'
    project.playbook("plan", LOOK + TELL + told)
    lines: list[str] = []
    outcome = run_playbook("plan", project.inventory, project.root, progress=lines.append)
    assert outcome.result is not None, outcome
    assert outcome.result["mode"] == "0700"
    assert Path(outcome.result["path"]).parent == Path(tempfile.gettempdir())
    assert not Path(outcome.result["path"]).exists()
    assert "Look at the directory · localhost" in lines


BEGIN_AND_WAIT = """
    - name: Begin
      ansible.builtin.file:
        path: {flag}
        state: touch
        mode: "0600"
    - name: Wait
      ansible.builtin.wait_for:
        path: {never}
        timeout: 60
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_ansible_first_and_says_so(project, tmp_path: Path, number: int) -> None:
    flag = tmp_path / "begun"
    project.playbook("plan", BEGIN_AND_WAIT.format(flag=flag, never=tmp_path / "never"))
    command = [sys.executable, "-m", "modelyard", "plan"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=project.environment(), cwd=project.root, **pipes)
    with process:
        while not flag.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == ""
    assert err == "Error: Interrupted. A task that had begun on a host may still be running there.\n"
