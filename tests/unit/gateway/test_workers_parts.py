from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog.loader import load_engines
from modelyard.errors import ModelyardError
from modelyard.gateway.health.rules import HealthRules
from modelyard.gateway.replicas import Confinement, HealthState, HealthView, LoadFigures
from modelyard.gateway.workers.channel import Channel, Framing, Message, framed
from modelyard.gateway.workers.merge import counts, merged, rendered
from modelyard.gateway.workers.peers import WorkerPeers
from modelyard.gateway.workers.table import CountTable, SharedPool
from modelyard.gateway.workers.told import ToldMonitor, truth_of
from modelyard.gateway.workers.worker import packed, unpacked
from modelyard.registry.load import load_text
from modelyard.registry.model import Registry
from modelyard.settings import Settings


def registry(*names: str) -> Registry:
    endpoints = ", ".join(f'{{id: {name}, url: "http://{name}:1", engine: vllm}}' for name in names)
    return load_text(f"version: 1\ngeneration: 1\nmodels: {{m: {{endpoints: [{endpoints}]}}}}", "test")


class Workers:
    """Two pools that share a table, and the supervisor's."""

    def __init__(self) -> None:
        self.table, fd = CountTable.make(2)
        os.close(fd)
        self.first, self.second, self.watching = (
            SharedPool(load_engines(), self.table, mine) for mine in (0, 1, None)
        )
        self.apply("a", "b")

    def apply(self, *names: str) -> None:
        for pool in (self.first, self.second, self.watching):
            pool.apply(registry(*names))

    def seen(self) -> list[dict[str, int]]:
        return [
            {replica.id: replica.in_flight for replica in pool.everyone()}
            for pool in (self.first, self.second, self.watching)
        ]


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.table.close()


def test_everybody_sees_what_all_have(workers: Workers) -> None:
    mine, other = workers.first.get("a"), workers.second.get("a")
    assert mine is not None
    assert other is not None
    leases = [workers.first.lease(mine), workers.first.lease(mine), workers.second.lease(other)]
    assert workers.seen() == [{"a": 3, "b": 0}] * 3
    assert workers.first.of_model("m")[0].in_flight == 3
    leases[0].release()
    leases[0].release()
    assert workers.seen() == [{"a": 2, "b": 0}] * 3
    for lease in leases:
        lease.release()
    assert workers.seen() == [{"a": 0, "b": 0}] * 3


def test_others_are_followed_without_being_asked(workers: Workers) -> None:
    mine, other = workers.first.get("a"), workers.second.get("a")
    assert mine is not None
    assert other is not None
    held = [workers.first.lease(mine), workers.second.lease(other)]
    workers.first.follow_others()
    assert mine.in_flight == 2
    held[0].release()
    workers.first.follow_others()
    assert mine.in_flight == 1
    workers.table.clear(1)
    workers.first.follow_others()
    assert mine.in_flight == 0


def test_a_request_that_leaves_elsewhere_wakes_who_waits_whoever_looked_before(workers: Workers) -> None:
    freed: list[str] = []
    workers.first.when_freed(lambda replica: freed.append(replica.id))
    other = workers.second.get("a")
    assert other is not None
    lease = workers.second.lease(other)
    workers.first.follow_others()
    lease.release()
    # a request, a scrape or an operator looks just then
    assert workers.first.of_model("m")[0].in_flight == 0
    workers.first.follow_others()
    workers.first.follow_others()
    assert freed == ["a"]


def test_a_limit_is_kept_by_all_together(workers: Workers) -> None:
    mine, other = workers.first.get("a"), workers.second.get("a")
    assert mine is not None
    assert other is not None
    workers.second.lease(other)
    assert mine.in_flight == 0
    assert workers.first.count(mine) == 1


def test_a_suspect_has_its_replica_to_itself_among_those_of_all_workers(workers: Workers) -> None:
    mine, other = workers.first.get("b"), workers.second.get("b")
    assert mine is not None
    assert other is not None
    workers.second.confine(other, Confinement(object(), 12.5))
    assert (workers.first.confined_elsewhere(mine), workers.second.confined_elsewhere(other)) == (12.5, 0.0)
    workers.apply("z", "a", "b")
    assert workers.first.confined_elsewhere(mine) == 12.5
    workers.second.confine(other, None)
    assert workers.first.confined_elsewhere(mine) == 0.0
    workers.second.confine(other, Confinement(object(), 12.5))
    workers.table.clear(1)
    assert workers.first.confined_elsewhere(mine) == 0.0


