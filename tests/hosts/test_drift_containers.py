"""Drift of containers on a real engine: none after a start, each difference by its name, and their logs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.replica_log import container_log

from tests.hosts.test_replicas_module import ENGINE, Site, site
from tests.parts import rootfs
from tests.parts.docker import docker
from tests.tools.run_module import COLLECTIONS, SECRET

__all__ = ["site"]
MODULE = "ansible_collections.modelyard.fleet.plugins.modules.replica_drift"
SOCKET = Path("/var/run/docker.sock")


def drift(site: Site, *wish: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The module's result; no value of the environment is in it."""
    params = site.params({"replicas": list(wish), "docker": True, **more})
    done = subprocess.run(
        [sys.executable, "-m", MODULE],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": params}),
        capture_output=True,
        text=True,
        check=False,
        cwd=COLLECTIONS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout.replace(json.dumps(list(wish)), "").partition('"invocation"')[0]
    return dict(json.loads(done.stdout))


def fields(result: dict[str, Any]) -> set[tuple[str, str]]:
    (replica,) = result["replicas"]
    return {(item["kind"], item["field"]) for item in replica["differences"]}


def test_what_was_just_started_has_no_drift(site: Site) -> None:
    wish = [site.assignment(index) for index in range(3)]
    site.run(replicas=wish)
    found = drift(site, *wish)
    assert [(one["replica"], one["differences"]) for one in found["replicas"]] == [
        (f"h.m.{index}", []) for index in range(3)
    ]
    assert (found["leftovers"], found["problems"]) == ([], [])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"command": ["sh", "-c", ENGINE, "--depth", "9"]}, {("arguments", "depth")}),
        (
            {"env": {"TOKEN": "other", "MORE": "1"}},
            {("environment", "env.TOKEN"), ("environment", "env.MORE")},
        ),
        ({"env": {}}, {("environment", "env.TOKEN")}),
        ({"mounts": []}, {("mounts", "mounts")}),
        ({"read_only": False, "tmpfs": []}, {("mounts", "read_only"), ("mounts", "tmpfs")}),
        ({"user": "1001:1001"}, {("settings", "user")}),
        ({"shm_mib": 32, "ulimits": {}}, {("settings", "shm_size"), ("settings", "ulimits")}),
    ],
)
def test_a_container_that_was_started_otherwise(
    site: Site, changes: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    wish = site.assignment()
    site.run(replicas=[site.assignment(**changes) | {"hash": wish["hash"]}])
    assert fields(drift(site, wish)) == expected
    site.run(replicas=[wish])
    assert fields(drift(site, wish)) == set()


def test_what_was_done_to_a_container_by_hand(site: Site) -> None:
    wish = site.assignment()
    name = f"{site.fleet}-h.m.0"
    site.run(replicas=[wish])
    docker("update", "--memory", "32m", "--restart", "always", name)
    docker("rename", name, f"{site.fleet}-mine")
    assert fields(drift(site, wish)) == {
        ("settings", "memory"),
        ("settings", "restart_policy"),
        ("settings", "name"),
    }
    site.run(replicas=[wish])
    assert fields(drift(site, wish)) == set()


def test_a_port_and_an_image_that_are_not_the_declared(site: Site) -> None:
    wish = site.assignment()
    port = {"address": "127.0.0.1", "port": site.ports[1], "container_port": 8000}
    site.run(replicas=[site.assignment(publish=port) | {"hash": wish["hash"]}])
    assert fields(drift(site, wish)) == {("ports", "ports")}
    other = f"{site.fleet}:other"
    docker("commit", "--change", "LABEL other=1", f"{site.fleet}-h.m.0", other)
    try:
        site.run(replicas=[site.assignment(image=other) | {"hash": wish["hash"]}])
        assert ("image", "image") in fields(drift(site, wish))
        site.run(replicas=[wish])
        assert fields(drift(site, wish)) == set()
        assert rootfs.BASE.tag in site.containers()["h.m.0"]["Config"]["Image"]
    finally:
        docker("rmi", "--force", other)


def test_what_a_change_left_behind(site: Site) -> None:
    wish = site.assignment()
    site.run(replicas=[site.assignment(env={})])
    site.run(replicas=[wish], keep_previous=True)
    found = drift(site, wish)
    assert fields(found) == set()
    (kept,) = found["leftovers"]
    assert (kept["name"], kept["state"], kept["mended"]) == (f"{site.fleet}-h.m.0.previous", "exited", False)
    labels = [
        f"--label=modelyard.{key}={value}" for key, value in (("fleet", site.fleet), ("replica", "h.m.0"))
    ]
    docker("create", "--name", f"{site.fleet}-double", *labels, rootfs.BASE.tag, "true")
    found = drift(site, wish)
    assert {item["name"] for item in found["leftovers"]} == {kept["name"], f"{site.fleet}-double"}
    assert fields(found) == set()


def test_an_inventory_that_changed_what_a_container_does_not_show(site: Site) -> None:
    site.run(replicas=[site.assignment()])
    assert fields(drift(site, site.assignment(ready_path="/other"))) == {("settings", "ready_path")}


def test_an_engine_that_does_not_answer_is_a_problem_and_no_drift(site: Site, tmp_path: Path) -> None:
    found = drift(site, {"replica": "h.m.0", "runtime": "docker"}, docker_socket=str(tmp_path / "no"))
    assert found["replicas"] == []
    assert "cannot be compared" in found["problems"][0]


def test_the_log_of_a_container_line_by_line_into_its_successor(site: Site) -> None:
    def says(word: str) -> dict[str, Any]:
        script = f"echo {word} one; echo {word} two >&2; {ENGINE}"
        return site.assignment(command=["sh", "-c", script])

    def look(lines: int, cursor: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        piece = container_log(SOCKET, site.fleet, "h.m.0", lines, None, cursor)
        return [line["line"] for line in piece.lines], piece.cursor

    def until_said(cursor: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
        said: list[str] = []
        while len(said) < 2:
            lines, cursor = look(100, cursor)
            said += lines
        return sorted(said), cursor

    site.run(replicas=[says("first")])
    said, cursor = until_said({})
    assert said == ["first one", "first two"]
    assert look(100, cursor)[0] == []
    assert len(look(1, {})[0]) == 1
    site.run(replicas=[says("second")], keep_previous=True)
    assert until_said(cursor)[0] == ["second one", "second two"]
