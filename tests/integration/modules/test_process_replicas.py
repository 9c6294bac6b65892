"""The module ``replicas`` with supervised processes: what it starts, notices, keeps, puts back and survives."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.run_module import SECRET, foreseen_and_done, kill_replicas, run_replicas, told

# takes a moment to end, like an engine that finishes its answers
ENGINE = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit(0)))\n"
    "while True: time.sleep(0.05)\n"
)


class Site:
    def __init__(self, home: Path) -> None:
        self.home = home

    def assignment(self, which: str = "old", index: int = 0, **spec: Any) -> dict[str, Any]:
        full = {
            "executable": [sys.executable], "command": ["-c", ENGINE, which], "env": {"TOKEN": SECRET, "W": which},
            "gpus": [], "accelerator": "cpu", "stop_timeout_s": 5, "log": {"max_size": "1m", "max_files": 2},
            "publish": {"address": "127.0.0.1", "port": 18100 + index, "container_port": 18100 + index}, **spec,
        }  # fmt: skip
        wish = json.dumps(full, sort_keys=True)
        return {
            "replica": f"h.m.{index}",
            "model": "m",
            "engine": "e",
            "runtime": "process",
            "hash": wish,
            "spec": full,
        }

    def params(self, **params: Any) -> dict[str, Any]:
        return {"home": str(self.home), **params}

    def run(self, **params: Any) -> dict[str, Any]:
        return run_replicas(self.params(**params))

    def both(self, **params: Any) -> dict[str, Any]:
        return foreseen_and_done(self.params(**params))

    def runs(self, words: list[str]) -> None:
        """Wait until just these engines run: a process that was started takes a moment to become itself."""
        end = time.monotonic() + 30
        while self.running() != words:
            assert time.monotonic() < end, (self.running(), words)
            time.sleep(0.05)

    def running(self) -> list[str]:
        """The last word of each engine that runs, whoever knows of it."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.home) in environment and ENGINE.encode() in words:
                found.append(words[-2].decode())
        return sorted(found)


@pytest.fixture
def site() -> Iterator[Site]:
    # a socket's path may have 107 bytes: pytest's own directories are too deep
    with tempfile.TemporaryDirectory(prefix="m") as name:
        one = Site(Path(name).resolve())
        yield one
        one.run(stops=[{"replica": f"h.m.{index}", "runtime": "process"} for index in range(3)])
        assert one.running() == []
        assert list(one.home.iterdir()) == []


def test_processes_start_once_and_differences_are_named(site: Site) -> None:
    wish = [site.assignment(index=index) for index in range(3)]
    assert told(site.both(replicas=wish), "reason") == [("start", "is not there yet")] * 3
    again = site.both(replicas=wish)
    assert told(again, "reason", "differences") == [("keep", "runs as wished", [])] * 3
    assert again["changed"] is False

    changed = site.both(
        replicas=[wish[0], site.assignment(index=1, env={"TOKEN": SECRET, "W": "else"}), wish[2]]
    )
    (kept, (action, reason, differences), _) = told(changed, "reason", "differences")
    assert (kept[0], action, reason) == ("keep", "replace", "env.W changed")
    assert [one["field"] for one in differences] == ["env.W"]

    launch = site.home / "process" / "h.m.2" / "launch.json"
    launch.write_text(
        launch.read_text(encoding="utf-8").replace('"W": "old"', '"W": "by hand"'), encoding="utf-8"
    )
    ((action, reason, differences),) = told(site.both(replicas=wish[2:]), "reason", "differences")
    assert (action, reason) == ("replace", "its command or environment changed")
    assert [one["field"] for one in differences] == ["launch"]


def test_what_is_replaced_can_be_put_back_or_confirmed(site: Site) -> None:
    old, new, third = (site.assignment(which) for which in ("old", "new", "third"))
    site.run(replicas=[old])
    told(site.both(replicas=[new], keep_previous=True))
    told(
        site.both(replicas=[third], keep_previous=True)
    )  # not confirmed: the first stays what is gone back to
    site.runs(["third"])
    assert told(site.both(replicas=[third], state="put_back")) == [("put_back",)]
    site.runs(["old"])
    assert site.run(replicas=[old])["changed"] is False
    assert told(site.both(replicas=[third], state="put_back")) == [("keep",)]

    told(site.run(replicas=[new], keep_previous=True))
    assert told(site.both(replicas=[new], state="confirmed")) == [("discard",)]
    assert told(site.both(replicas=[new], state="put_back")) == [("keep",)]
    site.runs(["new"])


def test_one_that_is_refused_stops_no_other(site: Site) -> None:
    told(site.run(replicas=[site.assignment()]))
    failed = site.both(replicas=[site.assignment("new"), site.assignment(index=1, executable=[], command=[])])
    assert failed["failed"]
    assert "h.m.1 has no command" in failed["msg"]
    site.runs(["old"])
    unknown = site.both(replicas=[{**site.assignment(), "runtime": "slurm"}])
    assert "no runtime slurm" in unknown["msg"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("state", ["applied", "put_back"])
def test_a_run_that_was_killed_is_followed_by_one_that_converges(site: Site, state: str) -> None:
    old, new = site.assignment("old"), site.assignment("new")
    for moment in (0.2, 0.3, 0.4, 0.5, 0.6):
        told(site.run(replicas=[old]))
        if state == "put_back":
            told(site.run(replicas=[new], keep_previous=True))
        params = site.params(replicas=[new], keep_previous=True, state=state)
        kill_replicas(params, moment)
        assert len(site.running()) <= 1, moment
        told(run_replicas(params))
        site.runs(["new" if state == "applied" else "old"])
        wish = new if state == "applied" else old
        assert site.run(replicas=[wish])["changed"] is False, moment
        told(site.run(replicas=[wish], state="confirmed"))
