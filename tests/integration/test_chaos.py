from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.chaos.scenarios import SCENARIOS

COMMAND = (sys.executable, "-m", "modelyard", "chaos")


def children(pid: int) -> list[int]:
    try:
        return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(400)
def test_the_whole_suite() -> None:
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, timeout=390, check=False)
    said = json.loads(done.stdout)
    failed = {item["name"]: item["happened"] for item in said["scenarios"] if not item["passed"]}
    assert failed == {}
    assert (said["ok"], done.returncode) == (True, 0)
    assert len(said["scenarios"]) == len(SCENARIOS)


def test_one_group_as_a_user_runs_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--only", "stalls", "--only", "stops-in-order"],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 2 scenarios passed" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_when_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--only", "hangs-everywhere", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        try:
            end = time.monotonic() + 60
            # the proxy listens when it has been asked for a registry that it took
            while not (found := children(process.pid)) or not list(tmp_path.rglob("endpoints.json")):
                assert time.monotonic() < end
                time.sleep(0.02)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "Traceback" not in out + err
    assert not [pid for pid in found if alive(pid)]
    assert list(tmp_path.iterdir()) == []
    if number is signal.SIGTERM:
        assert "stopped before its end" in json.loads(out)["error"]
