"""A change of all replicas, with streams in flight all the time."""

from __future__ import annotations

import copy

import pytest

from tests.e2e.rolling.conftest import MODEL
from tests.e2e.rolling.streams import Streams
from tests.e2e.rolling.watch import Watch
from tests.e2e.site import Site

pytestmark = pytest.mark.timeout(900)

IN_FLIGHT = 50


def test_a_change_of_all_replicas_costs_no_request_and_cuts_no_stream(site: Site) -> None:
    before = site.containers(running=True)
    assert len(before) == 6
    changed = copy.deepcopy(site.models)
    changed[MODEL]["args"]["max_model_len"] = 2048
    site.wish(changed)

    with Streams(site.proxy, MODEL, IN_FLIGHT) as streams, Watch(site) as watch:
        streams.wait_for(IN_FLIGHT)
        run = site.play("deploy")
        streams.wait_for(2 * IN_FLIGHT)  # the moved ones have had their turn as well
    assert streams.tally.broken == [], f"of {streams.tally.whole} streams"

    after = site.containers(running=True)
    assert after.keys() == before.keys()
    for replica, container in after.items():
        assert container["Id"] != before[replica]["Id"], replica
        assert "2048" in container["Config"]["Cmd"], replica
        assert "4096" not in container["Config"]["Cmd"], replica
        assert container["RestartCount"] == 0, replica
    assert len(site.containers()) == 6, "what was kept to go back to is gone"

    away = [out for out in watch.away() if out]
    assert set().union(*away) == set(after), "each of them was taken out of use first"
    assert len(away[0]) == 1, "the canary goes alone"
    assert max(len(out) for out in away) <= 2, f"{away}: min_ready is 4 of 6"
    assert "Step 1 of 4 (canary)" in run.output


def test_an_unchanged_deploy_changes_nothing(site: Site) -> None:
    before = site.identities()
    run = site.play("deploy")
    assert run.changed(), run.output
    assert set(run.changed().values()) == {0}, run.changed()
    assert site.identities() == before