def test_what_a_dead_worker_had_is_gone(workers: Workers) -> None:
    for pool in (workers.first, workers.second):
        replica = pool.get("b")
        assert replica is not None
        pool.lease(replica)
    workers.table.clear(0)
    assert workers.seen()[1:] == [{"a": 0, "b": 1}] * 2


def test_counts_move_with_their_replicas(workers: Workers) -> None:
    mine = workers.first.get("b")
    assert mine is not None
    lease = workers.first.lease(mine)
    workers.apply("c", "a", "b")
    assert workers.seen() == [{"c": 0, "a": 0, "b": 1}] * 3
    lease.release()
    assert workers.seen() == [{"c": 0, "a": 0, "b": 0}] * 3


def test_until_all_follow_a_registry_each_counts_its_own(workers: Workers) -> None:
    for pool in (workers.first, workers.second):
        replica = pool.get("a")
        assert replica is not None
        pool.lease(replica)
    workers.first.apply(registry("z", "a", "b"))
    first, second, _ = workers.seen()
    assert (first["a"], second["a"]) == (1, 1)
    workers.apply("z", "a", "b")
    assert [seen["a"] for seen in workers.seen()] == [2, 2, 2]


def test_a_replica_that_left_is_kept_by_its_own_requests_only(workers: Workers) -> None:
    mine, other = workers.first.get("b"), workers.second.get("b")
    assert mine is not None
    assert other is not None
    lease = workers.first.lease(mine)
    workers.second.lease(other)
    assert workers.seen()[0]["b"] == 2
    workers.first.apply(registry("a"))
    assert [(replica.id, replica.in_flight) for replica in workers.first.everyone()] == [("a", 0), ("b", 1)]
    lease.release()
    assert [replica.id for replica in workers.first.everyone()] == ["a"]


def test_the_supervisor_gathers_signs_of_life(workers: Workers) -> None:
    for pool, heard in ((workers.first, 5), (workers.second, 7)):
        replica = pool.get("a")
        assert replica is not None
        replica.heard = heard
        pool.lease(replica)
        pool.publish()
    workers.watching.gather()
    watched = workers.watching.get("a")
    assert watched is not None
    assert (watched.heard, watched.owed, watched.in_flight) == (12, 2, 2)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(0, 99)), max_size=5), st.data())
