"""Tests on several workers that are interrupted tidy up first, as long as it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# longer than a worker is given by itself
TEST = """
import pathlib, time
import pytest

@pytest.fixture
def engine():
    mark = pathlib.Path(__file__)
    mark.with_suffix(".began").touch()
    yield
    time.sleep(6)
    mark.with_suffix(".ended").touch()

def test_it(engine):
    time.sleep(100)
"""


@pytest.mark.parametrize("everyone", [True, False], ids=["as a terminal does", "the first process alone"])
def test_what_tests_have_started_is_stopped(tmp_path: Path, everyone: bool) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text(TEST, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "xdist", "--numprocesses", "2", "--dist", "loadfile"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            end = time.monotonic() + 60
            while len(list(tmp_path.glob("*.began"))) < 2:
                assert time.monotonic() < end
                time.sleep(0.05)
            if everyone:
                os.killpg(run.pid, signal.SIGINT)
            else:
                run.send_signal(signal.SIGINT)
            said, _ = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, said
    assert len(list(tmp_path.glob("*.ended"))) == 2, said
