"""The module ``replicas`` against a real container engine: what it starts, notices, keeps, puts back and survives."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts import rootfs
from tests.parts.building import PARTS, ensure, say_on_stderr
from tests.parts.docker import docker
from tests.tools.ports import free_ports
from tests.tools.run_module import SECRET, foreseen_and_done, kill_replicas, run_replicas, told

# deaf to the first signal for a moment, like an engine that ends its answers first
ENGINE = "trap 'sleep 0.3; exit 0' TERM; while :; do sleep 0.05; done"

Result = dict[str, Any]


class Site:
    """One fleet of its own on this machine's engine."""

    def __init__(self, home: Path) -> None:
        self.fleet = f"replicas-{random.randrange(16**8):08x}"
        self.home = home
        self.ports = free_ports(3)

    def assignment(self, index: int = 0, **spec: Any) -> dict[str, Any]:
        full = {
            "image": rootfs.BASE.tag, "command": ["sh", "-c", ENGINE], "env": {"TOKEN": SECRET},
            "user": "1000:1000", "gpus": [f"test-{index}"], "gpu_mode": "cdi", "accelerator": "cpu", "shm_mib": 64,
            "ipc": "private", "read_only": True, "tmpfs": ["/tmp:size=16m"], "ulimits": {"nofile": 1024}, "cpus": 1,
            "memory": "64m", "health_command": ["true"], "start_period_s": 5, "stop_timeout_s": 3,
            "mounts": [{"source": str(self.home / "cache"), "target": "/cache", "read_only": False}],
            "publish": {"address": "127.0.0.1", "port": self.ports[index], "container_port": 8000},
            "log": {"max_size": "1m", "max_files": 2}, **spec,
        }  # fmt: skip
        wish = json.dumps(full, sort_keys=True)
        return {
            "replica": f"h.m.{index}",
            "model": "m",
            "engine": "vllm",
            "runtime": "docker",
            "hash": wish,
            "spec": full,
        }

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"fleet": self.fleet, "home": str(self.home), **params}

    def run(self, **params: Any) -> Result:
        return run_replicas(self.params(params))

    def containers(self) -> dict[str, Any]:
        """Everything of this fleet by name, without the fleet's prefix."""
        ids = docker("ps", "-aq", "--filter", f"label=modelyard.fleet={self.fleet}").split()
        found = json.loads(docker("inspect", *ids)) if ids else []
        return {item["Name"].removeprefix(f"/{self.fleet}-"): item for item in found}

    def identities(self) -> dict[str, str]:
        return {name: item["Id"] for name, item in self.containers().items()}

    def states(self) -> dict[str, str]:
        return {name: item["State"]["Status"] for name, item in self.containers().items()}

    def env(self, name: str = "h.m.0") -> str:
        return str(self.containers()[name]["Config"]["Env"])

    def clean(self) -> None:
        ids = docker("ps", "-aq", "--filter", f"name={self.fleet}").split()
        if ids:
            docker("rm", "--force", "--volumes", *ids)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if not PARTS["base"].is_built():  # does not wait for somebody who builds other parts
        ensure(["base"], say_on_stderr)
    one = Site(tmp_path)
    try:
        yield one
    finally:
        one.clean()


def both_ways(site: Site, **params: Any) -> Result:
    """In check mode, which touches nothing, then in earnest."""
    before = site.identities()

    def untouched() -> None:
        assert site.identities() == before

    return foreseen_and_done(site.params(params), untouched)


def both_refused(site: Site, **params: Any) -> Result:
    happened = both_ways(site, **params)
    assert happened["failed"]
    assert not happened.get("changed")
    return happened


def test_replicas_start_once_and_stop_with_all_that_is_theirs(site: Site) -> None:
    wish = [site.assignment(index) for index in range(3)]
    started = both_ways(site, replicas=wish)
    assert told(started, "replica", "reason") == [("start", f"h.m.{i}", "is not there yet") for i in range(3)]
    assert site.states() == {f"h.m.{i}": "running" for i in range(3)}
    assert (site.home / "cache").stat().st_uid == 1000
    again = both_ways(site, replicas=wish)
    assert told(again, "reason", "differences") == [("keep", "runs as wished", [])] * 3
    assert again["changed"] is False
    stops = [{"replica": f"h.m.{i}", "runtime": "docker"} for i in (0, 1, 7)]
    stopped = both_ways(site, replicas=wish[2:], stops=stops)
    assert told(stopped) == [("stop",), ("stop",), ("keep",), ("keep",)]
    assert site.states() == {"h.m.2": "running"}


