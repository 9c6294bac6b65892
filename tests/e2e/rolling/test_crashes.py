"""A controller that dies at any moment of a change: the next run always finds its way.

MODELYARD_KILLS is how many times it dies (2), MODELYARD_SEED chooses the moments.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import pytest

from tests.e2e.rolling.aside import Aside
from tests.e2e.rolling.conftest import MODEL
from tests.e2e.rolling.stages import Containers, Processes, Stage
from tests.e2e.site import Begun, Site
from tests.integration.test_local_fleet import local_fleet

KILLS = int(os.environ.get("MODELYARD_KILLS", "2"))
SEED = int(os.environ.get("MODELYARD_SEED", "4"))
FIRST_TASKS = 40
"""A change has more tasks than this; how many, is known from the second kill on."""
_TASK = "\nTASK ["

pytestmark = pytest.mark.timeout(600 + 120 * KILLS)


class Guard(Aside):
    """Looks again and again, while a run goes on, whether anything runs twice; what it saw stands in `doubled`."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.doubled: list[list[str]] = []
        self._stage = stage

    def work(self) -> None:
        """Look."""
        while not self.over.wait(0.5):
            twice = doubled(self._stage)
            if twice:
                self.doubled.append(twice)


def test_a_killed_change_of_containers_converges_with_the_next_run(site: Site) -> None:
    pace = site.models[MODEL]["rollout"]
    try:
        die_and_go_on(Containers(site), KILLS // 2, random.Random(SEED))
    finally:
        # the other tests of the room have the usual pace; it is no part of what runs, so nothing moves for it
        site.wish({MODEL: {**site.models[MODEL], "rollout": pace}})


def test_a_killed_change_of_processes_converges_with_the_next_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # a short name: the supervisor's socket is below it
    with local_fleet(tmp_path_factory.mktemp("f")) as fleet:
        stage = Processes(fleet)
        run = stage.begin("site").wait(240)
        assert run.status == 0, str(run)
        die_and_go_on(stage, KILLS - KILLS // 2, random.Random(SEED))


def die_and_go_on(stage: Stage, kills: int, moments: random.Random) -> None:
    """Change the wish and kill the run that carries it out, then let another one go on; `kills` times."""
    died: list[str] = []
    tasks = FIRST_TASKS
    for number in range(1, kills + 1):
        stage.change()
        # not the first quarter, in which a run only looks
        died.append(die(stage.begin("deploy"), moments.randint(tasks // 4, tasks), moments.uniform(0, 0.5)))
        told = f"kill {number} of {kills}: {died[-1]}"
        with Guard(stage) as guard:
            again = stage.begin("deploy").wait(300)
        assert again.status == 0, f"{told}\n{again}"
        assert guard.doubled == [], told
        assert doubled(stage) == [], told
        assert len(stage.running()) == stage.size, told
        assert stage.lacks() == [], told
        assert stage.actions() == {"keep"}, told
        tasks = max(tasks, again.output.count(_TASK))
    print(f"{stage.name}: " + "; ".join(died))
    assert len(set(died)) > 1 or kills < 2, f"always at the same moment: {died[0]}"


def die(run: Begun, task: int, delay_s: float) -> str:
    """Kill a run so many seconds after so many tasks have begun; the last task and what came of it, in words."""
    end = time.monotonic() + 300
    while run.process.poll() is None and run.output().count(_TASK) < task:
        assert time.monotonic() < end, run.output()[-4000:]
        time.sleep(0.02)
    time.sleep(delay_s)
    ended = run.process.poll() is not None
    run.kill()
    said = run.output()
    last = said.rpartition(_TASK)[2].partition("]")[0]
    return f"{'ended before, after' if ended else 'in'} task {said.count(_TASK)} ({last}) + {delay_s:.2f} s"


def doubled(stage: Stage) -> list[str]:
    """Replicas, and ports, that there are twice now."""
    running = stage.running()
    counts = Counter([replica for replica, _ in running]) + Counter([port for _, port in running])
    return [name for name, number in counts.items() if number > 1]
