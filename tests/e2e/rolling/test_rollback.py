"""Back to the release before the last, with requests in flight."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.rolling.conftest import MODEL
from tests.e2e.rolling.streams import Streams
from tests.e2e.site import Site
from tests.hosts.owner import Owner
from tests.parts import echo_image
from tests.parts.docker import docker

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def other_image(site: Site) -> Iterator[str]:
    """Another image with the same engine, on all hosts."""
    name = f"modelyard-test-{Owner.current().pid}-other"
    tag = f"modelyard-test/echo-other:{Owner.current().pid}"
    docker("create", "--name", name, echo_image.tag())
    try:
        docker("commit", "--change", "LABEL other=yes", name, tag)
        for host in site.hosts:
            host.load_images([tag])
        yield tag
    finally:
        docker("rm", name)
        docker("rmi", tag)


def test_a_rollback_over_two_releases_restores_image_and_arguments_and_loses_no_request(
    site: Site, other_image: str
) -> None:
    usual = site.models
    before = launched(site)
    wanted = last_release(site)
    seen = [before]
    for image, length in ((other_image, 512), (usual[MODEL]["image"], 1024)):
        changed = copy.deepcopy(usual)
        changed[MODEL]["image"] = image
        changed[MODEL]["args"] = {"token_rate": 9, "max_model_len": length}
        changed[MODEL]["rollout"] |= {"min_ready": 0, "canary": 0, "step": 6}
        site.wish(changed)
        site.play("deploy")
        seen.append(launched(site))
        assert all(
            seen[-1][replica][part] != seen[-2][replica][part]
            for replica in before
            for part in before[replica]
        )
    assert last_release(site) == wanted + 2

    # the pace of a roll is no part of a release: that of the inventory holds
    changed[MODEL]["rollout"] = {**usual[MODEL]["rollout"], "min_ready": 3, "canary": 0, "step": 3}
    site.wish(changed)
    with Streams(site.proxy, MODEL, 30) as streams:
        streams.wait_for(30)
        site.play("rollback", model=MODEL, release=str(wanted))
        streams.wait_for(60)
    assert streams.tally.broken == [], f"of {streams.tally.whole} streams"
    assert launched(site) == before

    # the inventory wishes the same as before again, which ends the hold and moves nothing
    site.wish(usual)
    plan = site.ask("plan")
    assert {change["action"] for change in plan["changes"]} == {"keep"}
    assert plan["holds"] == []


def last_release(site: Site) -> int:
    """The number of the release that was applied last, as `modelyard history` tells it."""
    command = [sys.executable, "-m", "modelyard", "history", "-i", str(site.inventory), MODEL, "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    return max(int(release["number"]) for release in told["models"][0]["releases"])


def launched(site: Site) -> dict[str, dict[str, Any]]:
    """Replica -> image id and command line of its container."""
    return {
        replica: {
            "image": container["Image"],
            "command": container["Config"]["Cmd"],
        }
        for replica, container in site.containers(running=True).items()
    }
