"""What the layers of a decoder keep while a request runs: keys and values, a latent, a window of them, or a state.

Which layer is of which kind is what vLLM makes of the same keys (``vllm/config``, ``vllm/v1/kv_cache_interface.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from modelyard.errors import SizingError
from modelyard.sizing.keys import Config, optional, required, switch, texts

# Caches that are not worked out here: saying nothing is better than a figure that is wrong.
_UNKNOWN_FAMILIES = {
    "mamba", "mamba2", "falcon_mamba", "falcon_h1", "jamba", "bamba", "zamba", "zamba2", "rwkv",
    "recurrent_gemma", "nemotron_h", "granitemoehybrid", "minicpm3", "mllama", "mllama_text_model", "lfm2",
    "lfm2_moe", "plamo2", "deci", "nemotron-nas", "minimax", "minimax_text_01", "bert", "roberta",
    "xlm-roberta", "modernbert", "nomic_bert", "distilbert", "deberta-v2", "whisper", "kimi_linear",
    "deepseek_v4",
}  # fmt: skip
_UNKNOWN_KEYS = (
    "block_configs", "hybrid_override_pattern", "attn_layer_period", "attn_layer_indices", "ssm_cfg",
    "cross_attention_layers", "global_head_dim", "num_global_key_value_heads", "num_key_value_heads_per_layer",
)  # fmt: skip
_FULL = {"full_attention", "attention", "global", "global_attention"}
_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "cohere2": 4,
}  # every n-th layer attends to everything
_FROM_LAYER = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")  # windows begin at max_window_layers
_INDEX_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Kept:
    """What the layers keep.

    ``values`` are numbers for each token, layer and KV head (keys and values together), or of the whole layer
    where ``latent`` is true: multi-head latent attention, whose latent every GPU keeps whole. ``full`` layers keep
    all tokens; ``windows`` are pairs of a window in tokens and the number of layers that have it. ``states`` layers
    keep ``state_bytes`` for each request, however long. ``indexer_bytes`` come to each token of each layer that keeps
    tokens (DeepSeek sparse attention).
    """

    values: int
    full: int
    windows: tuple[tuple[int, int], ...] = ()
    latent: bool = False
    states: int = 0
    state_bytes: int = 0
    indexer_bytes: int = 0

    @property
    def layers(self) -> int:
        """Layers that keep tokens."""
        return self.full + sum(count for _, count in self.windows)


def kept_by_layers(config: Config, family: str, layers: int, kv_heads: int, head_dim: int) -> Kept:
    """What the layers of a decoder keep. Raises SizingError for a cache that is not understood."""
    strange = next((name for name in _UNKNOWN_KEYS if config.get(name)), None)
    if family in _UNKNOWN_FAMILIES or strange:
        because = f"its key {strange}" if strange else "the architecture"
        raise SizingError(
            f"What {family} keeps of a token is not understood ({because}), so there is no estimate."
        )
    windows = _windows(config, family, layers)
    shared = optional(config, "num_kv_shared_layers", least=0, most=layers) or 0  # Gemma 3n: the last ones
    counted = Counter(windows[: layers - shared])
    states = counted.pop(-1, 0)
    full = counted.pop(0, 0)
    latent = optional(config, "kv_lora_rank")
    if latent is not None:
        values = latent + required(config, "qk_rope_head_dim")
    else:
        values = head_dim + (optional(config, "v_head_dim") or head_dim)
    index = optional(config, "index_head_dim") if latent is not None else None
    return Kept(
        values=values,
        full=full,
        windows=tuple(sorted(counted.items())),
        latent=latent is not None,
        states=states,
        state_bytes=_state_bytes(config) if states else 0,
        indexer_bytes=index + 4 * -(-index // _INDEX_BLOCK) if index else 0,
    )


def _windows(config: Config, family: str, layers: int) -> list[int]:
    """For each layer its window in tokens; 0 for all tokens, -1 for a state."""
    window = optional(config, "sliding_window", least=0) or 0
    kinds = texts(config, "layer_types")
    if kinds is not None:
        if len(kinds) != layers:
            raise SizingError(
                f"layer_types in config.json names {len(kinds)} layers, and the model has {layers}."
            )
        return [_window_of(kind, window, config) for kind in kinds]
    if not window or not switch(config, "use_sliding_window", family not in _FROM_LAYER):
        return [0] * layers
    if family in _PATTERNS:
        every = optional(config, "sliding_window_pattern", "_sliding_window_pattern") or _PATTERNS[family]
        return [0 if (at + 1) % every == 0 else window for at in range(layers)]
    if family in _FROM_LAYER:
        begin = optional(config, "max_window_layers", least=0)
        return [window if begin is not None and at >= begin else 0 for at in range(layers)]
    return [window] * layers


def _window_of(kind: str, window: int, config: Config) -> int:
    if kind in _FULL:
        return 0
    if kind == "sliding_attention":
        return window
    if kind == "chunked_attention":
        return required(config, "attention_chunk_size")
    if kind == "linear_attention":
        return -1
    raise SizingError(f"layer_types in config.json names {kind[:40]!r}, a kind of layer that is not known.")


def _state_bytes(config: Config) -> int:
    """Bytes that one gated delta net layer keeps for each request: the recurrent state in float32, and what the
    convolution looks back on in 16 bits (``gated_delta_net_state_shape`` of vLLM's ``mamba_utils.py``).
    """
    key_heads, value_heads = (
        required(config, "linear_num_key_heads"),
        required(config, "linear_num_value_heads"),
    )
    key_dim, value_dim = required(config, "linear_key_head_dim"), required(config, "linear_value_head_dim")
    kernel = required(config, "linear_conv_kernel_dim")
    convolution = (2 * key_heads * key_dim + value_heads * value_dim) * (kernel - 1)
    return 4 * value_heads * key_dim * value_dim + 2 * convolution
