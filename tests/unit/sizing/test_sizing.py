"""The rules one by one: layers, heads, quantisation, files, and what is said of a bad config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import SizingError
from modelyard.sizing import Gpus, Request, estimate, judge, model_at, read_model, resident_bytes, splits
from tests.unit.sizing.published import (
    DEEPSEEK_V3,
    FALCON_7B,
    GEMMA_2_9B,
    GPT_OSS_20B,
    LLAMA_3_8B,
    LLAMA_3_70B,
    QWEN_2_5_7B,
)


def kv(config: dict[str, Any], **asked: Any) -> int:
    return estimate(read_model(config), Request(**asked)).per_gpu.kv


def test_kv_heads_are_split_and_then_repeated() -> None:
    one = kv(LLAMA_3_8B, max_model_len=8192)
    assert [kv(LLAMA_3_8B, max_model_len=8192, tensor_parallel=gpus) for gpus in (2, 8, 32)] == [
        one // 2, one // 8, one // 8,
    ]  # fmt: skip


def test_a_latent_is_whole_on_every_gpu() -> None:
    assert kv(DEEPSEEK_V3, max_model_len=4096, tensor_parallel=8) == 4096 * 61 * 576 * 2


def test_a_window_bounds_what_a_layer_keeps() -> None:
    one_layer = 2 * 8 * 64 * 2
    full = 12 * 131_072
    assert kv(GPT_OSS_20B, max_model_len=131_072) == one_layer * (full + 12 * (127 + 8192 + 1 + 16))
    assert kv(GEMMA_2_9B, max_model_len=4096) == 4096 * 42 * 2 * 8 * 256 * 2


def test_windows_that_are_switched_off_are_none() -> None:
    plain = kv(QWEN_2_5_7B, max_model_len=32_768)
    assert kv({**QWEN_2_5_7B, "sliding_window": 64}, max_model_len=32_768) == plain
    later = {**QWEN_2_5_7B, "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 14}
    assert plain / 2 < kv(later, max_model_len=32_768) < plain


def test_states_cost_the_same_for_every_length() -> None:
    config = {
        **LLAMA_3_8B, "model_type": "qwen3_next", "layer_types": ["linear_attention"] * 31 + ["full_attention"],
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    model = read_model(config, files_bytes=10**10)
    short, long = (estimate(model, Request(max_model_len=tokens)).per_gpu.kv for tokens in (16, 32))
    assert long - short == 16 * 2 * 8 * 128 * 2
    assert short > 31 * 32 * 128 * 128 * 4
    assert "not one that is known here" in model.remarks[0]


def test_one_kv_head_for_all() -> None:
    assert read_model(FALCON_7B).shape.kv_heads == 1
    assert splits(read_model(FALCON_7B), 64) == [1]


def test_an_unquantised_checkpoint_has_the_size_of_what_is_computed_with() -> None:
    single = read_model({**LLAMA_3_8B, "torch_dtype": "float32"})
    assert single.weights_bytes == 2 * read_model(LLAMA_3_8B).weights_bytes
    assert resident_bytes(single, Request()) == read_model(LLAMA_3_8B).weights_bytes
    assert resident_bytes(single, Request(dtype="float32")) == single.weights_bytes
    quantized = {**LLAMA_3_8B, "quantization_config": {"quant_method": "fp8"}}
    assert (
        resident_bytes(read_model(quantized), Request(dtype="float32")) == read_model(quantized).weights_bytes
    )


def test_the_text_part_of_a_multimodal_model() -> None:
    nested = {key: value for key, value in LLAMA_3_8B.items() if key != "torch_dtype"}
    config = {
        "model_type": "llava",
        "torch_dtype": "bfloat16",
        "text_config": nested,
        "vision_config": {"x": 1},
    }
    model = read_model(config, index={"metadata": {"total_size": 17 * 10**9}})
    assert estimate(model, Request()).kv_bytes_per_token == 131_072
    assert model.shape.stored_bytes == 2
    with pytest.raises(SizingError, match=r"vision_config cannot be counted.*model.safetensors.index.json"):
        read_model(config)


@pytest.mark.parametrize(
    ("given", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, 4 + 20 / 64),
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"load_in_8bit": True}, 8),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 4, "group_size": 128}, "targets": ["Linear"]}
                },
            },
            4 + 16 / 128,
        ),
    ],
)
def test_bits_of_a_weight(given: dict[str, Any], bits: float) -> None:
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    plain = read_model(LLAMA_3_8B).weights_bytes
    found = read_model({**LLAMA_3_8B, "quantization_config": given}).weights_bytes
    assert plain - found == pytest.approx(linear * (16 - bits) / 8, rel=1e-6)


def test_modules_that_are_left_as_they_were() -> None:
    given = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    sizes = [
        read_model(
            {**LLAMA_3_8B, "quantization_config": {**given, "modules_to_not_convert": skipped}}
        ).weights_bytes
        for skipped in ([], ["lm_head"], ["model.layers.0.mlp.down_proj"], ["mlp"], ["mlp", "self_attn"])
    ]
    assert sizes[0] == sizes[1] < sizes[2] < sizes[3] < sizes[4] == read_model(LLAMA_3_8B).weights_bytes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": None}, "config.json has no hidden_size or n_embd or d_model, which the estimate needs."),
        ({"hidden_size": "4096"}, 'hidden_size in config.json must be a whole number, not "4096".'),
        ({"num_hidden_layers": -1}, "num_hidden_layers in config.json must be from 1 to 10000, not -1."),
        ({"num_key_value_heads": 64}, "num_key_value_heads in config.json must be from 1 to 32, not 64."),
        ({"vocab_size": True}, "vocab_size in config.json must be a whole number, not true."),
        ({"torch_dtype": "int3"}, "torch_dtype in config.json is 'int3', which is no type of weights that is known."),
        ({"tie_word_embeddings": "yes"}, 'tie_word_embeddings in config.json must be true or false, not "yes".'),
        ({"layer_types": ["full_attention"]}, "layer_types in config.json names 1 layers, and the model has 32."),
        ({"model_type": "mamba"}, "What mamba keeps of a token is not understood (the architecture), so there is no "
         "estimate."),
        ({"model_type": "novel"}, "The parameters of the architecture 'novel' cannot be counted from config.json: put "
         "model.safetensors.index.json or the safetensors files beside it."),
        ({"quantization_config": {"quant_method": "exl2"}}, "The quantisation 'exl2' in config.json is not known: put "
         "model.safetensors.index.json or the safetensors files beside it."),
        ({"is_encoder_decoder": True}, "llama has an encoder beside its decoder; only decoders are estimated."),
    ],
)  # fmt: skip
def test_what_is_said_of_a_bad_config(change: dict[str, Any], told: str) -> None:
    with pytest.raises(SizingError) as caught:
        read_model({**LLAMA_3_8B, **change})
    assert caught.value.message == told


def test_an_unknown_architecture_is_estimated_from_its_files() -> None:
    model = read_model({**LLAMA_3_8B, "model_type": "novel"}, files_bytes=16 * 10**9)
    assert (model.weights_bytes, model.origin) == (16 * 10**9, "files")


@pytest.mark.parametrize("request_", [Request(kv_dtype="int1"), Request(dtype="int8"), Request(concurrency=0),
                                      Request(max_model_len=0), Request(tensor_parallel=3)])  # fmt: skip
def test_what_cannot_be_asked_for(request_: Request) -> None:
    with pytest.raises(SizingError):
        estimate(read_model(LLAMA_3_8B), request_)


def test_a_host_that_has_too_little_is_told_with_numbers() -> None:
    model = read_model(LLAMA_3_70B)
    one = judge(model, Request(max_model_len=8192), Gpus("gpu01", 1, 79.6))
    assert (one.fits, one.gpus) == (False, None)
    assert "weights (131.4 GiB) and overhead" in one.reason
    eight = judge(model, Request(max_model_len=8192), Gpus("gpu02", 8, 79.6))
    assert (eight.fits, eight.gpus) == (True, 2)
    long = judge(model, Request(), Gpus("gpu02", 8, 79.6))
    assert (long.fits, long.gpus, long.max_model_len) == (True, 4, 131_072)


def test_a_cache_that_is_too_large_is_told_with_what_would_fit() -> None:
    found = judge(read_model(LLAMA_3_8B), Request(max_model_len=8192, concurrency=100), Gpus("h", 1, 40))
    assert not found.fits
    assert "the KV cache of 100 requests of 8,192 tokens takes 100.0 GiB" in found.reason
    assert "or 18 requests of 8,192 tokens" in found.reason


def test_hosts_of_which_nobody_can_tell() -> None:
    model = read_model(LLAMA_3_8B)
    unknown = judge(model, Request(), Gpus("h", 2, None))
    assert unknown.fits is None
    assert "fleet_gpu_memory_gib" in unknown.reason
    assert judge(model, Request(), Gpus("h", 0, None)).fits is False
    assert judge(model, Request(), Gpus("h", 2, 80, "is not for it")).reason == "h: is not for it."


def test_a_fixed_number_of_gpus_and_the_one_that_would_do() -> None:
    found = judge(read_model(LLAMA_3_70B), Request(max_model_len=8192), Gpus("h", 8, 79.6), fixed=True)
    assert found.fits is False
    assert found.reason.endswith("It would fit on 2 GPUs there.")


def test_files_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(SizingError, match=r"There is no config\.json in"):
        model_at(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA_3_8B))
    assert model_at(tmp_path).origin == model_at(file).origin == "config"
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(SizingError, match=r"holds 1 of 2 weight files"):
        model_at(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"x" * 50)
    (tmp_path / "consolidated.safetensors").write_bytes(b"x" * 50)
    assert (model_at(tmp_path).weights_bytes, model_at(tmp_path).origin) == (150, "files")
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 140}}')
    assert (model_at(tmp_path).weights_bytes, model_at(tmp_path).origin) == (140, "index")


@pytest.mark.parametrize("text", ["{", "\xff\xfe", "[" * 100_000, "9" * 10_000, ""])
def test_files_that_are_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(SizingError, match=r"config\.json"):
        model_at(tmp_path)
