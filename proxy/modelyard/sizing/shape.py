"""What a decoder looks like, out of its ``config.json``: dimensions, heads, and what each layer keeps of a token.

The keys are those of Hugging Face Transformers' configuration classes, in the spellings that older families have.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.errors import SizingError
from modelyard.sizing.keys import MOST_LAYERS, Config, found, optional, part, required, switch, text
from modelyard.sizing.layers import Kept, kept_by_layers

# Where multimodal models keep the part that generates text.
_TEXT_PARTS = ("text_config", "language_config", "llm_config", "thinker_config")
# Said once for the whole model, beside the nested part.
_SHARED = ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")
# Parts that hold weights of their own, which a count from the config does not see.
_TOWERS = (
    "vision_config",
    "audio_config",
    "vision_tower",
    "mm_vision_tower",
    "talker_config",
    "token2wav_config",
)
_OLD_NAMES = {"RefinedWebModel": "falcon", "RefinedWeb": "falcon"}
_MULTI_QUERY = ("falcon", "gpt_bigcode")  # one KV head unless the config says otherwise

BYTES_OF = {
    "float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """One decoder. ``context`` is the longest context in tokens, None where the config names none.

    ``stored_bytes`` is the size of one unquantised weight in the checkpoint, None where the config names no dtype.
    ``towers`` are the parts beside the decoder (vision, audio), by the key that describes them.
    """

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int | None
    stored_bytes: int | None
    kept: Kept
    towers: tuple[str, ...] = ()


def text_part(config: Config) -> Config:
    """The part of a config that describes the decoder: the config itself, or what a multimodal one nests.

    What is said once for the whole model (dtype, quantisation) is taken over. At most three levels are followed.
    """
    for _ in range(3):
        for name in _TEXT_PARTS:
            nested = part(config, name)
            if nested:
                above = {key: config[key] for key in _SHARED if config.get(key) is not None}
                config = {**above, **{key: value for key, value in nested.items() if value is not None}}
                break
        else:
            break
    return config


def read_shape(config: Config) -> Shape:
    """The decoder that a whole ``config.json`` describes. Raises SizingError."""
    decoder = text_part(config)
    given = text(decoder, "model_type") or "unknown"
    family = _OLD_NAMES.get(given, given)
    if switch(decoder, "is_encoder_decoder", False):
        raise SizingError(f"{family} has an encoder beside its decoder; only decoders are estimated.")
    hidden = required(decoder, "hidden_size", "n_embd", "d_model")
    layers = required(decoder, "num_hidden_layers", "n_layer", "num_layers", "n_layers", most=MOST_LAYERS)
    heads = required(decoder, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _kv_heads(decoder, given, family, heads)
    head_dim = _head_dim(decoder, hidden, heads)
    return Shape(
        family=family,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=required(decoder, "vocab_size", "padded_vocab_size"),
        context=_context(decoder),
        stored_bytes=_stored_bytes(decoder),
        kept=kept_by_layers(decoder, family, layers, kv_heads, head_dim),
        towers=tuple(name for name in _TOWERS if config.get(name)),
    )


def _kv_heads(config: Config, given: str, family: str, heads: int) -> int:
    """Heads whose keys and values are cached: as many as heads, fewer (GQA) or one (MQA)."""
    named = optional(config, "num_key_value_heads", "num_kv_heads", "n_head_kv", most=heads)
    nested = part(config, "attn_config")  # MPT and DBRX
    if nested is not None:
        named = named or optional(nested, "kv_n_heads", most=heads)
    if family in _MULTI_QUERY:
        if given == "RefinedWeb" or switch(config, "new_decoder_architecture", False):
            return named or heads
        return 1 if switch(config, "multi_query", True) else heads
    if switch(config, "multi_query_attention", False):  # ChatGLM
        return required(config, "multi_query_group_num", most=heads)
    if named is None and switch(config, "multi_query", False):
        return 1
    return named or heads


def _head_dim(config: Config, hidden: int, heads: int) -> int:
    given = optional(config, "head_dim", "attention_head_dim", "kv_channels", "qk_head_dim")
    if given is not None:
        return given
    if hidden % heads:
        raise SizingError(
            f"config.json has {heads} attention heads for a hidden size of {hidden}, which they do not divide, "
            "and no head_dim."
        )
    return hidden // heads


def _context(config: Config) -> int | None:
    """The longest context; a rope scaling that is not in ``max_position_embeddings`` yet is not applied."""
    names = (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "n_ctx",
    )
    return optional(config, *names)


def _stored_bytes(config: Config) -> int | None:
    hit = found(config, "dtype", "torch_dtype")
    if hit is None:
        return None
    name = text(config, hit[0]) or ""
    size = BYTES_OF.get(name.removeprefix("torch."))
    if size is None:
        raise SizingError(
            f"{hit[0]} in config.json is {name[:40]!r}, which is no type of weights that is known."
        )
    return size
