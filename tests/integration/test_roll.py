"""A rolling change under load: nothing lost, nothing cut; what fails is put back, and nobody else is touched.

Two "hosts" with two replicas each and a proxy, as real processes on this machine.
"""

from __future__ import annotations

import json
import sys

import pytest

from .rolling_fleet import RATE, REPLICAS, SLOWER, Load, RollingFleet, changed, fleet, settled

GOLDEN = {"prompt": "yes", "max_tokens": 1, "expect": "yes"}

__all__ = ["fleet"]
pytestmark = pytest.mark.timeout(900)


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