def test_what_was_changed_by_hand_or_is_no_longer_wished_is_mended(site: Site) -> None:
    wish = site.assignment()
    site.run(replicas=[wish])
    docker("update", "--memory", "32m", "--restart", "always", f"{site.fleet}-h.m.0")
    (mended,) = told(both_ways(site, replicas=[wish]), "reason", "differences")
    assert mended[:2] == ("replace", "differs from the wish: memory: 33554432 -> 67108864; "
                           "restart_policy: always -> unless-stopped")  # fmt: skip
    assert [one["field"] for one in mended[2]] == ["memory", "restart_policy"]

    # the record says that all is as wished, yet a variable and an argument are there that nobody asked for
    more = site.assignment(env={"TOKEN": SECRET, "MORE": "1"}, command=["sh", "-c", f": x; {ENGINE}"])
    site.run(replicas=[more | {"hash": wish["hash"]}])
    (mended,) = told(both_ways(site, replicas=[wish]), "differences")
    fields = {one["field"]: one["wanted"] for one in mended[1]}
    assert set(fields) == {"command", "env.MORE", "labels.modelyard.spec"}
    assert fields["env.MORE"] is None
    assert "MORE" not in site.env()
    assert site.run(replicas=[wish])["changed"] is False

    docker("stop", "--time", "0", f"{site.fleet}-h.m.0")
    identity = site.containers()["h.m.0"]["Id"]
    ((action, reason),) = told(both_ways(site, replicas=[wish]), "reason")
    assert (action, reason) == ("start", "was exited (exit code 137)")
    assert site.containers()["h.m.0"]["Id"] == identity


def test_what_is_replaced_can_be_put_back_or_confirmed(site: Site) -> None:
    first, second, third = (site.assignment(env={"WHICH": name}) for name in ("first", "second", "third"))
    site.run(replicas=[first])
    identity = site.containers()["h.m.0"]["Id"]
    (replaced,) = told(both_ways(site, replicas=[second], keep_previous=True), "reason")
    assert replaced == ("replace", "env.WHICH changed")
    assert site.states() == {"h.m.0": "running", "h.m.0.previous": "exited"}
    kept = site.containers()["h.m.0.previous"]
    assert (kept["Id"], kept["HostConfig"]["RestartPolicy"]["Name"]) == (identity, "no")

    # not confirmed: a third wish takes the place of the second, and the first stays what is gone back to
    site.run(replicas=[third], keep_previous=True)
    assert site.containers()["h.m.0.previous"]["Id"] == identity
    assert "WHICH=third" in site.env()
    assert told(both_ways(site, replicas=[third], state="put_back")) == [("put_back",)]
    assert site.states() == {"h.m.0": "running"}
    assert site.containers()["h.m.0"]["Id"] == identity
    # nothing of its own differs from its wish, and it may be put back or confirmed only once
    assert site.run(replicas=[first])["changed"] is False
    assert told(both_ways(site, replicas=[third], state="put_back")) == [("keep",)]

    site.run(replicas=[second], keep_previous=True)
    docker("stop", "--time", "0", f"{site.fleet}-h.m.0")
    ((action, reason),) = told(both_ways(site, replicas=[second], state="confirmed"), "reason")
    assert (action, reason) == ("keep", "does not run, so the previous container is kept")
    site.run(replicas=[second])
    assert told(both_ways(site, replicas=[second], state="confirmed")) == [("discard",)]
    assert site.states() == {"h.m.0": "running"}
    assert "WHICH=second" in site.env()


def test_a_wish_that_the_engine_refuses_costs_nothing(site: Site) -> None:
    wish = site.assignment()
    site.run(replicas=[wish, site.assignment(1)])
    before = site.containers()
    broken = site.assignment(mounts=[{"source": "/not/there", "target": "/weights", "read_only": True}])
    failed = site.run(replicas=[broken, site.assignment(1, cpus=0.5)])
    assert failed["failed"]
    assert "/not/there" in failed["msg"]
    assert [(one["action"], one["changed"], bool(one["error"])) for one in failed["replicas"]] == [
        ("replace", False, True),
        ("replace", True, False),
    ]
    assert site.containers()["h.m.0"]["State"] == before["h.m.0"]["State"]
    assert "h.m.0.next" not in site.states()
    assert site.containers()["h.m.1"]["HostConfig"]["NanoCpus"] == 5 * 10**8


def test_a_replacement_that_cannot_start_leaves_what_it_replaced(site: Site) -> None:
    site.run(replicas=[site.assignment()])
    with socket.create_server(("127.0.0.1", 0)) as held:
        address = {"address": "127.0.0.1", "port": held.getsockname()[1], "container_port": 8000}
        failed = site.run(replicas=[site.assignment(publish=address)])
    assert failed["failed"]
    assert "address already in use" in failed["msg"] or "allocated" in failed["msg"]
    assert site.states() == {"h.m.0": "created", "h.m.0.previous": "exited"}
    told(site.run(replicas=[site.assignment(publish=address)], state="put_back"))
    assert site.states() == {"h.m.0": "running"}
    assert site.run(replicas=[site.assignment()])["changed"] is False


