"""`modelyard fit` and the plan say the same of every model and every GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.footprints import with_need
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Model, Need, Source
from ansible_collections.modelyard.fleet.plugins.plugin_utils import memory
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.catalog import load_engines
from modelyard.cli.fit_inputs import Fleet, wished
from modelyard.inventory import with_defaults
from modelyard.sizing import Request, asked_of, corrected, judge, read_model, required_bytes
from modelyard.sizing.fit import budget_bytes
from tests.unit.sizing.published import LLAMA_3_8B, LLAMA_3_70B

GIB = 2**30
ENGINE = load_engines()["vllm"].data
SOURCE = {"hub": "someone/llama", "revision": "0" * 40}


@given(st.integers(0, 2**45), st.floats(0.05, 1))
def test_the_least_memory_is_enough_and_no_less_is(total: int, share: float) -> None:
    least = required_bytes(total, share)
    assert budget_bytes(least, share) >= total
    assert least == 0 or budget_bytes(least - 1, share) < total


def entry_of(placement: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    given = {"id": "m", "engine": "vllm", "source": SOURCE, "placement": dict(placement), "args": dict(args)}
    return with_defaults(given, ENGINE)


def fit_says(
    entry: Mapping[str, Any], config: Mapping[str, Any], gib: float, measured: Mapping[str, int] | None
) -> bool | None:
    """By the way that the command takes."""
    told = {
        "id": "m", "engine": "vllm", "loads_weights": True, "source": SOURCE, "hosts": ["h"], "args": entry["args"],
        "gpus": entry["placement"]["gpus"], "takes": "share", "concurrency": entry["placement"]["concurrency"],
        "gpu_memory_gib": entry["placement"].get("gpu_memory_gib"), "measured": measured, "config": config,
    }  # fmt: skip
    gpus = {str(at): {"memory": int(gib * GIB), "unwell": ""} for at in range(8)}
    fleet = Fleet([{"host": "h", "gpus": 8, "memory_gib": None, "seen": gpus}], [told])
    item = wished(fleet, "m", Path("/"))
    request, share = asked_of(item.args, item.gpus, Request(concurrency=item.concurrency))
    (host,) = fleet.gpus(item)
    verdict = judge(item.model(), request, host, utilization=share, fixed=True)
    return corrected(verdict, request, host, item.known).fits


@settings(max_examples=60, deadline=None)
@given(
    config=st.sampled_from([LLAMA_3_8B, LLAMA_3_70B]),
    gib=st.floats(8, 200),
    gpus=st.sampled_from([1, 2, 4, 8]),
    length=st.sampled_from([None, 512, 8192]),
    share=st.sampled_from([None, 0.5, 0.93]),
    concurrency=st.sampled_from([1, 7]),
    declared=st.sampled_from([None, None, 0, 60]),
    measured=st.sampled_from([None, None, 40]),
)
def test_fit_and_plan_agree(
    config: dict[str, Any],
    gib: float,
    gpus: int,
    length: int | None,
    share: float | None,
    concurrency: int,
    declared: int | None,
    measured: int | None,
) -> None:
    args = {"max_model_len": length, "gpu_memory_utilization": share}
    args = {name: value for name, value in args.items() if value is not None}
    placement: dict[str, Any] = {"gpus": gpus, "concurrency": concurrency}
    placement |= {} if declared is None else {"gpu_memory_gib": declared}
    entry = entry_of(placement, args)
    seen = {"config": config, "files_bytes": None}
    footprint = None if measured is None else {"used": 30 * GIB, "memory": measured * GIB}
    need = memory.need_of(entry, {memory.config_name(entry): seen})
    assert (need.at_least is None) == (declared == 0)
    model = Model(
        "m", "m", "generate", "vllm", ("h",), "h", 1, gpus, Source("hub", SOURCE["hub"], SOURCE["revision"]),
        args=args, need=need,
    )  # fmt: skip
    from ansible_collections.modelyard.fleet.plugins.module_utils.planner.footprints import key_of_model

    known = with_need(model, ENGINE, {key_of_model(model, ENGINE): footprint} if footprint else {})
    assert known.need.met_by(int(gib * GIB)) == fit_says(entry, seen, gib, footprint)


@pytest.mark.parametrize(
    ("placement", "args", "engine"),
    [
        ({"gpus": 0}, {}, "vllm"),
        ({}, {"quantization": "fp8"}, "vllm"),
        ({}, {}, "tgi"),
        ({"gpus": 3}, {}, "vllm"),
    ],
)
def test_of_what_nobody_can_tell_nothing_is_said(
    placement: dict[str, Any], args: dict[str, Any], engine: str
) -> None:
    entry = {**entry_of(placement, args), "engine": engine}
    configs = {memory.config_name(entry): {"config": LLAMA_3_8B, "files_bytes": None}}
    assert memory.need_of(entry, configs) == Need()


def test_weights_on_this_machine_go_before_those_of_a_host(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    entry = {**entry_of({"gpus": 1}, {"max_model_len": 512}), "source": {"path": str(tmp_path)}}
    host = {str(tmp_path): {"config": LLAMA_3_70B, "files_bytes": None}}
    here, there = memory.need_of(entry, host), memory.need_of({**entry, "source": SOURCE}, host)
    assert here.at_least is not None
    assert here.at_least < 24 * GIB
    assert there == Need()


def test_arguments_with_dashes_are_the_same() -> None:
    configs = {memory.config_name(entry_of({}, {})): {"config": LLAMA_3_8B, "files_bytes": None}}
    one, other = (
        memory.need_of(entry_of({}, {name: 512}), configs) for name in ("max-model-len", "max_model_len")
    )
    assert one == other
    assert read_model(LLAMA_3_8B).shape.context != 512
