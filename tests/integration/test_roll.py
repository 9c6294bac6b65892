"""A rolling change under load: nothing lost, nothing cut; what fails is put back, and nobody else is touched.

Two "hosts" with two replicas each and a proxy, as real processes on this machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from .rolling_fleet import Load, RollingFleet, changed
from .test_local_fleet import free_range

RATE = {"token_rate": 12}
SLOWER = {"token_rate": 10}
REPLICAS = {"n1.echo.0", "n1.echo.2", "n2.echo.1", "n2.echo.3"}
GOLDEN = {"prompt": "yes", "max_tokens": 1, "expect": "yes"}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RollingFleet]:
    running = RollingFleet(tmp_path_factory.mktemp("r"), free_range(10)[0])
    running.wish(args=RATE)
    running.well("site")
    yield running
    running.ends()


def settled(fleet: RollingFleet) -> dict[str, int]:
    """The replicas' processes once the usual wish runs and is in use."""
    fleet.wish(args=RATE)
    fleet.well("deploy")
    assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
    return fleet.pids()


def test_a_rolling_change_loses_nothing_and_is_foretold(fleet: RollingFleet) -> None:
    before = settled(fleet)
    fleet.wish(args=SLOWER, golden=GOLDEN)
    foretold = changed(fleet.well("deploy", "--check", "--diff"))
    assert fleet.pids() == before
    with Load(fleet.port, 20) as load:
        said = fleet.well("deploy")
    assert load.bad == []
    assert load.tally["whole"] > 100
    assert changed(said) == foretold
    after = fleet.pids()
    assert set(after) == REPLICAS
    assert all(after[name] != before[name] for name in REPLICAS)
    assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
    for expected in (
        "Step 1 of 4 (canary)",
        "draining on 1 proxy: n1.echo.0",
        "asked for its golden answer",
        "Step 4 of 4 (percent), about",
        "0 steps left",
    ):
        assert expected in said
    assert json.loads((fleet.state / "unproved.json").read_text(encoding="utf-8"))["unproved"] == {}
    assert not list(fleet.home.glob("n*/process/*/previous*")), "what was kept is gone"
    assert set(changed(fleet.well("deploy")).values()) == {0}


def test_a_wrong_golden_answer_ends_at_the_canary_which_is_put_back(fleet: RollingFleet) -> None:
    before = settled(fleet)
    fleet.wish(args=SLOWER, golden={**GOLDEN, "expect": "no"})
    with Load(fleet.port, 20) as load:
        done = fleet.play("deploy")
    assert done.returncode != 0
    assert load.bad == []
    assert 'its golden answer is not "no" but "yes"' in done.stdout
    assert "put back to what it was: n1.echo.0" in done.stdout
    after = fleet.pids()
    assert {name for name in REPLICAS if after[name] != before[name]} == {"n1.echo.0"}
    assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
    launched = json.loads((fleet.home / "n1/process/n1.echo.0/spec.json").read_text(encoding="utf-8"))[
        "spec"
    ]["command"]
    assert launched[launched.index("--token-rate") + 1] == "12"
    # the old wish is what runs: nothing is to be done for it
    assert settled(fleet) == after


def test_what_cannot_be_put_back_gets_no_requests_until_it_is_mended(fleet: RollingFleet) -> None:
    python = fleet.home / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o700)
    fleet.shared["fleet_python"] = str(python)
    before = settled(fleet)
    python.unlink()  # what runs goes on, and could not be started again
    del fleet.shared["fleet_python"]
    fleet.wish(args=RATE, golden={**GOLDEN, "expect": "no"})
    with Load(fleet.port, 20) as load:
        done = fleet.play("deploy")
    assert done.returncode != 0
    assert load.bad == []
    assert "could not be put back either, so it gets no requests" in done.stdout
    assert fleet.registry() == {**dict.fromkeys(REPLICAS, "active"), "n1.echo.0": "draining"}
    after = fleet.pids()
    assert {name for name in REPLICAS - {"n1.echo.0"} if after[name] != before[name]} == set()

    # the next deploy of a wish that works mends it
    settled(fleet)


def test_what_a_run_that_was_cut_off_started_is_proved_before_it_is_used(fleet: RollingFleet) -> None:
    before = settled(fleet)
    plan = fleet.home / "plan.json"
    fleet.well("plan", "-e", json.dumps({"modelyard_result_file": str(plan)}))
    hashes = {
        one["replica"]: one["hash"] for one in json.loads(plan.read_text(encoding="utf-8"))["assignments"]
    }
    memory = {"version": 1, "unproved": {"n2.echo.3": hashes["n2.echo.3"]}}
    (fleet.state / "unproved.json").write_text(json.dumps(memory), encoding="utf-8")
    said = fleet.well("deploy")
    assert "n2.echo.3  runs, but the run that started it has not proved it" in said
    assert fleet.pids() == before, "it is asked, not started again"
    assert fleet.registry() == dict.fromkeys(REPLICAS, "active")
    assert set(changed(fleet.well("deploy")).values()) == {0}


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