def test_containers_of_others_and_what_is_paused_are_left_alone(site: Site) -> None:
    site.run(replicas=[site.assignment()])
    name = f"{site.fleet}-h.m.1"
    docker("run", "--detach", "--name", name, rootfs.BASE.tag, "sleep", "600")
    refused = both_refused(site, replicas=[site.assignment(cpus=0.5), site.assignment(1)])
    assert f"a container named {name}" in refused["msg"]
    assert "not ours" in refused["msg"]
    assert site.containers()["h.m.0"]["HostConfig"]["NanoCpus"] == 10**9
    assert docker("inspect", "--format", "{{.State.Status}}", name).strip() == "running"

    docker("pause", f"{site.fleet}-h.m.0")
    left = both_ways(
        site, replicas=[site.assignment(cpus=0.5)], stops=[{"replica": "h.m.1", "runtime": "docker"}]
    )
    assert left["changed"] is False
    assert any("is paused: left alone" in line for line in left["lines"])
    assert site.states() == {"h.m.0": "paused"}
    assert "is paused" in both_refused(site, replicas=[site.assignment()], state="put_back")["msg"]


def test_nobody_gets_a_gpu_or_port_that_another_replica_has(site: Site) -> None:
    site.run(replicas=[site.assignment(0), site.assignment(1)])
    taken = both_refused(site, replicas=[site.assignment(2, gpus=["test-1"])])
    assert "h.m.1 runs and has GPU test-1" in taken["msg"]
    # two that change places in one call: each waits until the other has stopped
    swapped = both_ways(
        site, replicas=[site.assignment(0, gpus=["test-1"]), site.assignment(1, gpus=["test-0"])]
    )
    assert told(swapped) == [("replace",), ("replace",)]
    first, second = (site.containers()[f"h.m.{i}"]["State"] for i in (0, 1))
    assert (first["Status"], second["Status"]) == ("running", "running")


def test_no_engine_is_an_error_that_changes_nothing(site: Site) -> None:
    failed = both_refused(site, replicas=[site.assignment()], docker_socket=str(site.home / "no.sock"))
    assert "is Docker running at" in failed["msg"]
    assert "Nothing was started or stopped on this host" in failed["msg"]


# --- a run that dies ------------------------------------------------------------------------------


def at_most_one_runs(site: Site) -> None:
    running = [name for name, state in site.states().items() if state in ("running", "restarting")]
    assert len(running) <= 1, running


MOMENTS = [round(0.2 + 0.1 * step, 2) for step in range(10)]
ENDINGS: list[tuple[str, Callable[[Site], dict[str, Any]], str]] = [
    ("go on", lambda site: {"replicas": [site.assignment(env={"W": "new"})], "keep_previous": True}, "W=new"),
    (
        "turn round",
        lambda site: {"replicas": [site.assignment(env={"W": "old"})], "keep_previous": True},
        "W=old",
    ),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("how", "ending", "expected"), ENDINGS, ids=[one[0] for one in ENDINGS])
def test_a_run_killed_while_it_replaces_is_followed_by_one_that_converges(
    site: Site, how: str, ending: Callable[[Site], dict[str, Any]], expected: str
) -> None:
    old, new = site.assignment(env={"W": "old"}), site.assignment(env={"W": "new"})
    for moment in MOMENTS:
        told(site.run(replicas=[old]))
        kill_replicas(site.params({"replicas": [new], "keep_previous": True}), moment)
        at_most_one_runs(site)
        told(site.run(**ending(site)))
        states = site.states()
        assert states.pop("h.m.0") == "running", moment
        assert set(states) <= {"h.m.0.previous"}, moment
        assert expected in site.env(), moment
        assert site.run(**ending(site))["changed"] is False, moment
        told(site.run(replicas=ending(site)["replicas"], state="confirmed"))
        assert site.states() == {"h.m.0": "running"}, moment


@pytest.mark.timeout(600)
def test_a_run_killed_while_it_puts_back_is_followed_by_one_that_does(site: Site) -> None:
    old, new = site.assignment(env={"W": "old"}), site.assignment(env={"W": "new"})
    for moment in MOMENTS:
        told(site.run(replicas=[old]))
        told(site.run(replicas=[new], keep_previous=True))
        kill_replicas(site.params({"replicas": [new], "state": "put_back"}), moment)
        at_most_one_runs(site)
        told(site.run(replicas=[new], state="put_back"))
        assert site.states() == {"h.m.0": "running"}, moment
        assert "W=old" in site.env(), moment
        assert site.run(replicas=[old])["changed"] is False, moment
