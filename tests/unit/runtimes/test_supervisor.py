"""One supervisord per home: its files, what counts as changed, and who is proved to run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import programs
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import (
    LAUNCHER,
    Home,
    Program,
    Supervisor,
    SupervisorError,
    launch_document,
    program_configuration,
    program_state,
    spec_document,
    write_text,
)

PROGRAM = Program("h.m.0", ("engine", "50%"), {"KEY": "a % b"}, None, "abc", {"env": {}}, 30, 1000, 3)


def recorded(home: Home, program: Program = PROGRAM) -> None:
    folder = home.program_folder(program.name)
    for path, text in (
        (folder / "spec.json", spec_document(program)),
        (folder / "launch.json", launch_document(program)),
        (home.program_file(program.name), program_configuration(home, program, "python3")),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text, 0o600)


def test_what_is_recorded_and_runs_is_kept(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert programs.decide(home, PROGRAM, "python3", None).action == "start"
    recorded(home)
    assert programs.decide(home, PROGRAM, "python3", "RUNNING").action == "keep"
    assert programs.decide(home, PROGRAM, "python3", "FATAL") == programs.Step("h.m.0", "start", "was fatal")
    assert programs.recorded_spec(home, "h.m.0") == {"env": {}}


@pytest.mark.parametrize("name", ["spec.json", "launch.json"])
@pytest.mark.parametrize("damage", [b"{", b"", b"\xff\xfe\x00", b"[1]"])
def test_a_damaged_record_is_written_anew(tmp_path: Path, name: str, damage: bytes) -> None:
    home = Home(tmp_path)
    recorded(home)
    (home.program_folder("h.m.0") / name).write_bytes(damage)
    assert programs.decide(home, PROGRAM, "python3", "RUNNING").action == "restart"
    assert programs.recorded_spec(home, "h.m.0") in ({}, {"env": {}})
    programs.diff_of(home, PROGRAM)


def test_a_changed_secret_restarts_and_is_named_nowhere(tmp_path: Path) -> None:
    home = Home(tmp_path)
    recorded(home)
    changed = replace(PROGRAM, environment={"KEY": "another-secret"})
    step = programs.decide(home, changed, "python3", "RUNNING")
    assert (step.action, step.reason) == ("restart", "its command or environment changed")
    assert "another-secret" not in str(programs.diff_of(home, changed))
    assert "a % b" not in program_configuration(home, PROGRAM, "python3")


def test_a_home_with_a_percent_sign_is_quoted(tmp_path: Path) -> None:
    text = program_configuration(Home(tmp_path / "50%"), PROGRAM, "python3")
    assert "/50%%/process/h.m.0/output.log" in text


def test_a_home_too_deep_for_a_socket_is_refused_with_numbers() -> None:
    Home(Path("/srv/modelyard")).check()
    with pytest.raises(SupervisorError, match=r"19 bytes too long for a Unix socket.*shorter home"):
        Home(Path("/" + "d" * 90)).check()


def test_the_launcher_becomes_the_program_and_marks_it_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    home = Home(tmp_path / "link")
    program = replace(PROGRAM, command=(sys.executable, "-c", "input()"))
    recorded(home, program)
    launcher = tmp_path / "launch.py"
    launcher.write_text(LAUNCHER, encoding="utf-8")
    assert program_state(home, "h.m.0") == ("unknown", None)
    command = [sys.executable, str(launcher), str(home.program_folder("h.m.0") / "launch.json")]
    code = "import os,sys;sys.stdout.write('up');sys.stdout.flush();input()"
    write_text(
        home.program_folder("h.m.0") / "launch.json",
        launch_document(replace(program, command=(sys.executable, "-c", code))),
        0o600,
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"up"
        assert program_state(home, "h.m.0") == ("up", process.pid)
    finally:
        process.kill()
        process.communicate()
    assert program_state(home, "h.m.0") == ("down", None)


def test_another_process_with_the_recorded_number_is_not_ours(tmp_path: Path) -> None:
    home = Home(tmp_path)
    recorded(home)
    (home.program_folder("h.m.0") / "pid").write_text(str(os.getpid()), encoding="utf-8")
    assert program_state(home, "h.m.0") == ("down", None)
    assert Supervisor(home).end_orphan("h.m.0", 1.0) is None


def test_a_supervisor_is_running_not_running_or_unclear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(Home(tmp_path), timeout_s=0.2)
    assert supervisor.running() is False
    supervisor.home.folder.mkdir()
    monkeypatch.chdir(supervisor.home.folder)  # a socket's own path must be short
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind("supervisor.sock")
        mute.listen()
        with pytest.raises(SupervisorError, match="its programs are left alone"):
            supervisor.running()
    assert supervisor.running() is False
