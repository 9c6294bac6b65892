"""The table of GPU generations."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus import generations, values

from modelyard.catalog import load_gpus
from tests.unit.gpus.machines import CATALOG


@pytest.mark.parametrize("vendor", load_gpus().values(), ids=lambda vendor: vendor.name)
def test_ranges_are_in_order_and_none_overlaps_another(vendor: object) -> None:
    ranges = sorted(pair for one in vendor.generations for pair in one.devices)  # type: ignore[attr-defined]
    narrow = [("2342", "2348")]  # Grace Hopper stands before Hopper, and within it
    assert all(re.fullmatch("[0-9a-f]{4}", end) for pair in ranges for end in pair)
    assert all(first <= last for first, last in ranges)
    plain = [pair for pair in ranges if pair not in narrow]
    assert all(one[1] < other[0] for one, other in pairwise(plain))


@pytest.mark.parametrize(
    ("device", "name", "compute", "generation", "modules", "last"),
    [
        ("17fd", "Tesla M40", "5.2", "Maxwell", "unsupported", 580),
        ("1b38", "Tesla P40", "6.1", "Pascal", "unsupported", 580),
        ("1df6", "Tesla V100S-PCIE-32GB", "7.0", "Volta", "unsupported", 580),
        ("1e07", "NVIDIA GeForce RTX 2080 Ti", "7.5", "Turing", "recommended", None),
        ("2236", "NVIDIA A10", "8.6", "Ampere", "recommended", None),
        ("27b8", "NVIDIA L4", "8.9", "Ada", "recommended", None),
        ("2335", "NVIDIA H200", "9.0", "Hopper", "recommended", None),
        ("2342", "NVIDIA GH200 480GB", "9.0", "Hopper", "required", None),
        ("3182", "NVIDIA B300 SXM6 AC", "10.3", "Blackwell", "required", None),
        ("2bb5", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0", "Blackwell", "required", None),
    ],
)
def test_known_gpus_by_their_id_their_name_and_what_the_driver_tells(
    device: str, name: str, compute: str, generation: str, modules: str, last: int | None
) -> None:
    for given in ({"device": device}, {"name": name}, {"device": device, "name": name, "compute": compute}):
        gpu = {**values.blank("nvidia"), **given, "unknown": {}}
        generations.classify(CATALOG, gpu)
        assert (gpu["generation"], gpu["unknown"]) == (generation, {})
        assert (gpu["driver_rule"]["open_modules"], gpu["driver_rule"].get("last_branch")) == (modules, last)


def test_an_id_of_the_future_is_known_by_what_the_driver_tells_or_not_at_all() -> None:
    gpu = {
        **values.blank("nvidia"),
        "device": "ffff",
        "name": "NVIDIA Z1000",
        "compute": "9.0",
        "unknown": {},
    }
    generations.classify(CATALOG, gpu)
    assert gpu["generation"] == "Hopper"
    gpu = {
        **values.blank("nvidia"),
        "device": "ffff",
        "name": "NVIDIA Z1000",
        "compute": "99.0",
        "unknown": {},
    }
    generations.classify(CATALOG, gpu)
    assert gpu["unknown"] == {"generation": "it is in no generation of Modelyard's catalog"}
