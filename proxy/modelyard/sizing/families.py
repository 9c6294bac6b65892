"""Families whose parameters can be counted from their ``config.json`` alone, as data.

Only what Transformers' model classes fix and the config does not say stands here: whether the MLP is gated, which
projections have biases, whether positions are learned, and what counts when a key is absent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is built.

    ``gated``: the MLP has three matrices (gate, up, down), else two. ``tied``: the head is the embedding, where the
    config does not say. ``qkv_bias``, ``bias``: biases of the query, key and value projections, and of all
    linear layers. ``norms`` for each layer, ``norm_size`` 2 where norms have biases too. ``positions``: rows of a
    learned embedding beyond the context, None where there is no such embedding. ``wide``: the MLP is four times as wide
    as the hidden size where the config does not say. ``moe``: layers may have experts.
    """

    gated: bool = True
    tied: bool = False
    qkv_bias: bool = False
    bias: bool = False
    norms: int = 2
    norm_size: int = 1
    positions: int | None = None
    wide: bool = False
    moe: bool = False


_LLAMA = Family()
_QWEN2 = Family(qkv_bias=True)
_GEMMA = Family(tied=True)
_GEMMA2 = Family(tied=True, norms=4)
_GPT2 = Family(gated=False, tied=True, bias=True, norm_size=2, positions=0, wide=True)
_FALCON = Family(gated=False, tied=True, norm_size=2, wide=True)
_MOE = Family(moe=True)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "ministral": _LLAMA,
    "granite": _LLAMA,
    "olmo": Family(norms=0),
    "olmo2": _LLAMA,
    "olmo3": _LLAMA,
    "smollm3": Family(tied=True),
    "seed_oss": Family(qkv_bias=True),
    "cohere": Family(tied=True, norms=1),
    "cohere2": Family(tied=True, norms=1),
    "exaone4": _LLAMA,
    "qwen2": _QWEN2,
    "qwen3": _LLAMA,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "phi": Family(gated=False, bias=True, norms=1, norm_size=2),
    "phi3": _LLAMA,
    "starcoder2": Family(gated=False, tied=True, bias=True, norm_size=2),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": Family(gated=False, bias=True, norm_size=2, wide=True),
    "opt": Family(gated=False, tied=True, bias=True, norm_size=2, positions=2),
    "falcon": _FALCON,
    "mixtral": _MOE,
    "qwen2_moe": Family(qkv_bias=True, moe=True),
    "qwen3_moe": _MOE,
    "olmoe": _MOE,
    "gpt_oss": Family(bias=True, moe=True),
    "deepseek_v2": _MOE,
    "deepseek_v3": _MOE,
    "kimi_k2": _MOE,
    "glm4_moe": Family(qkv_bias=False, moe=True),
}
