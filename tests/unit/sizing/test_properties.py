"""What holds of every estimate, and that no input makes anything but a sentence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.errors import SizingError
from modelyard.sizing import Gpus, Model, Request, estimate, judge, read_model, splits
from tests.unit.sizing.published import FIGURES

CONFIGS = list({one.name: one.config for one in FIGURES}.values())
KEYS = sorted({key for config in CONFIGS for key in config} | {"text_config", "vision_config", "attn_config"})
MODELS = st.sampled_from([read_model(config) for config in CONFIGS])
TOKENS = st.integers(1, 300_000)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(MODELS, TOKENS, TOKENS, st.integers(1, 50), st.integers(1, 50))
def test_more_tokens_and_more_requests_never_need_less(
    model: Model, one: int, other: int, few: int, many: int
) -> None:
    few, many, one, other = min(few, many), max(few, many), min(one, other), max(one, other)
    small = estimate(model, Request(max_model_len=one, concurrency=few))
    large = estimate(model, Request(max_model_len=other, concurrency=many))
    assert small.per_gpu.kv <= large.per_gpu.kv
    assert small.per_gpu.total <= large.per_gpu.total


@settings(deadline=None)
@given(MODELS, TOKENS)
def test_more_bits_of_the_cache_never_need_less(model: Model, tokens: int) -> None:
    needs = [
        estimate(model, Request(max_model_len=tokens, kv_dtype=name)).per_gpu.kv
        for name in ("fp8", "auto", "float32")
    ]
    assert needs == sorted(needs)


@settings(deadline=None)
@given(st.sampled_from(["llama", "qwen2"]), st.integers(2, 16), st.integers(2, 16))
def test_more_bits_of_weights_never_need_less(family: str, one: int, other: int) -> None:
    base = next(config for config in CONFIGS if config["model_type"] == family)
    sizes = [
        read_model(
            {**base, "quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": 128}}
        ).weights_bytes
        for bits in sorted((one, other))
    ]
    assert sizes == sorted(sizes)


@settings(deadline=None)
@given(MODELS, TOKENS, st.integers(1, 20))
def test_more_gpus_never_make_one_gpu_hold_more(model: Model, tokens: int, concurrency: int) -> None:
    needs = [
        estimate(
            model, Request(max_model_len=tokens, concurrency=concurrency, tensor_parallel=number)
        ).per_gpu
        for number in splits(model, 64)
    ]
    for before, after in pairwise(needs):
        assert after.weights <= before.weights
        assert after.kv <= before.kv
        assert after.total <= before.total


@settings(deadline=None)
@given(MODELS, st.integers(1, 8), st.floats(1, 200), TOKENS, st.integers(1, 64))
def test_what_is_said_to_fit_fits_and_a_bit_more_does_not(
    model: Model, count: int, memory: float, tokens: int, concurrency: int
) -> None:
    request = Request(max_model_len=tokens, concurrency=concurrency)
    found = judge(model, request, Gpus("h", count, memory))
    if not found.fits:
        assert found.max_model_len is None
        return
    assert found.gpus is not None
    assert found.max_model_len is not None
    assert found.max_concurrency is not None
    assert found.max_concurrency >= concurrency
    budget = int(memory * 2**30 * 0.9)
    shared = replace(request, tensor_parallel=found.gpus)
    most = replace(shared, concurrency=found.max_concurrency)
    assert estimate(model, most).per_gpu.total <= budget
    longest = replace(shared, max_model_len=found.max_model_len)
    assert estimate(model, longest).per_gpu.total <= budget


@settings(deadline=None)
@given(JSON)
def test_any_json_gives_a_model_or_a_sentence(config: Any) -> None:
    only_a_sentence(config)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(CONFIGS), st.sampled_from(KEYS), JSON)
def test_any_value_of_any_key_gives_a_model_or_a_sentence(
    config: dict[str, Any], key: str, value: Any
) -> None:
    only_a_sentence({**config, key: value})


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(
        ["bits", "group_size", "config_groups", "ignore", "weight_block_size", "lm_head", "quant_algo"]
    ),
    st.sampled_from(
        ["gptq", "fp8", "compressed-tensors", "bitsandbytes", "modelopt", "mxfp4", "awq", "hqq", ""]
    ),
    JSON,
)
def test_any_quantization_gives_a_model_or_a_sentence(key: str, method: str, value: Any) -> None:
    only_a_sentence({**CONFIGS[1], "quantization_config": {"quant_method": method, key: value}})


@given(JSON)
def test_any_index_gives_a_model_or_a_sentence(index: Any) -> None:
    only_a_sentence(CONFIGS[1], {"metadata": index})
    only_a_sentence(CONFIGS[1], index)


def test_nesting_without_end_is_followed_no_further() -> None:
    config: dict[str, Any] = {"hidden_size": 1}
    for _ in range(100_000):
        config = {"text_config": config}
    only_a_sentence(config)


def only_a_sentence(config: Any, index: Any = None) -> None:
    told = ""
    try:
        needs = estimate(read_model(config, index=index), Request(max_model_len=100))
    except SizingError as exc:
        told = exc.message
    else:
        assert needs.per_gpu.total > 0
    assert not told or (told.endswith(".") and "\n" not in told and len(told) < 400)


def test_the_sentence_is_a_configuration_error() -> None:
    with pytest.raises(SizingError, match="must hold a mapping, not 1"):
        read_model(1)