def test_messages_survive_any_cut(messages: list[dict[str, int]], data: st.DataObject) -> None:
    raw = b"".join(framed(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    framing = Framing()
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert [message for piece in pieces for message in framing.feed(piece)] == messages


def test_health_goes_over_the_wire_in_plain_words() -> None:
    (message,) = Framing().feed(framed({"view": HealthView(HealthState.READY)}))
    assert message["view"]["state"] == "ready"


def test_a_message_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(Framing().feed(b"\xff\xff\xff\xff"))


def test_settings_arrive_as_they_were() -> None:
    settings = Settings(registry=Path("/x/y"), allowed_origins=("https://a",), workers=3, access_log=True)
    (message,) = Framing().feed(framed(packed(settings)))
    assert unpacked(message) == settings


def family(name: str, kind: str, *samples: tuple[str, dict[str, str], float]) -> list[object]:
    return [name, kind, "help", [list(sample) for sample in samples]]


def test_counts_are_added_and_gauges_follow_their_rule() -> None:
    parts = [
        [
            family("x", "counter", ("x_total", {"a": "1"}, 2)),
            family("h", "histogram", ("h_bucket", {"le": "1"}, count), ("h_sum", {}, 0.5)),
            family(
                "modelyard_registry_generation", "gauge", ("modelyard_registry_generation", {}, generation)
            ),
            family("modelyard_requests_running", "gauge", ("modelyard_requests_running", {"model": "m"}, 3)),
            family("told", "gauge", ("told", {}, 9)),
        ]
        for count, generation in ((1, 5), (4, 6))
    ]
    text = rendered(merged(parts, [family("told", "gauge", ("told", {}, 1))])).decode()
    for line in (
        'x_total{a="1"} 4.0',
        'h_bucket{le="1"} 5.0',
        "h_sum 1.0",
        "modelyard_registry_generation 5.0",
        'modelyard_requests_running{model="m"} 6.0',
        "told 1.0",
    ):
        assert line in text.splitlines()
    assert [part[0] for part in counts(parts[0])] == ["x", "h"]
    # nothing that was given has changed
    assert parts[0][0][3] == [["x_total", {"a": "1"}, 2]]


class Wire:
    """A channel whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_questions_and_answers_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    peers = WorkerPeers(cast(Channel, wire))
    peers.answer_with("requests", lambda: [{"id": "x"}])
    first = asyncio.create_task(peers.metrics())
    second = asyncio.create_task(peers.requests())
    await asyncio.sleep(0)
    assert [(sent["what"], sent["number"]) for sent in wire.sent] == [("metrics", 1), ("requests", 2)]
    assert peers.take({"kind": "answer", "number": 2, "data": []})
    assert peers.take({"kind": "answer", "number": 1, "data": "text"})
    assert (await first, await second) == (b"text", [])
    # an answer that comes too late is nobody's
    assert peers.take({"kind": "answer", "number": 1, "data": "late"})
    assert peers.take({"kind": "ask", "what": "requests", "number": 9})
    assert wire.sent[-1] == {"kind": "answer", "number": 9, "data": [{"id": "x"}]}
    monkeypatch.setattr("modelyard.gateway.workers.peers._PATIENCE_S", 0.01)
    with pytest.raises(ModelyardError) as caught:
        await peers.metrics()
    assert (caught.value.status, caught.value.code) == (503, "workers_silent")


def test_what_one_worker_tells_the_others_hear() -> None:
    wire = Wire()
    peers = WorkerPeers(cast(Channel, wire))
    heard: list[object] = []
    peers.listen("homes", heard.append)
    peers.tell("homes", ["resp_1", "a"])
    assert wire.sent == [{"kind": "tell", "topic": "homes", "fact": ["resp_1", "a"]}]
    assert peers.take(wire.sent[0])
    assert peers.take({"kind": "tell", "topic": "unknown", "fact": 1})
    assert heard == [["resp_1", "a"]]
    assert not peers.take({"kind": "truth", "views": {}})


async def test_a_worker_believes_what_it_is_told(workers: Workers) -> None:
    wire = Wire()
    monitor = ToldMonitor(
        workers.first, cast(Any, None), HealthRules(), clock=lambda: 100.0, rng=random.Random(1)
    )
    changes: list[str] = []
    monitor.listen(lambda replica, before, after: changes.append(f"{before.state.value} {after.state.value}"))
    monitor.join(cast(Channel, wire))
    looked_at = workers.watching.get("a")
    mine = workers.first.get("a")
    assert looked_at is not None
    assert mine is not None
    looked_at.health = HealthView(HealthState.READY, probed_at=99.0)
    looked_at.load = LoadFigures(1.0, 2.0, 0.5, at=99.0)
    (message,) = Framing().feed(framed({"views": {"a": truth_of(looked_at), "gone": truth_of(looked_at)}}))
    monitor.hear(message["views"])
    assert (mine.health, mine.load) == (looked_at.health, looked_at.load)
    assert changes == ["unknown ready"]
    # one that the registry brings later was spoken of before
    workers.first.apply(registry("a", "gone"))
    monitor.follow()
    later = workers.first.get("gone")
    assert later is not None
    assert later.health.state is HealthState.READY

    future = monitor.look_now(mine)
    assert not future.done()
    monitor.looked(wire.sent[-1]["number"])
    assert (await future) is mine.health
    monitor.mark_unreachable(mine, "refused")
    monitor.set_drained([mine], True)
    assert [sent["kind"] for sent in wire.sent] == ["look", "unreachable", "drain"]
    assert mine.drained
