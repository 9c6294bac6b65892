"""GPUs that share a model are taken where the way between them is fastest."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner import joined
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planner.test_gpus import given as placed
from tests.unit.planner.test_gpus import hardware, one, plan, seen

EIGHT = tuple(str(at) for at in range(8))


def groups(*kinds: tuple[str, list[int]]) -> dict[str, Any]:
    return {
        "groups": [{"vendor": "nvidia", "kind": kind, "gpus": gpus, "node": None} for kind, gpus in kinds]
    }


def host(*kinds: tuple[str, list[int]], links: dict[tuple[int, int], int] | None = None) -> Host:
    rows = [{"gpus": list(pair), "kind": f"NV{count}"} for pair, count in (links or {}).items()]
    told = hardware(*(["up"] * 8), **groups(*kinds), links=rows)
    return seen({"hardware": told}, fleet_gpus=8).host


@pytest.mark.parametrize(
    ("kinds", "free", "count", "expected"),
    [
        # bridges join 1 and 2, 5 and 6: they go before neighbours
        ([("nvlink", [1, 2]), ("nvlink", [5, 6])], "01256", 2, "12"),
        ([("nvlink", [1, 2]), ("nvlink", [5, 6])], "0256", 2, "56"),
        # no pair is left whole: behind one switch before one node, one node before the rest
        ([("nvlink", [0, 1]), ("pcie_switch", [1, 4]), ("numa", [0, 2])], "0124", 2, "01"),
        ([("nvlink", [0, 1]), ("pcie_switch", [1, 4]), ("numa", [0, 2])], "0247", 2, "02"),
        ([("pcie_switch", [1, 4]), ("numa", [0, 1, 2, 3]), ("numa", [4, 5, 6, 7])], "0147", 2, "14"),
        ([("numa", [0, 1, 2, 3]), ("numa", [4, 5, 6, 7])], "02567", 4, "0567"),
        # the tightest set, so that the larger one stays whole
        ([("numa", [0, 1, 2, 3]), ("numa", [4, 5])], "012345", 2, "45"),
        # four of pairs: whole pairs, not halves
        ([("nvlink", [0, 1]), ("nvlink", [2, 3]), ("nvlink", [4, 5])], "012345", 4, "0123"),
        ([("nvlink", [0, 1]), ("nvlink", [2, 3]), ("nvlink", [4, 5])], "12345", 4, "2345"),
        # one that stands alone does not break up a pair
        ([("nvlink", [0, 1]), ("nvlink", [2, 3])], "0123", 1, "0"),
        ([("nvlink", [0, 1]), ("nvlink", [2, 3])], "123", 1, "1"),
        ([("nvlink", [0, 1]), ("nvlink", [2, 3])], "01234", 1, "4"),
        # nothing known: aligned neighbours, else the first
        ([], "123456", 2, "23"),
        ([], "1357", 2, "13"),
        ([], "1357", 1, "1"),
    ],
)
def test_which_gpus_are_taken(
    kinds: list[tuple[str, list[int]]], free: str, count: int, expected: str
) -> None:
    assert joined.choose(host(*kinds), count, set(free)) == tuple(expected)


def test_a_mesh_of_unequal_links() -> None:
    # a V100 machine of four: 0-2, 1-3 and 2-3 have two links, the others one
    links = {(0, 1): 1, (0, 2): 2, (0, 3): 1, (1, 2): 1, (1, 3): 2, (2, 3): 2}
    mesh = host(("nvlink", [0, 1, 2, 3]), links=links)
    assert joined.choose(mesh, 2, set("0123")) == ("0", "2")
    assert joined.choose(mesh, 2, set("013")) == ("1", "3")
    assert joined.choose(mesh, 3, set("0123")) == ("0", "2", "3")


def test_too_few_are_none() -> None:
    assert joined.choose(host(), 3, {"0", "1"}) is None
    assert joined.choose(host(), 0, set()) == ()


def test_a_host_whose_gpus_are_joined_goes_before_one_whose_are_not() -> None:
    pairs = hardware(*(["up"] * 4), **groups(("nvlink", [0, 1]), ("nvlink", [2, 3])))
    apart = hardware("up", "up")
    hosts = ("gpu01", "gpu02")
    found = plan(
        [one(gpus=2, hosts=hosts)],
        seen({"hardware": apart}, fleet_gpus=2),
        seen({"hardware": pairs}, name="gpu02"),
    )
    assert placed(found) == {"gpu02.m.0": ["0", "1"]}


def test_instances_of_one_gpu_are_known_by_its_place() -> None:
    told = hardware("up", "up", **groups(("nvlink", [0, 1])))
    for item in told["gpus"]:
        item["instances"] = [{"uuid": f"MIG-{item['index']}", "memory_total": 2**30}]
    found = seen({"hardware": told}, fleet_gpus=["MIG-0", "MIG-1"]).host
    assert found.gpu_groups == ((0, frozenset({"MIG-0", "MIG-1"})),)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.frozensets(st.sampled_from(EIGHT), min_size=2)), max_size=5),
    st.frozensets(st.sampled_from(EIGHT)),
    st.integers(0, 8),
    st.dictionaries(st.sampled_from([frozenset(pair) for pair in combinations(EIGHT, 2)]), st.integers(1, 4)),
)
def test_whatever_the_topology_gpus_are_free_whole_and_of_the_best_tier(
    kinds: list[tuple[int, frozenset[str]]],
    free: frozenset[str],
    count: int,
    links: dict[frozenset[str], int],
) -> None:
    machine = Host("h", gpus=EIGHT, gpu_groups=tuple(kinds), gpu_links=links)
    found = joined.choose(machine, count, free)
    assert (found is None) == (len(free) < count)
    if found is None:
        return
    assert len(set(found)) == count
    assert free.issuperset(found)
    best = joined.tier(machine, count, free)
    if count > 1 and best < joined.APART:
        assert any(rank == best and members.issuperset(found) for rank, members in kinds)
    assert joined.choose(machine, count, free) == found
