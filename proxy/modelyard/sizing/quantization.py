"""How many bits a weight has: what ``quantization_config`` says of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.errors import SizingError
from modelyard.sizing.keys import Config, optional, part, shown, switch, text, texts
from modelyard.sizing.parameters import INDEX, Parameters

_GROUPED = ("gptq", "awq", "auto-round", "auto_round", "autoround", "gptqmodel")
_SKIPPED = ("modules_to_not_convert", "ignore", "llm_int8_skip_modules", "exclude_modules", "ignored_layers")
_LAYER = re.compile(r"\.(\d+)\.")
_MOST_BITS = 32
_NF4_BLOCK = 64  # weights that share one scale in bitsandbytes' 4-bit format


@dataclass(frozen=True, slots=True)
class Quantization:
    """``bits`` of a quantised weight with its share of scales and zero points.

    ``experts_only``: nothing else is quantised. ``head``: the head is, too. ``untouched`` is, for ``attention``,
    ``mlp`` and ``experts``, the share of the layers that are left as they were.
    """

    method: str
    bits: float
    experts_only: bool = False
    head: bool = False
    untouched: Mapping[str, float] = field(default_factory=dict)


def read_quantization(config: Config, layers: int) -> Quantization | None:
    """What a checkpoint says of its quantisation; None for one that has none. Raises SizingError for a method that is
    not known.
    """
    given = part(config, "quantization_config") or part(config, "compression_config")
    if not given:
        return None
    method = (text(given, "quant_method") or text(given, "quant_type") or "").lower()
    if not method and any(switch(given, f"load_in_{bits}bit", False) for bits in (4, 8)):
        method = "bitsandbytes"
    bits = _bits(method, given)
    return Quantization(
        method=method,
        bits=bits,
        experts_only=method == "mxfp4",
        head=switch(given, "lm_head", False),
        untouched=_untouched(given, layers),
    )


def quantized_bytes(counted: Parameters, quantization: Quantization | None, plain_bytes: int) -> int:
    """Bytes of all parameters; those that are not quantised have ``plain_bytes`` each."""
    if quantization is None:
        return counted.total * plain_bytes
    bits = 0.0
    for name in ("attention", "mlp", "experts"):
        quantized = 1.0 - quantization.untouched.get(name, 0.0)
        if quantization.experts_only and name != "experts":
            quantized = 0.0
        each = quantized * quantization.bits + (1.0 - quantized) * 8 * plain_bytes
        bits += getattr(counted, name) * each
    bits += counted.head * (quantization.bits if quantization.head else 8 * plain_bytes)
    bits += (counted.embedding + counted.other) * 8 * plain_bytes
    return round(bits / 8)


def _bits(method: str, given: Config) -> float:
    """Bits for each weight, scales included. Formats: AutoGPTQ, AutoAWQ, bitsandbytes, compressed-tensors, ModelOpt, and
    OCP's microscaling (MXFP4: 4 bits, and 8 for each 32 weights).
    """
    if method in _GROUPED:
        bits = _needed(given, "bits", "w_bit")
        return bits + _shared(16 + bits, optional(given, "group_size", "q_group_size", least=-1))
    if method in ("fp8", "fbgemm_fp8"):
        block = given.get("weight_block_size")
        if block is None:
            return 8.0
        if (
            not isinstance(block, list | tuple)
            or len(block) != 2
            or not all(_is_size(side) for side in block)
        ):
            raise SizingError(
                f"weight_block_size in config.json must be two whole numbers, not {shown(block)}."
            )
        return 8 + 32 / float(block[0] * block[1])
    if method == "mxfp4":
        return 4 + 8 / 32
    if method == "bitsandbytes":
        if not switch(given, "load_in_4bit", False):
            return 8.0
        return 4 + (8 if switch(given, "bnb_4bit_use_double_quant", False) else 32) / _NF4_BLOCK
    if method == "compressed-tensors":
        return _compressed(given)
    if method.startswith("modelopt") or given.get("quant_algo") is not None:
        algorithm = (text(given, "quant_algo") or "").upper()
        if algorithm in ("FP8", "NVFP4"):
            return 8.0 if algorithm == "FP8" else 4 + 8 / 16
    raise SizingError(
        f"The quantisation {method[:40] or 'without a quant_method'!r} in config.json is not known: "
        f"put {INDEX} or the safetensors files beside it."
    )


def _compressed(given: Config) -> float:
    """The widest of the groups: which layer is in which group is told by patterns, and too much is safer than too
    little.
    """
    groups = part(given, "config_groups") or {}
    widest = 0.0
    for name in groups:
        weights = part(part(groups, name) or {}, "weights")
        if weights is None:
            continue
        bits = _needed(weights, "num_bits")
        widest = max(widest, bits + _shared(16, optional(weights, "group_size", least=-1)))
    if not widest:
        raise SizingError(
            "config_groups of quantization_config in config.json says no num_bits of any weights."
        )
    return widest


def _needed(given: Config, *names: str) -> int:
    bits = optional(given, *names, most=_MOST_BITS)
    if bits is None:
        raise SizingError(f"quantization_config in config.json has no {names[0]}.")
    return bits


def _shared(bits: int, group: int | None) -> float:
    """What the scales of a group cost each of its weights; next to nothing for one scale for a whole row."""
    return bits / group if group is not None and group > 0 else 0.0


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _untouched(given: Config, layers: int) -> dict[str, float]:
    """By kind of matrix the share of layers that the lists of skipped modules name.

    A name with a layer's number stands for that layer, one without (or with a pattern) for all of them.
    """
    named: dict[str, set[int]] = {}
    for key in _SKIPPED:
        for module in texts(given, key) or ():
            kind = _kind(module)
            if kind is None:
                continue
            number = _LAYER.search(module)
            at = set(range(layers)) if number is None else {int(number.group(1)[:9])}
            named.setdefault(kind, set()).update(one for one in at if one < layers)
    return {kind: len(numbers) / layers for kind, numbers in named.items()}


def _kind(module: str) -> str | None:
    """Which of the counted matrices a module's name means; None for others (head, router, norms, vision)."""
    if re.search(r"vision|visual|audio|gate$|router|norm|lm_head|embed", module):
        return None
    if "expert" in module and "shared" not in module:
        return "experts"
    if "attn" in module or "attention" in module:
        return "attention"
    return "mlp" if "mlp" in module or "shared" in module else None
