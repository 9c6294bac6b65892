"""Published figures of models, with the values of their `config.json` that matter, and where each figure is from.

Config values: the files of the same name in the models' repositories on the hub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GIB = 2**30

LLAMA_3_8B = {
    "model_type": "llama", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
LLAMA_3_70B = {
    **LLAMA_3_8B, "hidden_size": 8192, "intermediate_size": 28672, "max_position_embeddings": 131072,
    "num_attention_heads": 64, "num_hidden_layers": 80,
}  # fmt: skip
LLAMA_3_70B_AWQ = {
    **LLAMA_3_70B, "torch_dtype": "float16",
    "quantization_config": {
        "bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq", "version": "gemm",
        "zero_point": True,
    },
}  # fmt: skip
LLAMA_3_405B = {
    **LLAMA_3_70B, "hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128,
    "num_hidden_layers": 126,
}  # fmt: skip
QWEN_2_5_7B = {
    "model_type": "qwen2", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "hidden_size": 3584,
    "intermediate_size": 18944, "max_position_embeddings": 32768, "max_window_layers": 28, "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": None, "use_sliding_window": False,
    "vocab_size": 152064,
}  # fmt: skip
QWEN_2_5_72B = {
    **QWEN_2_5_7B, "hidden_size": 8192, "intermediate_size": 29568, "num_attention_heads": 64,
    "num_hidden_layers": 80, "num_key_value_heads": 8,
}  # fmt: skip
MIXTRAL_8X7B = {
    "model_type": "mixtral", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "num_attention_heads": 32,
    "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
    "sliding_window": None, "vocab_size": 32000,
}  # fmt: skip
GEMMA_2_9B = {
    "model_type": "gemma2", "torch_dtype": "bfloat16", "head_dim": 256, "hidden_size": 3584,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "num_attention_heads": 16, "num_hidden_layers": 42,
    "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 256000,
}  # fmt: skip
PHI_3_MINI = {
    "model_type": "phi3", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "hidden_size": 3072,
    "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
    "num_key_value_heads": 32, "sliding_window": 2047, "vocab_size": 32064,
}  # fmt: skip
FALCON_7B = {
    "model_type": "falcon", "torch_dtype": "bfloat16", "alibi": False, "bias": False, "hidden_size": 4544,
    "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71, "num_hidden_layers": 32,
    "num_kv_heads": 71, "parallel_attn": True, "vocab_size": 65024,
}  # fmt: skip
OPT_6_7B = {
    "model_type": "opt", "torch_dtype": "float16", "ffn_dim": 16384, "hidden_size": 4096,
    "max_position_embeddings": 2048, "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 50272,
    "word_embed_proj_dim": 4096,
}  # fmt: skip
GPT_2 = {
    "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "vocab_size": 50257,
}  # fmt: skip
QWEN_3_30B_A3B = {
    "model_type": "qwen3_moe", "torch_dtype": "bfloat16", "tie_word_embeddings": False, "attention_bias": False,
    "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
    "max_position_embeddings": 40960, "mlp_only_layers": [], "moe_intermediate_size": 768,
    "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
    "num_key_value_heads": 4, "sliding_window": None, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
QWEN_3_235B_A22B_FP8 = {
    **QWEN_3_30B_A3B, "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "num_attention_heads": 64, "num_hidden_layers": 94,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}  # fmt: skip
GPT_OSS_20B = {
    "model_type": "gpt_oss", "attention_bias": True, "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "max_position_embeddings": 131072,
    "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
    "num_local_experts": 32, "sliding_window": 128, "tie_word_embeddings": False, "vocab_size": 201088,
    "quantization_config": {
        "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head",
        ],
        "quant_method": "mxfp4",
    },
}  # fmt: skip
DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2", "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
    "max_position_embeddings": 163840, "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64,
    "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
    "num_key_value_heads": 16, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "vocab_size": 102400,
}  # fmt: skip
DEEPSEEK_V3 = {
    **DEEPSEEK_V2_LITE, "model_type": "deepseek_v3", "first_k_dense_replace": 3, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "vocab_size": 129280,
    "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """One figure: which one it is (`parameters`, `checkpoint`, `weights`, `kv_token`, `kv`, `start`), its value, and
    its source. `asked` are fields of the request that it was published for.
    """

    name: str
    config: dict[str, Any]
    figure: str
    value: float
    source: str
    asked: dict[str, Any] = field(default_factory=dict)


ISCA = "DeepSeek-AI, Insights into DeepSeek-V3, arXiv:2505.09343, table 1 (BF16)"
HUB_BLOG = "Hugging Face blog llama31, table of KV cache sizes for FP16"

FIGURES = (
    Published("gpt2", GPT_2, "parameters", 124e6, "model card: the smallest version of GPT-2, 124M parameters"),
    Published("opt-6.7b", OPT_6_7B, "parameters", 6.7e9, "OPT, arXiv:2205.01068, table 1"),
    Published("falcon-7b", FALCON_7B, "parameters", 7e9, "model card: 7B parameters, multi-query attention"),
    Published("phi-3-mini", PHI_3_MINI, "parameters", 3.8e9, "Phi-3 technical report, arXiv:2404.14219: 3.8B"),
    Published("gemma-2-9b", GEMMA_2_9B, "parameters", 917_962_752 + 8_324_201_984,
              "Gemma 2 report, arXiv:2408.00118, table 2: embedding and non-embedding parameters"),
    Published("llama-3-8b", LLAMA_3_8B, "weights", 14.9595 * GIB,
              "vllm-project/vllm issue 12330: loading model weights took 14.9595 GB"),
    Published("llama-3-8b", LLAMA_3_8B, "kv_token", 11.12 * GIB / (5691 * 16),
              "vllm-project/vllm issue 12330: 11.12 GiB are 5691 blocks of 16 tokens (128 KiB a token)"),
    Published("llama-3-8b", LLAMA_3_8B, "kv", 15.62 * GIB, HUB_BLOG, {"max_model_len": 128_000}),
    Published("llama-3-8b", LLAMA_3_8B, "start", (71.29 - 53.29) * GIB,
              "vllm-project/vllm pull request 10511: 53.29 of 71.29 GiB are left for the KV cache"),
    Published("llama-3.1-70b", LLAMA_3_70B, "kv", 39.06 * GIB, HUB_BLOG, {"max_model_len": 128_000}),
    Published("llama-3.1-70b", LLAMA_3_70B, "parameters", 70.6e9, "model card on the hub: 70.6B"),
    Published("llama-3.1-70b-awq-int4", LLAMA_3_70B_AWQ, "checkpoint", 35 * GIB,
              "hugging-quants model card: around 35 GiB only for loading the checkpoint"),
    Published("llama-3.1-405b", LLAMA_3_405B, "parameters", 405e9, "Llama 3, arXiv:2407.21783: 405B"),
    Published("llama-3.1-405b", LLAMA_3_405B, "kv_token", 516.096e3, ISCA),
    Published("qwen2.5-7b", QWEN_2_5_7B, "parameters", 7.61e9, "model card: 7.61B"),
    Published("qwen2.5-72b", QWEN_2_5_72B, "parameters", 72.7e9, "model card: 72.7B"),
    Published("qwen2.5-72b", QWEN_2_5_72B, "kv_token", 327.680e3, ISCA),
    Published("mixtral-8x7b", MIXTRAL_8X7B, "parameters", 46.7e9, "mistral.ai/news/mixtral-of-experts: 46.7B"),
    Published("qwen3-30b-a3b", QWEN_3_30B_A3B, "parameters", 30.5e9, "model card: 30.5B in total"),
    Published("qwen3-235b-a22b-fp8", QWEN_3_235B_A22B_FP8, "parameters", 235e9, "model card: 235B in total"),
    Published("qwen3-235b-a22b-fp8", QWEN_3_235B_A22B_FP8, "kv", 8.11 * GIB,
              "vllm-project/vllm issue 21348: 8.11 GiB on each of 4 GPUs are 178,880 tokens",
              {"tensor_parallel": 4, "max_model_len": 178_880}),
    Published("gpt-oss-20b", GPT_OSS_20B, "parameters", 20.91e9, "gpt-oss model card, arXiv:2508.10925, table 1"),
    Published("gpt-oss-20b", GPT_OSS_20B, "checkpoint", 13_761_264_768,
              "total_size in its model.safetensors.index.json; 12.8 GiB in its model card"),
    Published("deepseek-v2-lite", DEEPSEEK_V2_LITE, "parameters", 15.7e9, "DeepSeek-V2, arXiv:2405.04434: 15.7B"),
    Published("deepseek-v3", DEEPSEEK_V3, "parameters", 671e9, "DeepSeek-V3, arXiv:2412.19437: 671B"),
    Published("deepseek-v3", DEEPSEEK_V3, "kv_token", 70.272e3, ISCA),
)  # fmt: skip
