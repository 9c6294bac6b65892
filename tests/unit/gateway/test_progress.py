from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.gateway.health.progress import Progress, Sample, next_progress

AFTER_S = 120.0


def sample(
    counter: float = 7.0,
    *,
    running: float | None = 1.0,
    waiting: float | None = 0.0,
    owed: int = 0,
    heard: int = 0,
) -> Sample:
    return Sample(counter, running, waiting, owed, heard)


def walk(*samples: Sample, step_s: float = 60.0, start: float = 1000.0) -> list[bool]:
    progress: Progress | None = None
    hung = []
    for number, one in enumerate(samples):
        progress = next_progress(progress, one, AFTER_S, start + number * step_s)
        hung.append(progress.hung_since is not None)
    return hung


def test_work_without_progress_is_hung_after_a_while() -> None:
    assert walk(*[sample()] * 5) == [False, False, False, True, True]


def test_requests_of_ours_that_wait_for_an_answer_count_as_work() -> None:
    assert walk(*[sample(running=0, owed=1)] * 4)[-1]
    assert walk(*[sample(running=None, waiting=None, owed=1)] * 4)[-1]
    assert walk(*[sample(running=0, waiting=3)] * 4)[-1]


def test_an_idle_engine_stands_still_in_peace_and_work_starts_the_clock() -> None:
    idle = sample(running=0)
    assert walk(*[idle] * 50, *[sample()] * 3)[-1] is False
    assert walk(*[idle] * 50, *[sample()] * 4)[-1] is True


def test_an_engine_that_says_nothing_of_its_requests_is_idle_without_ours() -> None:
    assert not any(walk(*[sample(running=None, waiting=None)] * 20))


def test_any_movement_clears_it_a_restart_too() -> None:
    stuck = [sample()] * 4
    assert walk(*stuck, sample(8.0))[-2:] == [True, False]
    assert walk(*stuck, sample(0.0))[-2:] == [True, False]
    assert walk(*stuck, sample(heard=1))[-2:] == [True, False]


def test_a_hung_engine_that_lost_its_work_is_tried_again_after_a_while() -> None:
    stuck, idle = [sample()] * 4, sample(running=0)
    assert walk(*stuck, idle, idle, idle)[3:] == [True, True, True, False]
    assert walk(*stuck, idle, sample(), idle, idle)[3:] == [True] * 5


def test_a_leap_of_the_clock_convicts_nobody() -> None:
    assert walk(*[sample()] * 3, step_s=1e6) == [False, False, False]


samples = st.builds(
    Sample,
    counter=st.integers(0, 3).map(float),
    running=st.none() | st.integers(0, 2).map(float),
    waiting=st.none() | st.integers(0, 1).map(float),
    owed=st.integers(0, 1),
    heard=st.integers(0, 2),
)


@given(st.lists(st.tuples(samples, st.floats(0, 200)), max_size=60))
def test_hung_only_after_unbroken_work_and_stillness(steps: list[tuple[Sample, float]]) -> None:
    progress: Progress | None = None
    now, still_from, last = 0.0, 0.0, None
    for one, pause in steps:
        now += pause
        was = progress is not None and progress.hung_since is not None
        moved = last is None or (one.counter, one.heard) != (last.counter, last.heard)
        if moved or (not was and last is not None and not (one.works and last.works)):
            still_from = now
        progress = next_progress(progress, one, AFTER_S, now)
        if moved:
            assert progress.hung_since is None
        if progress.hung_since is not None and not was:
            assert one.works
            assert now - still_from >= AFTER_S
        last = one


@given(st.lists(samples, min_size=1, max_size=60))
def test_whoever_moves_each_time_is_never_hung(steps: list[Sample]) -> None:
    moving = [
        Sample(float(number), one.running, one.waiting, one.owed, one.heard)
        for number, one in enumerate(steps)
    ]
    assert not any(walk(*moving, step_s=1e4))
