"""Whose log is meant."""

from __future__ import annotations

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.find_replica import find_replica

KNOWN = [
    {"replica": f"{host}.{model}.{index}", "host": host}
    for host, model, index in [
        ("gpu01", "m", 0),
        ("gpu01", "m", 1),
        ("gpu02", "m", 0),
        ("gpu02", "qwen2.5-7b", 0),
    ]
]
HOSTS = ["gpu01", "gpu02", "gpu02.site"]


@pytest.mark.parametrize(
    ("typed", "replica", "host"),
    [
        ("gpu01.m.1", "gpu01.m.1", "gpu01"),
        ("m.1", "gpu01.m.1", "gpu01"),
        ("qwen2.5-7b", "gpu02.qwen2.5-7b.0", "gpu02"),
        ("gpu02.site.m.0", "gpu02.site.m.0", "gpu02.site"),  # not remembered; the longest host's name counts
        ("gpu01.new.3", "gpu01.new.3", "gpu01"),
    ],
)
def test_an_id_or_a_part_that_only_one_has(typed: str, replica: str, host: str) -> None:
    assert find_replica(typed, KNOWN, HOSTS) == (replica, host, "")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("m", "may be any of these, say which: gpu01.m.0, gpu01.m.1, gpu02.m.0."),
        ("gpu01", "may be any of these, say which: gpu01.m.0, gpu01.m.1."),
        ("gpu3.m.0", "Near it: gpu02.m.0, gpu01.m.0"),
        ("zzz", "There are gpu01.m.0, gpu01.m.1, gpu02.m.0, gpu02.qwen2.5-7b.0."),
        ("", "There is no replica ''"),
    ],
)
def test_otherwise_the_nearest_are_told(typed: str, told: str) -> None:
    replica, host, problem = find_replica(typed, KNOWN, HOSTS)
    assert (replica, host) == ("", "")
    assert told in problem


def test_nothing_is_remembered_and_hosts_that_left_do_not_count() -> None:
    assert "no deploy is remembered" in find_replica("m", [], HOSTS)[2]
    assert "no deploy is remembered" in find_replica("gpu01.m.0", KNOWN, [])[2]
