"""driver_upgrade.yml over a real fleet of two hosts: drained one by one, and ended by the first that fails or is lost.

The role gpu_driver is one that only writes down what it finds: what it does to packages has a scenario of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.ports import free_range

from .rolling_fleet import RATE, ROOT, Load, RollingFleet

PLAN = """
- ansible.builtin.stat: {path: "{{ fleet_home }}/driver"}
  register: __seen
- ansible.builtin.set_fact:
    gpu_driver_plan: {wanted: "{{ not __seen.stat.exists }}", install: [a-driver], remove: [], reasons: []}
"""
MAIN = """
- ansible.builtin.shell: touch HOME/lost
  when: lose | default('') == inventory_hostname
- ansible.builtin.ping:
- ansible.builtin.fail: {msg: the module was not built}
  when: spoil | default('') == inventory_hostname
- ansible.builtin.assert: {that: gpu_driver_drained}
- ansible.builtin.shell: cp HOME/p1/endpoints.yml {{ fleet_home }}/driver
"""

CLIENTS = 20

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RollingFleet]:
    running = RollingFleet(tmp_path_factory.mktemp("d"), free_range(14)[0], hosts=3)
    # the host that can be lost comes first
    hosts = running._children["engine_hosts"]["hosts"]
    running._children["engine_hosts"]["hosts"] = {name: hosts[name] for name in ("n2", "n1", "n3")}
    tasks = running.home / "roles" / "gpu_driver" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "plan.yml").write_text(PLAN, encoding="utf-8")
    (tasks / "main.yml").write_text(MAIN.replace("HOME", str(running.home)), encoding="utf-8")
    running.wish(args=RATE, placement={"replicas": 6, "gpus": 0})
    running.well("site")
    yield running
    running.lost.unlink(missing_ok=True)
    running.ends()


@pytest.fixture(autouse=True)
def _roles(fleet: RollingFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", f"{fleet.home}/roles:{ROOT}/roles")


def driven(fleet: RollingFleet) -> dict[str, Path]:
    """The registry that each host saw when its driver was changed."""
    return {host: path for host in fleet.names if (path := fleet.home / host / "driver").exists()}


def active(fleet: RollingFleet, *but: str) -> dict[str, set[str]]:
    """What the proxy is to be told: all hosts serve, ``but`` these are drained."""
    return {name: {"draining" if name in but else "active"} for name in fleet.names}


def states(registry: Path) -> dict[str, set[str]]:
    """By host, the states of its replicas."""
    found: dict[str, set[str]] = {}
    for model in json.loads(registry.read_text(encoding="utf-8"))["models"].values():
        for endpoint in model["endpoints"]:
            found.setdefault(endpoint["host"], set()).add(endpoint["state"])
    return found


def test_a_host_that_fails_stays_drained_and_ends_the_run(fleet: RollingFleet) -> None:
    done = fleet.play("driver_upgrade", "-e", "spoil=n2")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "n2 is not done: the module was not built" in said, done.stdout + done.stderr[-3000:]
    assert "It stays drained, and no other host was touched after it." in said
    assert driven(fleet) == {}
    assert states(fleet.home / "p1" / "endpoints.yml") == active(fleet, "n2")
    fleet.well("undrain", "-e", "host=n2")


def test_a_host_that_does_not_come_back_ends_it_too(fleet: RollingFleet) -> None:
    with Load(fleet.port, CLIENTS) as load:
        done = fleet.play("driver_upgrade", "-e", "lose=n2")
    assert done.returncode != 0
    assert load.bad == []
    assert load.tally["whole"] > CLIENTS
    assert "n2 is not done: it was lost on the way" in " ".join(done.stdout.split()), (
        done.stdout + done.stderr[-3000:]
    )
    assert driven(fleet) == {}
    assert states(fleet.home / "p1" / "endpoints.yml") == active(fleet, "n2")
    # while it is away nothing is begun
    done = fleet.play("driver_upgrade")
    assert "n2: no answer, so nothing was begun" in " ".join(done.stdout.split())
    fleet.lost.unlink()
    fleet.well("undrain", "-e", "host=n2")


def test_one_host_after_the_other_is_drained_changed_and_used_again(fleet: RollingFleet) -> None:
    assert "n1: installs a-driver" in fleet.well("driver_upgrade", "--check")
    assert driven(fleet) == {}
    with Load(fleet.port, CLIENTS) as load:
        fleet.well("driver_upgrade")
    assert load.bad == []
    assert load.tally["whole"] > CLIENTS
    # of three hosts one was away at a time
    assert {name: states(registry) for name, registry in driven(fleet).items()} == {
        name: active(fleet, name) for name in fleet.names
    }
    assert states(fleet.home / "p1" / "endpoints.yml") == active(fleet)
    generation = (fleet.home / "p1" / "endpoints.yml").read_text(encoding="utf-8")
    assert "n1: as wished" in fleet.well("driver_upgrade")
    assert (fleet.home / "p1" / "endpoints.yml").read_text(encoding="utf-8") == generation
