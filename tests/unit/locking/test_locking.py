"""The lock that keeps two changing runs apart: who may take it, when, and what everybody else is told."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.plugin_utils import locking
from ansible_collections.modelyard.fleet.plugins.plugin_utils.locking import (
    ALIVE,
    DEAD,
    ELSEWHERE,
    MINE,
    LockError,
    Machine,
    Owner,
    acquire,
    judge,
    read_lock,
    release,
    run_owner,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HERE = Machine("here", "m1", "boot-1", "pid:[1]")
LIVING = {7: "700", 8: "800"}


def born(pid: int) -> str | None:
    return LIVING.get(pid)


def owner(pid: int, machine: Machine = HERE, at: datetime = NOW, start: str | None = None) -> Owner:
    made = run_owner(pid, "deploy", at, machine, lambda _pid: start or LIVING[pid])
    return replace(made, who="ann@here")


def test_a_lock_is_taken_held_again_and_given_back(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    mine = owner(7)
    assert acquire(state, mine, HERE, born=born) == (True, "")
    assert (state / "lock").stat().st_mode & 0o777 == 0o644
    # another playbook of the same run
    assert acquire(state, owner(7), HERE, born=born) == (False, "")
    held = read_lock(state)
    assert held is not None
    assert held.owner == mine
    assert release(state, owner(7))
    assert read_lock(state) is None
    assert not release(state, mine)


def test_a_living_owner_keeps_it_and_the_other_is_told_who(tmp_path: Path) -> None:
    acquire(tmp_path, owner(7), HERE, born=born)
    later = owner(8, at=NOW + timedelta(minutes=7))
    with pytest.raises(LockError) as refused:
        acquire(tmp_path, later, HERE, born=born)
    said = str(refused.value)
    for part in (
        "ann@here",
        "playbook deploy",
        "for 7 min",
        "2026-05-04T12:00:00+00:00",
        "process 7 on here",
        "Wait",
    ):
        assert part in said
    assert "break_lock" not in said
    assert not release(tmp_path, later), "a lock of another run is not given back"
    assert read_lock(tmp_path) is not None


@pytest.mark.parametrize(
    ("held_by", "verdict"),
    [
        (owner(7), MINE),
        (owner(8), ALIVE),
        (owner(9, start="900"), DEAD),
        (owner(8, start="another process had this id"), DEAD),
        (owner(8, replace(HERE, boot_id="boot-0")), DEAD),
        (owner(8, replace(HERE, pid_space="pid:[2]")), ELSEWHERE),
        (owner(8, Machine("there", "m2", "boot-9", "pid:[1]")), ELSEWHERE),
        # a clone with the same machine id, and machines that have none
        (owner(8, Machine("there", "m1", "boot-9", "pid:[1]")), ELSEWHERE),
        (owner(8, Machine("here", "", "boot-9", "pid:[1]")), ELSEWHERE),
    ],
)
def test_who_is_judged_how(held_by: Owner, verdict: str) -> None:
    assert judge(held_by, HERE, 7, born) == verdict


def test_without_proc_a_process_is_judged_by_being_there() -> None:
    bare = Machine("here", "m1", "", "")
    assert judge(owner(8, bare), bare, 7, born) == ALIVE
    assert judge(owner(9, bare, start="there"), bare, 7, born) == DEAD


def test_a_dead_owner_is_taken_over_with_a_word(tmp_path: Path) -> None:
    acquire(tmp_path, owner(9, start="900"), HERE, born=born)
    new, said = acquire(tmp_path, owner(7), HERE, born=born)
    assert new
    assert "ann@here" in said
    assert "did not end" in said
    assert "unknown until" in said
    held = read_lock(tmp_path)
    assert held is not None
    assert held.owner is not None
    assert held.owner.pid == 7


def test_an_owner_elsewhere_is_broken_only_by_its_own_id(tmp_path: Path) -> None:
    far = owner(8, Machine("there", "m2", "boot-9", "pid:[1]"))
    acquire(tmp_path, far, HERE, born=born)
    held = read_lock(tmp_path)
    assert held is not None
    for wrong in ("", "00000000"):
        with pytest.raises(LockError, match=f"-e break_lock={held.id}"):
            acquire(tmp_path, owner(7), HERE, wrong, born=born)
    assert "was broken" in acquire(tmp_path, owner(7), HERE, held.id, born=born)[1]


def test_a_living_owner_is_broken_only_with_its_id(tmp_path: Path) -> None:
    acquire(tmp_path, owner(8), HERE, born=born)
    held = read_lock(tmp_path)
    assert held is not None
    with pytest.raises(LockError):
        acquire(tmp_path, owner(7), HERE, "deadbeef", born=born)
    assert acquire(tmp_path, owner(7), HERE, held.id, born=born)[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "\0\0\0"])
def test_a_lock_that_cannot_be_understood_is_nobodys_to_take(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text, encoding="utf-8")
    held = read_lock(tmp_path)
    assert held is not None
    with pytest.raises(LockError, match=f"cannot be understood.*break_lock={held.id}"):
        acquire(tmp_path, owner(7), HERE, born=born)
    assert (tmp_path / "lock").read_text(encoding="utf-8") == text
    assert acquire(tmp_path, owner(7), HERE, held.id, born=born)[0]


def test_a_lock_broken_by_somebody_else_in_the_meantime_is_no_error(tmp_path: Path) -> None:
    assert "no lock" in acquire(tmp_path, owner(7), HERE, "deadbeef", born=born)[1]


def test_a_run_that_has_ended_takes_nothing() -> None:
    with pytest.raises(LockError, match="has ended"):
        run_owner(9, "deploy", NOW, HERE, born)


def test_processes_are_told_apart_for_real() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert locking.process_start(child.pid) is not None
        assert locking.process_start(child.pid) == locking.process_start(child.pid)
        child.kill()
        # not reaped yet: there is still an entry in /proc, and nothing that could change a fleet
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert locking.process_start(child.pid) is None
    finally:
        child.communicate()
    assert locking.process_start(child.pid) is None
    assert locking.process_start(os.getpid()) is not None
    assert locking.this_machine().host


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_many_at_once_exactly_one_wins(tmp_path: Path, left_behind: bool) -> None:
    count = 12
    context = multiprocessing.get_context("fork")
    machine = locking.this_machine()
    dead = replace(run_owner(os.getpid(), "deploy", NOW, machine), born="never")
    for attempt in range(5):
        state = tmp_path / str(attempt)
        if left_behind:
            state.mkdir()
            (state / "lock").write_text(locking.as_text(dead), encoding="utf-8")
        start, over, won = context.Barrier(count), context.Event(), context.Queue()

        def run(
            number: int, state: Path = state, start: Any = start, over: Any = over, won: Any = won
        ) -> None:
            me = run_owner(os.getpid(), f"run-{number}", NOW, machine)
            start.wait(60)
            try:
                acquire(state, me, machine)
            except LockError:
                won.put((number, False))
                return
            won.put((number, True))
            over.wait(60)

        processes = [context.Process(target=run, args=(number,)) for number in range(count)]
        for each in processes:
            each.start()
        results = [won.get(timeout=60) for _ in range(count)]
        winners = [f"run-{number}" for number, got_it in results if got_it]
        assert len(winners) == 1
        assert json.loads((state / "lock").read_text(encoding="utf-8"))["playbook"] == winners[0]
        over.set()
        for each in processes:
            each.join(60)


def test_a_forked_worker_that_outlives_its_run_is_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    locking.await_leftovers(tmp_path, 0, said.append)
    assert not said
    held = locking.sign_of_life(tmp_path)
    assert held is not None
    context = multiprocessing.get_context("fork")
    over = context.Event()
    worker = context.Process(target=over.wait, args=(60,))
    worker.start()
    os.close(held)  # as when the run itself is killed
    with pytest.raises(LockError, match="still going on here after 0 s"):
        locking.await_leftovers(tmp_path, 0, said.append)
    assert len(said) == 1
    over.set()
    locking.await_leftovers(tmp_path, 60, said.append)
    worker.join(60)
