"""How many parameters a decoder has, counted from its ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.errors import SizingError
from modelyard.sizing.families import FAMILIES, Family
from modelyard.sizing.keys import MOST_LAYERS, Config, found, optional, required, shown, switch
from modelyard.sizing.shape import Shape

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters by where they are, since quantisation leaves some of them as they are.

    ``mlp`` are those of layers without experts and of shared experts; ``other`` are norms, biases, routers and learned
    positions.
    """

    embedding: int
    head: int
    attention: int
    mlp: int
    experts: int
    other: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.attention + self.mlp + self.experts + self.other


def count_parameters(config: Config, shape: Shape) -> Parameters:
    """The parameters of the decoder that ``config`` (its own part) and ``shape`` describe.

    Layers that only predict further tokens ahead (``num_nextn_predict_layers``) are not counted: engines do not load
    them unless they are asked to. SizingError for a family that is not known, and for one with further parts.
    """
    family = FAMILIES.get(shape.family)
    if family is None:
        raise SizingError(
            f"The parameters of the architecture {shape.family[:40]!r} cannot be counted from config.json: "
            f"put {INDEX} or the safetensors files beside it."
        )
    if shape.towers:
        raise SizingError(
            f"The weights of {shape.towers[0]} cannot be counted from config.json: "
            f"put {INDEX} or the safetensors files beside it."
        )
    width = shape.vocab * (optional(config, "word_embed_proj_dim") or shape.hidden)
    attention, attention_other = _attention(config, shape, family)
    sparse = _sparse_layers(config, shape) if family.moe else 0
    experts = shared = routers = 0
    if sparse:
        experts, shared, routers = _experts(config, shape, family)
    dense = shape.layers - sparse
    mlp, mlp_other = _mlp(config, shape, family) if dense else (0, 0)
    positions = 0 if family.positions is None else ((shape.context or 0) + family.positions) * shape.hidden
    norms = (family.norms * shape.layers + 1) * family.norm_size * shape.hidden
    return Parameters(
        embedding=width,
        head=0 if switch(config, "tie_word_embeddings", family.tied) else width,
        attention=attention * shape.layers,
        mlp=mlp * dense + shared * sparse,
        experts=experts * sparse,
        other=attention_other * shape.layers + mlp_other * dense + routers * sparse + positions + norms,
    )


def unsplit(config: Config, shape: Shape) -> tuple[int, int]:
    """Parameters of one piece that tensor parallelism never divides further, in all layers, and how many such
    pieces there are: a KV head's projections, or the projections to a latent (one piece).
    """
    if shape.kept.latent:
        return shape.layers * shape.hidden * (shape.kept.values + (optional(config, "q_lora_rank") or 0)), 1
    return shape.layers * shape.hidden * shape.kept.values, shape.kv_heads


def _attention(config: Config, shape: Shape, family: Family) -> tuple[int, int]:
    """The matrices and the biases of one layer."""
    hidden, heads = shape.hidden, shape.heads
    if shape.kept.latent:
        return _latent_attention(config, shape), 0
    queries, keys = heads * shape.head_dim, shape.kv_heads * shape.head_dim
    biases = (
        family.bias
        or family.qkv_bias
        or switch(config, "attention_bias", False)
        or switch(config, "bias", False)
    )
    return hidden * (2 * queries + 2 * keys), queries + 2 * keys + hidden if biases else 0


def _latent_attention(config: Config, shape: Shape) -> int:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, appendix C): down and up projections."""
    latent, rope = required(config, "kv_lora_rank"), required(config, "qk_rope_head_dim")
    plain, value = required(config, "qk_nope_head_dim"), required(config, "v_head_dim")
    low = optional(config, "q_lora_rank")
    query = shape.heads * (plain + rope)
    queries = shape.hidden * query if low is None else low * (shape.hidden + query)
    keys = shape.hidden * (latent + rope) + latent * shape.heads * (plain + value)
    return queries + keys + shape.heads * value * shape.hidden


def intermediate(config: Config, shape: Shape, *, wide: bool) -> int:
    """Width of the MLP of a layer without experts; ``wide`` allows the four hidden sizes of older families."""
    names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    given = optional(config, *names)
    if given is None and wide:
        return 4 * shape.hidden
    return given if given is not None else required(config, *names[:2])


def _mlp(config: Config, shape: Shape, family: Family) -> tuple[int, int]:
    width = intermediate(config, shape, wide=family.wide)
    bias = family.bias or switch(config, "mlp_bias", False) or switch(config, "bias", False)
    return (3 if family.gated else 2) * shape.hidden * width, width + shape.hidden if bias else 0


def expert_count(config: Config) -> int:
    """Routed experts of one layer; 0 for a model without."""
    return optional(config, "num_local_experts", "num_experts", "n_routed_experts", least=0) or 0


def expert_width(config: Config, shape: Shape) -> int:
    """Width of one expert."""
    return optional(config, "moe_intermediate_size") or intermediate(config, shape, wide=False)


def _experts(config: Config, shape: Shape, family: Family) -> tuple[int, int, int]:
    """Routed experts, shared experts, and router with biases, of one layer."""
    count, width = expert_count(config), expert_width(config, shape)
    matrices = 3 * shape.hidden * width
    shared = optional(config, "shared_expert_intermediate_size", least=0) or 0
    shared += (optional(config, "n_shared_experts", least=0) or 0) * width
    router = shape.hidden * count
    if family.bias:
        router += count * (1 + 2 * width + shape.hidden)
    return count * matrices, 3 * shape.hidden * shared, router + (shape.hidden if shared else 0)


def _sparse_layers(config: Config, shape: Shape) -> int:
    """Layers that have experts."""
    if not expert_count(config):
        return 0
    first = optional(config, "first_k_dense_replace", least=0, most=shape.layers) or 0
    every = optional(config, "decoder_sparse_step", "moe_layer_freq", most=MOST_LAYERS) or 1
    hit = found(config, "mlp_only_layers")
    dense = hit[1] if hit else []
    if not isinstance(dense, list | tuple) or not all(isinstance(at, int) for at in dense):
        raise SizingError(
            f"mlp_only_layers in config.json must be a list of whole numbers, not {shown(dense)}."
        )
    offset = 1 if config.get("decoder_sparse_step") is not None else 0
    return sum((at + offset) % every == 0 and at >= first and at not in dense for at in range(shape.layers))
