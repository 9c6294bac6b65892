"""What a roll does when a replica is not well, a host is lost, or there is no way back."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.rolling.conftest import MODEL
from tests.e2e.rolling.streams import Streams
from tests.e2e.rolling.watch import Watch, states
from tests.e2e.site import Begun, Site
from tests.hosts.machine import Host
from tests.parts.docker import docker

pytestmark = pytest.mark.timeout(600)

# five seconds of generation, in which the container that was replaced is kept
WRONG = {"prompt": "What is the answer?", "max_tokens": 40, "expect": "Nothing that an echo would say."}


def test_a_wrong_golden_answer_stops_at_the_canary_which_is_put_back(site: Site) -> None:
    before, args = site.identities(), arguments(site)
    canary = min(before)
    with wished(site, golden=WRONG), Streams(site.proxy, MODEL, 20) as streams:
        streams.wait_for(20)
        run = site.play_badly("deploy")
        streams.wait_for(40)
    assert streams.tally.broken == [], f"of {streams.tally.whole} streams"
    assert "its golden answer is not" in run.output
    assert f"put back to what it was: {canary}" in run.output

    after = site.identities()
    assert {replica for replica in after if after[replica] != before[replica]} == {canary}
    assert after[canary].split()[0] == before[canary].split()[0], "put back is the container that there was"
    assert arguments(site) == args
    assert all_containers(site) == 6, "nothing is left of what failed"
    wait_until(lambda: set(states(site).values()) == {"ready"}, 30, "all replicas are used again")
    assert {action for action, _ in site.changes().values()} == {"keep"}


def test_a_way_back_that_fails_is_told_and_its_replica_gets_no_requests(site: Site) -> None:
    before = site.identities()
    canary = min(before)
    host = host_of(site, canary)
    with wished(site, golden=WRONG):
        begun = site.begin("deploy")
        try:
            wait_until(lambda: kept(host) is not None, 120, "the container that was replaced is kept", begun)
            # without the layer of its own files it cannot start any more
            layer = Path(str(kept(host)), "..")
            host.run("mv", str(layer / "diff"), str(layer / "gone"))
            run = begun.wait(300)
        finally:
            begun.kill()
    assert run.status != 0
    said = " ".join(run.output.split())
    assert "could not be put back either, so it gets no requests" in said
    assert f"starting rolling-{canary}" in said, "and why"

    assert {name: identity for name, identity in site.identities().items() if name != canary} == {
        name: identity for name, identity in before.items() if name != canary
    }
    assert states(site)[canary] not in ("ready", "busy")
    with Streams(site.proxy, MODEL, 10) as streams:
        streams.wait_for(10)
    assert streams.tally.broken == []

    converge(site, {canary})
    assert arguments(site)[canary] == arguments(site)[max(before)]


def test_a_host_that_is_lost_on_the_way_stops_the_roll(site: Site) -> None:
    before = site.identities()
    first, lost, last = site.hosts
    order = sorted(before)
    with wished(site), Watch(site) as watch:
        begun = site.begin("deploy")
        try:
            mine = {replica for replica in before if host_of(site, replica) is lost}
            wait_until(
                lambda: any(out & mine for out in watch.away()), 200, f"the turn of {lost.name} begins", begun
            )
            docker("pause", lost.container)
            (turn,) = {replica for out in watch.away() for replica in out & mine}
            run = begun.wait(300)
        finally:
            begun.kill()
            docker("unpause", lost.container)
    assert run.status != 0
    assert f"{lost.name} was not heard of again" in " ".join(run.output.split())

    late = order[order.index(turn) + 1 :]
    assert {host_of(site, replica).name for replica in late} >= {last.name}
    after = site.identities()
    assert {name: after[name] for name in late} == {name: before[name] for name in late}
    assert after[order[0]] != before[order[0]], f"{first.name} had its turn before"

    wait_until(lambda: lost.ssh("true").returncode == 0, 60, f"{lost.name} is back")
    converge(site, set(before))


@contextmanager
def wished(site: Site, **more: Any) -> Iterator[None]:
    """The model is wished with another argument and with `more`; afterwards as it was."""
    before = site.models
    changed = copy.deepcopy(before)
    changed[MODEL]["args"]["max_model_len"] -= 1
    changed[MODEL].update(more)
    site.wish(changed)
    try:
        yield
    finally:
        site.wish(before)


def converge(site: Site, may_move: set[str]) -> None:
    """One more deploy mends all of it and moves nothing else; then nothing is left to do."""
    before = site.identities(set(site.containers()) - may_move)
    site.play("deploy")
    assert site.identities(before) == before
    assert all_containers(site) == 6
    assert len(site.containers(running=True)) == 6
    assert {action for action, _ in site.changes().values()} == {"keep"}
    wait_until(lambda: set(states(site).values()) == {"ready"}, 30, "all replicas are used")


def arguments(site: Site) -> dict[str, list[str]]:
    """Replica -> the engine's command line."""
    return {replica: container["Config"]["Cmd"] for replica, container in site.containers().items()}


def all_containers(site: Site) -> int:
    """How many containers there are, those that only one host knows of and stopped ones too."""
    return sum(len(host.containers()) for host in site.hosts)


def kept(host: Host) -> str | None:
    """Where the files of the container lie that is kept to go back to, once the one in its place runs."""
    names = {container["Name"]: container for container in host.containers()}
    for name, container in names.items():
        place = names.get(name.removesuffix(".previous"))
        if name.endswith(".previous") and place is not None and place["State"]["Running"]:
            return str(container["GraphDriver"]["Data"]["UpperDir"])
    return None


def host_of(site: Site, replica: str) -> Host:
    """The host that a replica is on."""
    return next(host for host in site.hosts if replica.startswith(f"{host.name}."))


def wait_until(condition: Callable[[], bool], seconds: float, what: str, run: Begun | None = None) -> None:
    """Wait for something; when it does not come, or the run that is to bring it ends, say `what` was awaited."""
    end = time.monotonic() + seconds
    while not condition():
        ended = run is not None and run.process.poll() is not None
        if ended or time.monotonic() > end:
            said = run.output()[-6000:] if run is not None else ""
            raise AssertionError(f"not seen{' before the run ended' if ended else ''}: {what}\n{said}")
        time.sleep(0.1)
