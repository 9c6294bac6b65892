"""A rolling change, and what takes a host out of use, under load: a host is lost, drained, restarted and emptied.

Two "hosts" with two replicas each and a proxy, as real processes on this machine.
"""

from __future__ import annotations

import pytest

from .rolling_fleet import RATE, REPLICAS, SLOWER, Load, RollingFleet, changed, fleet, settled

__all__ = ["fleet"]
pytestmark = pytest.mark.timeout(900)


def test_a_host_that_is_lost_on_the_way_ends_the_roll(fleet: RollingFleet) -> None:
    before = settled(fleet)
    fleet.wish(args=SLOWER)
    with Load(fleet.port, 20) as load:
        said = fleet.play_until("Step 3 of 4", fleet.lost.touch)
    assert load.bad == []
    assert "n2 was not heard of again: whether n2.echo.1 runs is not known" in said
    after = fleet.pids()
    assert {name for name in REPLICAS if after[name] != before[name]} == {"n1.echo.0", "n1.echo.2"}
    assert fleet.registry() == {**dict.fromkeys(REPLICAS, "active"), "n2.echo.1": "draining"}
    fleet.lost.unlink()
    fleet.well("deploy")
    assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
    assert fleet.pids()["n1.echo.0"] == after["n1.echo.0"]


def test_drained_stays_drained_and_a_restart_is_a_roll(fleet: RollingFleet) -> None:
    before = settled(fleet)
    with Load(fleet.port, 10) as load:
        foretold = changed(fleet.well("drain", "-e", "host=n2", "--check", "--diff"))
        assert changed(fleet.well("drain", "-e", "host=n2")) == foretold
        out = {"n1.echo.0": "active", "n1.echo.2": "active", "n2.echo.1": "draining", "n2.echo.3": "draining"}
        assert fleet.registry() == out
        fleet.well("deploy")
        assert fleet.registry() == out
        refused = fleet.play("undrain", "-e", "replica=n2.echo.1")
        assert "stays drained, for its host n2 is" in refused.stdout
        fleet.well("undrain", "-e", "host=n2")
        assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
        assert set(changed(fleet.well("undrain", "-e", "host=n2")).values()) == {0}
        assert "did you mean n2?" in fleet.play("undrain", "-e", "host=n22").stdout
        foretold = changed(fleet.well("restart", "-e", "host=n1", "--check"))
        assert fleet.pids() == before
        assert changed(fleet.well("restart", "-e", "host=n1")) == foretold
    assert load.bad == []
    after = fleet.pids()
    assert {name for name in REPLICAS if after[name] != before[name]} == {"n1.echo.0", "n1.echo.2"}
    for slip, said in (("model=none", "Nothing that runs"), ("host=", "Nothing that runs")):
        assert said in fleet.play("restart", "-e", slip).stdout


def test_a_host_is_emptied_onto_the_others(fleet: RollingFleet) -> None:
    settled(fleet)
    refused = fleet.play("remove_host", "-e", "host=n2", "-e", "confirm=n1")
    assert "twice: -e host=NAME -e confirm=NAME" in refused.stdout
    foretold = changed(fleet.well("remove_host", "-e", "host=n2", "-e", "confirm=n2", "--check", "--diff"))
    with Load(fleet.port, 10) as load:
        assert changed(fleet.well("remove_host", "-e", "host=n2", "-e", "confirm=n2")) == foretold
    assert load.bad == []
    assert fleet.registry() == dict.fromkeys(("n1.echo.0", "n1.echo.1", "n1.echo.2", "n1.echo.3"), "active")
    assert not (fleet.home / "n2" / "supervisor").exists()


def test_nothing_is_touched_while_a_proxy_is_not_heard_of(fleet: RollingFleet) -> None:
    fleet.wish(args=RATE)
    before = fleet.pids()
    fleet.wish(args=SLOWER)
    done = fleet.play("deploy", "--limit", "engine_hosts")
    assert done.returncode != 0
    assert "go on with -e without_proxies=p1" in done.stdout
    assert fleet.pids() == before
