"""The order of a change: what must hold of every order, and how usual ones look."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.waves import (
    CANARY,
    PERCENT,
    START,
    STOP,
    Move,
    Pace,
    Waves,
    waves,
)
from hypothesis import given, settings
from hypothesis import strategies as st

PLACES = [("h", "gpu", str(number)) for number in range(6)]


def look(made: Waves) -> list[list[tuple[str, str, list[str], list[str]]]]:
    return [[(part.model, part.kind, part.replicas, part.stops) for part in step] for step in made.steps]


def replaces(model: str, count: int, **more: Any) -> list[Move]:
    return [Move("replace", f"{model}.{at}", model, serves=True, **more) for at in range(count)]


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Move], dict[str, Pace], dict[str, int]]:
    moves: list[Move] = []
    paces: dict[str, Pace] = {}
    ready: dict[str, int] = {}
    held = iter(draw(st.permutations(PLACES)))
    for model in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        serving = draw(st.integers(0, 3))  # kept as they are
        for at in range(draw(st.integers(0, 4))):
            action = draw(st.sampled_from(["start", "replace", "replace", "stop"]))
            serves = action != "start" and draw(st.sampled_from([True, True, False]))
            own = next(held, None) if serves else None
            needs = draw(st.sets(st.sampled_from(PLACES), max_size=1)) if action != "stop" else set()
            moves.append(
                Move(
                    action,
                    f"{model}.{at}",
                    model,
                    serves,
                    needs=frozenset(needs),
                    frees=frozenset({own} if own else ()),
                    joins=draw(st.sampled_from([True, True, False])),
                )
            )
            serving += serves
        if draw(st.booleans()):
            paces[model] = Pace(draw(st.integers(0, 3)), draw(st.integers(0, 2)), draw(st.integers(1, 3)))
        ready[model] = serving
    return moves, paces, ready


@given(fleets())
@settings(max_examples=400, deadline=None)
def test_what_holds_of_every_order(fleet: tuple[list[Move], dict[str, Pace], dict[str, int]]) -> None:
    moves, paces, ready = fleet
    made = waves(moves, paces, ready)
    by_id = {move.replica: move for move in moves}
    serving = Counter(ready)
    holders = {place: move.replica for move in moves for place in move.frees}
    seen: Counter[str] = Counter()
    stopped: set[str] = set()
    for step in made.steps:
        freed = []
        assert step
        for part in step:
            pace = paces.get(part.model, Pace())
            gone = [one for one in part.drain if one not in stopped]
            if gone:  # what is already below may stay so, but nothing more is taken away
                assert serving[part.model] - len(gone) >= pace.min_ready
            for replica in (*part.replicas, *part.stops):
                move = by_id[replica]
                assert move.model == part.model
                if replica in part.replicas:
                    for place in move.needs:
                        assert holders.get(place, replica) == replica, "somebody else still holds it"
                    seen[replica] += 1
                else:
                    seen[replica] += move.action == "stop"
                    assert move.action in ("stop", "replace")
                freed += [place for place in move.frees if holders.get(place) == replica]
                assert (replica in part.drain) is (move.serves and replica not in stopped)
            stopped.update(part.stops)
            begins = sum(
                1
                for one in part.replicas
                if by_id[one].joins
                and (by_id[one].action == "start" or not by_id[one].serves or one in stopped)
            )
            serving[part.model] += begins - len([one for one in part.stops if by_id[one].serves])
            if part.kind in (CANARY, PERCENT):
                assert len(part.replicas) <= (pace.canary if part.kind == CANARY else pace.step)
        for place in freed:
            del holders[place]
    for move in made.held:
        seen[move.replica] += 1
    assert seen == Counter(list(by_id))
    for model in paces:
        kinds = [part.kind for step in made.steps for part in step if part.model == model]
        if PERCENT in kinds and paces[model].canary:
            assert CANARY in kinds[: kinds.index(PERCENT)]
        assert kinds.count(CANARY) <= 1


def test_a_canary_then_percent_then_what_leaves() -> None:
    moves = [*replaces("m", 4), Move("start", "m.9", "m"), Move("stop", "m.7", "m", serves=True)]
    made = waves(moves, {"m": Pace(min_ready=2, canary=1, step=2)}, {"m": 5})
    assert look(made) == [
        [("m", START, ["m.9"], [])],
        [("m", CANARY, ["m.0"], [])],
        [("m", PERCENT, ["m.1", "m.2"], [])],
        [("m", PERCENT, ["m.3"], [])],
        [("m", STOP, [], ["m.7"])],
    ]
    assert [part.drain for step in made.steps for part in step] == [
        [],
        ["m.0"],
        ["m.1", "m.2"],
        ["m.3"],
        ["m.7"],
    ]


def test_models_share_steps() -> None:
    moves = [move for number in range(50) for move in replaces(f"m{number:02}", 2)]
    made = waves(moves, {f"m{number:02}": Pace(1, 1, 1) for number in range(50)}, dict.fromkeys((), 0))
    assert made.steps == ()
    assert len(made.held) == 100, "of nothing that serves nothing can be taken away"
    made = waves(
        moves,
        {f"m{number:02}": Pace(1, 1, 1) for number in range(50)},
        {f"m{number:02}": 2 for number in range(50)},
    )
    assert [len(step) for step in made.steps] == [50, 50]


def test_a_replica_that_is_down_does_not_count_and_needs_no_drain() -> None:
    moves = [Move("replace", "m.0", "m"), *replaces("m", 2)[1:]]
    made = waves(moves, {"m": Pace(min_ready=1)}, {"m": 1})
    assert look(made) == [[("m", START, ["m.0"], [])], [("m", PERCENT, ["m.1"], [])]]
    assert [part.drain for step in made.steps for part in step] == [[], ["m.1"]]


def test_min_ready_holds_what_it_would_undercut() -> None:
    made = waves(replaces("m", 1), {"m": Pace(min_ready=1, canary=1, step=1)}, {"m": 1})
    assert (made.steps, [move.replica for move in made.held]) == ((), ["m.0"])


def test_a_start_waits_for_the_stop_that_frees_its_gpu() -> None:
    moves = [
        Move("start", "new.0", "new", needs=frozenset(PLACES[:1])),
        Move("stop", "old.0", "old", serves=True, frees=frozenset(PLACES[:1])),
    ]
    made = waves(moves, {"new": Pace()}, {"old": 1})
    assert look(made) == [[("old", STOP, [], ["old.0"])], [("new", START, ["new.0"], [])]]


def test_two_that_change_places_are_told_apart() -> None:
    moves = [
        Move("replace", "a.0", "a", True, needs=frozenset(PLACES[:1]), frees=frozenset(PLACES[1:2])),
        Move("replace", "b.0", "b", True, needs=frozenset(PLACES[1:2]), frees=frozenset(PLACES[:1])),
    ]
    made = waves(moves, {"a": Pace(), "b": Pace()}, {"a": 1, "b": 1})
    assert look(made) == [
        [("a", STOP, [], ["a.0"])],
        [("b", PERCENT, ["b.0"], [])],
        [("a", START, ["a.0"], [])],
    ]


def test_one_that_moves_stops_once_its_heir_serves() -> None:
    moves = [
        Move("start", "m.2", "m", paced=True),
        Move("start", "m.3", "m", paced=True),
        Move("stop", "m.0", "m", True, heir="m.2"),
        Move("stop", "m.1", "m", True, heir="m.3"),
    ]
    made = waves(moves, {"m": Pace(min_ready=2, canary=1, step=1)}, {"m": 2})
    assert look(made) == [
        [("m", CANARY, ["m.2"], [])],
        [("m", PERCENT, ["m.3"], ["m.0"])],
        [("m", STOP, [], ["m.1"])],
    ]
