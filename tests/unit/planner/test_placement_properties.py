"""What must hold of every placement, whatever the wish and whatever runs."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.placement import place
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    ABSENT,
    DOWN,
    UNKNOWN,
    UP,
    Current,
    Gpu,
    Host,
    Model,
    Need,
    Pin,
    Placement,
    replica_id,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PROFILE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = ("h0", "h1", "h2", "h3")
Fleet = tuple[list[Model], list[Host], list[Current]]


@st.composite
def hosts_of(draw: st.DrawFn) -> list[Host]:
    hosts = []
    for name in NAMES[: draw(st.integers(1, 4))]:
        gpus = tuple(str(at) for at in range(draw(st.integers(0, 8))))
        blocked = draw(st.sets(st.sampled_from(gpus), max_size=2)) if gpus else set()
        unwell = draw(st.sets(st.sampled_from(gpus), max_size=2)) if gpus else set()
        memory = st.sampled_from([None, 40, 80, 80])
        sets = st.tuples(st.integers(0, 2), st.frozensets(st.sampled_from(gpus or ("",)), min_size=1))
        hosts.append(
            Host(
                name,
                state=draw(st.sampled_from([UP, UP, UP, UNKNOWN])),
                runtime=draw(st.sampled_from(["docker", "docker", "process"])),
                gpus=gpus,
                first_port=8100,
                last_port=8100 + draw(st.integers(0, 9)),
                blocked_gpus=dict.fromkeys(blocked, "other"),
                unwell_gpus=dict.fromkeys(unwell, "its health is down: hot"),
                devices={
                    gpu: Gpu(at, health=DOWN if gpu in unwell else UP, memory=draw(memory))
                    for at, gpu in enumerate(gpus)
                },
                gpu_groups=tuple(draw(st.lists(sets, max_size=3))) if gpus else (),
                listening=frozenset(draw(st.sets(st.integers(8100, 8104), max_size=2))),
            )
        )
    return hosts


@st.composite
def models_of(draw: st.DrawFn, hosts: list[Host]) -> list[Model]:
    names = [host.name for host in hosts]
    return [
        Model(
            id=f"m{at}",
            name=f"m{at}",
            task="generate",
            engine="vllm",
            hosts=tuple(draw(st.lists(st.sampled_from(names), unique=True))),
            pattern="some",
            replicas=draw(st.integers(0, 5)),
            gpus=draw(st.sampled_from([0, 1, 1, 2, 4])),
            runtime=draw(st.sampled_from([None, None, "docker"])),
            need=Need(
                draw(st.sampled_from([None, None, 60, 100])),
                "the estimate",
                draw(st.sampled_from([None, 40])),
            ),
        )
        for at in range(draw(st.integers(0, 5)))
    ]


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """A wish, hosts, and replicas that could really be there: no GPU and no port is held twice."""
    hosts = draw(hosts_of())
    models = draw(models_of(hosts))
    current: list[Current] = []
    for host in hosts:
        free, ports = list(host.gpus), list(range(host.first_port, host.last_port + 3))
        for at in range(draw(st.integers(0, 5))):
            count = min(draw(st.sampled_from([0, 1, 2])), len(free))
            if not ports:
                break
            states = [UNKNOWN] if host.state == UNKNOWN else [UP, UP, UP, DOWN, ABSENT, UNKNOWN]
            model = draw(st.sampled_from(["m0", "m1", "m2", "gone"]))
            current.append(
                Current(
                    replica=replica_id(host.name, model, at),
                    model=model,
                    host=host.name,
                    index=at,
                    state=draw(st.sampled_from(states)),
                    gpus=tuple(free.pop(0) for _ in range(count)),
                    port=ports.pop(draw(st.integers(0, len(ports) - 1))),
                    runtime=draw(st.sampled_from([host.runtime, "docker"])),
                )
            )
    return models, hosts, current


def run(fleet: Fleet) -> Placement:
    return place(*fleet)


def applied(fleet: Fleet, placement: Placement) -> list[Current]:
    """What would be observed after the placement has been carried out."""
    states = {item.replica: item.state for item in fleet[2] if item.state == UNKNOWN}
    return [
        Current(
            slot.replica,
            slot.model,
            slot.host,
            slot.index,
            states.get(slot.replica, UP),
            slot.gpus,
            slot.port,
            slot.runtime,
        )
        for slot in placement.slots
    ]


def serving(hosts: list[Host], placement: Placement) -> list[Host]:
    """The hosts once that is done: what has been started listens, and what was stopped no longer does."""
    held = {(slot.host, slot.port) for slot in placement.slots}
    return [
        replace(host, listening=host.listening | {port for name, port in held if name == host.name})
        for host in hosts
    ]


@PROFILE
@given(fleets())
def test_no_gpu_and_no_port_is_given_twice(fleet: Fleet) -> None:
    placement = run(fleet)
    gpus = Counter((slot.host, gpu) for slot in placement.slots for gpu in slot.gpus)
    ports = Counter((slot.host, slot.port) for slot in placement.slots)
    ids = Counter(slot.replica for slot in placement.slots)
    assert not [key for table in (gpus, ports, ids) for key, times in table.items() if times > 1]


@PROFILE
@given(fleets())
def test_what_is_given_exists_and_is_free(fleet: Fleet) -> None:
    hosts = {host.name: host for host in fleet[1]}
    models = {model.id: model for model in fleet[0]}
    for slot in run(fleet).slots:
        if slot.was is not None and slot.was.state in (UP, UNKNOWN):
            continue
        host, model = hosts[slot.host], models[slot.model]
        assert host.state == UP
        assert slot.host in model.hosts
        assert len(slot.gpus) == model.gpus
        assert set(slot.gpus) <= set(host.gpus) - set(host.blocked_gpus) - set(host.unwell_gpus)
        assert all(model.need.met_by(host.memory_of(gpu)) for gpu in slot.gpus)
        assert host.first_port <= slot.port <= host.last_port
        assert slot.port not in host.listening


@PROFILE
@given(fleets())
def test_second_places_take_nothing_from_anybody(fleet: Fleet) -> None:
    plain = run(fleet)
    placement = place(*fleet, surges=lambda _model, _slot: True)
    leaving = [item for item in placement.dropped if item.replica in placement.heirs]
    heirs = set(placement.heirs.values())
    ids = Counter([*(slot.replica for slot in placement.slots), *(item.replica for item in leaving)])
    assert max(ids.values(), default=1) == 1
    # what somebody has now, or is to have, whether or not it is given up on the way
    running = [item for item in fleet[2] if item.state in (UP, UNKNOWN)]
    others = [slot for slot in placement.slots if slot.replica not in heirs]
    taken = {(one.host, gpu) for one in (*running, *others) for gpu in one.gpus}
    taken |= {(one.host, one.port) for one in (*running, *others)}
    mine = [
        (slot.host, what)
        for slot in placement.slots
        if slot.replica in heirs
        for what in (*slot.gpus, slot.port)
    ]
    assert taken.isdisjoint(mine)
    assert len(mine) == len(set(mine))
    assert len(placement.slots) == len(plain.slots)
    assert placement.problems == plain.problems
    assert all(item.state == UP for item in leaving)


@PROFILE
@given(fleets())
def test_unknown_is_never_stopped_or_moved(fleet: Fleet) -> None:
    placement = run(fleet)
    by_id = {slot.replica: slot for slot in placement.slots}
    for item in fleet[2]:
        if item.state == UNKNOWN:
            slot = by_id[item.replica]
            assert (slot.host, slot.gpus, slot.port) == (item.host, item.gpus, item.port)
            assert item not in placement.dropped


@PROFILE
@given(fleets())
def test_replanning_an_unchanged_wish_moves_nothing(fleet: Fleet) -> None:
    models, hosts, _ = fleet
    first = run(fleet)
    second = place(models, serving(hosts, first), applied(fleet, first))
    assert [(s.replica, s.gpus, s.port) for s in second.slots] == [
        (s.replica, s.gpus, s.port) for s in first.slots
    ]
    assert second.dropped == ()


@PROFILE
@given(fleets(), st.integers(0, 2**32))
def test_the_order_of_the_input_does_not_matter(fleet: Fleet, seed: int) -> None:
    models, hosts, current = list(fleet[0]), list(fleet[1]), list(fleet[2])
    rng = random.Random(seed)
    for part in (models, hosts, current):
        rng.shuffle(part)
    mixed = [replace(model, hosts=tuple(reversed(model.hosts))) for model in models]
    assert place(mixed, hosts, current) == run(fleet)


@PROFILE
@given(fleets(), st.data())
def test_scaling_touches_only_what_it_must(fleet: Fleet, data: st.DataObject) -> None:
    models, hosts, _ = fleet
    if not models:
        return
    now = applied(fleet, run(fleet))
    before = place(models, hosts, now)
    at = data.draw(st.integers(0, len(models) - 1))
    changed = replace(models[at], replicas=data.draw(st.integers(0, 6)))
    scaled = place([*models[:at], changed, *models[at + 1 :]], hosts, now)
    had = {slot.replica: slot for slot in before.slots if slot.was is not None}
    has = {slot.replica: slot for slot in scaled.slots}
    for replica, slot in had.items():
        if replica in has:
            assert (has[replica].gpus, has[replica].port) == (slot.gpus, slot.port)
        else:
            assert slot.model == changed.id
    lost = [slot for slot in had.values() if slot.replica not in has]
    assert not lost or changed.replicas < models[at].replicas


@PROFILE
@given(fleets(), st.data())
def test_removing_a_model_removes_only_its_own(fleet: Fleet, data: st.DataObject) -> None:
    models, hosts, _ = fleet
    if not models:
        return
    now = applied(fleet, run(fleet))
    settled = place(models, hosts, now)
    gone = data.draw(st.sampled_from(models))
    result = place([model for model in models if model != gone], hosts, now)
    assert {item.model for item in result.dropped} - {item.model for item in settled.dropped} <= {gone.id}
    left = {slot.replica for slot in result.slots}
    assert {slot.replica for slot in settled.slots if slot.was and slot.model != gone.id} <= left


@PROFILE
@given(fleets())
def test_a_wish_that_fits_nowhere_is_told_with_numbers(fleet: Fleet) -> None:
    placement = run(fleet)
    placed = Counter(slot.model for slot in placement.slots if slot.wished)
    for model in fleet[0]:
        told = [text for text in placement.problems if text.startswith(f"model {model.id}: ")]
        assert placed[model.id] <= model.replicas
        if placed[model.id] < model.replicas:
            assert len(told) == 1
            assert f"{placed[model.id]} of {model.replicas} replicas placed" in told[0]
        else:
            assert told == []


@PROFILE
@given(fleets())
def test_everything_that_exists_is_accounted_for(fleet: Fleet) -> None:
    placement = run(fleet)
    held = {slot.was.replica for slot in placement.slots if slot.was is not None}
    stopped = {item.replica for item in placement.dropped}
    there = {item.replica for item in fleet[2] if item.state != ABSENT}
    assert held | stopped == there
    assert not held & stopped


@st.composite
def pinned_fleets(draw: st.DrawFn) -> Fleet:
    """The same with places that are named, possible ones and others."""
    models, hosts, current = draw(fleets())
    places = st.builds(
        Pin,
        st.sampled_from([host.name for host in hosts]),
        st.lists(st.sampled_from("01234567"), unique=True, min_size=1, max_size=2).map(tuple),
    )
    return (
        [replace(model, pins=tuple(draw(st.lists(places, max_size=2)))) for model in models],
        hosts,
        current,
    )


@PROFILE
@given(pinned_fleets())
def test_pins_are_met_or_told_and_give_nothing_twice(fleet: Fleet) -> None:
    hosts = {host.name: host for host in fleet[1]}
    placement = run(fleet)
    held = Counter((slot.host, gpu) for slot in placement.slots for gpu in slot.gpus)
    assert not [key for key, times in held.items() if times > 1]
    ids = Counter(slot.replica for slot in placement.slots)
    assert max(ids.values(), default=1) == 1
    for model in fleet[0]:
        pins = model.pins[: model.replicas]
        met = [
            pin
            for pin in pins
            if any(
                slot.model == model.id and slot.host == pin.host and sorted(slot.gpus) == sorted(pin.gpus)
                for slot in placement.slots
            )
        ]
        told = [text for text in placement.problems if text.startswith(f"model {model.id}: its pin to")]
        assert len(met) + len(told) >= len(pins)
        assert sum(slot.model == model.id and slot.wished for slot in placement.slots) <= model.replicas
    for slot in placement.slots:
        if slot.was is None or slot.was.state in (DOWN, ABSENT) or slot.was.gpus != slot.gpus:
            assert set(slot.gpus).isdisjoint(hosts[slot.host].blocked_gpus)


@PROFILE
@given(pinned_fleets())
def test_replanning_with_pins_moves_nothing(fleet: Fleet) -> None:
    models, hosts, _ = fleet
    first = run(fleet)
    second = place(models, serving(hosts, first), applied(fleet, first))
    # of what is unknown and stays another one may count as the wished
    places = [[(s.replica, s.gpus, s.port) for s in one.slots] for one in (first, second)]
    assert places[0] == places[1]


def test_a_replica_that_moves_never_takes_the_id_of_one_that_is_there() -> None:
    model = Model(
        id="m", name="m", task="generate", engine="vllm", hosts=("a", "b"), pattern="all", replicas=2, gpus=0
    )
    # the port of a's replica is no longer its to use, and a has no other: it must go to b, where index 0 is taken
    hosts = [Host("a", first_port=8100, last_port=8100), Host("b", first_port=8100, last_port=8105)]
    current = [
        Current(replica_id("a", "m", 0), "m", "a", 0, UP, (), 8101, "docker"),
        Current(replica_id("b", "m", 0), "m", "b", 0, UP, (), 8100, "docker"),
        Current(replica_id("a", "x", 0), "x", "a", 0, UNKNOWN, (), 8100, "docker"),
    ]
    placement = place([model], hosts, current)
    assert [slot.replica for slot in placement.slots if slot.model == "m"] == ["b.m.0", "b.m.1"]
