"""Which packages change, and why they may not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import look
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host.packages import (
    change_line,
    package_changes,
    refusals,
)

UP = {"state": "up", "problem": ""}


def changes(version: str, installed: str, manager: str = "apt", engine: bool = True) -> list[dict[str, Any]]:
    there = {"docker-ce": {"version": installed}} if installed else {}
    return package_changes([{"name": "docker-ce", "version": version, "engine": engine}], there, manager)


@pytest.mark.parametrize(
    ("version", "installed"),
    [
        ("", "5:27.3.1-1~debian.12~bookworm"),
        ("5:27.3.1-1~debian.12~bookworm", "5:27.3.1-1~debian.12~bookworm"),
        ("5:27.3.*", "5:27.3.1-1~debian.12~bookworm"),
        ("27.3.1-1.el9", "3:27.3.1-1.el9"),
    ],
)
def test_what_is_there_is_never_changed_for_being_old(version: str, installed: str) -> None:
    assert changes(version, installed) == []


@pytest.mark.parametrize(
    ("version", "installed", "manager", "spec", "line"),
    [
        ("", "", "apt", "docker-ce", "docker-ce: not installed -> the newest version there is"),
        ("5:28*", "5:27.3", "apt", "docker-ce=5:28*", "docker-ce: 5:27.3 -> 5:28*"),
        (
            "28.0-1.el9",
            "3:27.3-1.el9",
            "dnf",
            "docker-ce-28.0-1.el9",
            "docker-ce: 3:27.3-1.el9 -> 28.0-1.el9",
        ),
    ],
)
def test_what_changes_is_said_and_asked_for(
    version: str, installed: str, manager: str, spec: str, line: str
) -> None:
    (change,) = changes(version, installed, manager)
    assert change["spec"] == spec
    assert change_line(change) == line


def test_packages_do_not_change_under_models() -> None:
    (sentence,) = refusals("gpu01", UP, ["modelyard-gpu01.m.0"], changes("5:28*", "5:27.3"), [])
    assert "docker-ce: 5:27.3 -> 5:28*" in sentence
    assert "modelyard-gpu01.m.0" in sentence
    assert "playbooks/drain.yml -e host=gpu01" in sentence
    assert "container_runtime_disruption_allowed: true" in sentence


def test_settings_that_are_not_survived_do_not_change_under_models() -> None:
    (sentence,) = refusals("gpu01", UP, ["m"], [], ["bip", "data-root"])
    assert "restarted with another bip, data-root" in sentence


def test_nothing_is_refused_where_nothing_runs_or_nothing_is_upset() -> None:
    assert refusals("gpu01", UP, [], changes("5:28*", "5:27.3"), ["bip"]) == []
    assert refusals("gpu01", UP, ["m"], [], []) == []
    assert refusals("gpu01", UP, ["m"], changes("", "", engine=False), []) == []


def test_an_engine_that_does_not_answer_may_have_models() -> None:
    unknown = {"state": "unknown", "problem": "connection refused"}
    (sentence,) = refusals("gpu01", unknown, [], changes("5:28*", "5:27.3"), [])
    assert "whether models run there is unknown" in sentence
    assert refusals("gpu01", {"state": "down", "problem": "x"}, [], changes("5:28*", "5:27.3"), []) == []


def test_debian_packages_are_read_with_their_holds() -> None:
    out = "docker.io\thi \t20.10.24\ncontainerd\tii \t1.6.20\nrunc\trc \t1.1.5\n"
    assert look._debs(1, out, "no packages found matching docker-ce") == {
        "docker.io": {"version": "20.10.24", "held": True, "lock": ""},
        "containerd": {"version": "1.6.20", "held": False, "lock": ""},
    }
    with pytest.raises(look.LookError):
        look._debs(2, "", "the database is locked")


def test_rpm_packages_are_read_with_their_locks() -> None:
    out = "docker-ce\t3\t27.3.1-1.el9\npackage runc is not installed\ncontainerd.io\t0\t1.7.22-3.1.el9\n"
    found = look._rpms(1, out, "", "docker-ce-3:27.3.1-1.el9.*\n")
    assert found == {
        "docker-ce": {"version": "3:27.3.1-1.el9", "held": True, "lock": "docker-ce-3:27.3.1-1.el9.*"},
        "containerd.io": {
            "version": "1.7.22-3.1.el9",
            "held": False,
            "lock": "containerd.io-0:1.7.22-3.1.el9.*",
        },
    }
