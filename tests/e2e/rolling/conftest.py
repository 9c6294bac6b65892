"""One site for this room: three hosts, each with two replicas of an echo engine in containers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.site import PROXY_PORT, Site
from tests.hosts.lab import Lab
from tests.parts import echo_image, wheelhouse

MODEL = "echo"
HOSTS = ("alpha", "beta", "gamma")
# A host that is lost is to be noticed in seconds, so that a test need not wait for minutes.
_IMPATIENT = "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=2 -o ServerAliveCountMax=2"


def echo() -> dict[str, Any]:
    """The model as an operator declares it: streams of three seconds, six replicas, two moved at a time."""
    return {
        "id": MODEL,
        "engine": "echo",
        "image": echo_image.tag(),
        "placement": {"replicas": 6, "gpus": 0},
        "args": {"token_rate": 8, "max_model_len": 4096},
        "rollout": {"min_ready": 4, "canary": 1, "step": 2, "drain_s": 30, "surge": False},
    }


@pytest.fixture(scope="package")
def site(parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site, deployed once by `site.yml`. The tests share it: each leaves all of it running, as the inventory says."""
    with Lab(tmp_path_factory.mktemp("rolling"), random.Random()) as lab:
        hosts = lab.start(*HOSTS)
        for host in hosts:
            host.load_images([echo_image.tag()])
        fleet = {
            "fleet_name": "rolling",
            "fleet_accelerator": "cpu",
            "fleet_container_ulimits": {},  # the engines of the test hosts lack CAP_SYS_RESOURCE
            "fleet_proxy_listen": hosts[0].address,
            "fleet_proxy_port": PROXY_PORT,
            "fleet_proxy_wheelhouse": str(wheelhouse.directory()),
            "ansible_ssh_args": _IMPATIENT,
            "ansible_ssh_retries": 0,
        }
        site = Site(tmp_path_factory.mktemp("site"), fleet, hosts, {MODEL: echo()})
        site.write()
        try:
            site.play("site")
        except AssertionError as error:
            pytest.fail(f"{error}\n{site.describe()}", pytrace=False)
        yield site
