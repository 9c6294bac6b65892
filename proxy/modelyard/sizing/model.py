"""A model as far as its memory goes: its shape and the bytes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import SizingError
from modelyard.sizing.families import FAMILIES
from modelyard.sizing.keys import Config, optional, part, shown
from modelyard.sizing.parameters import count_parameters, expert_count, expert_width, intermediate, unsplit
from modelyard.sizing.quantization import quantized_bytes, read_quantization
from modelyard.sizing.shape import Shape, read_shape, text_part

_MOST_BYTES = 10**18
_HALF = 2  # bytes of float16 and bfloat16


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder and its weights.

    ``weights_bytes`` is what lies in the checkpoint, or would; ``origin`` says whether that is read (``index``,
    ``files``) or counted (``config``). ``parameters`` is None where they were not counted. ``piece_bytes`` is one of
    ``pieces`` that tensor parallelism does not divide further (see ``parameters.unsplit``). ``widths`` are the widths
    that activations have besides the hidden size: what is split over the GPUs, and what is not.
    """

    shape: Shape
    weights_bytes: int
    origin: str
    parameters: int | None
    quantization: str | None
    piece_bytes: int
    pieces: int
    widths: tuple[int, int]
    remarks: tuple[str, ...] = field(default=())


def read_model(
    config: Any, *, index: Mapping[str, Any] | None = None, files_bytes: int | None = None
) -> Model:
    """A model from its ``config.json``, parsed.

    ``index`` is its parsed ``model.safetensors.index.json``, whose total size goes before ``files_bytes``, the size of
    its weight files in bytes; without both the parameters are counted. Raises SizingError.
    """
    if not isinstance(config, Mapping):
        raise SizingError(f"config.json must hold a mapping, not {shown(config)}.")
    shape = read_shape(config)
    decoder = text_part(config)
    read_bytes, origin = _read_bytes(index, files_bytes)
    remarks = []
    method: str | None = None
    counted: int | None = None
    if read_bytes is None:
        quantization = read_quantization(decoder, shape.layers)
        method = quantization.method if quantization else None
        found = count_parameters(decoder, shape)
        counted = found.total
        plain = shape.stored_bytes or (_HALF if method else 4)
        weights = quantized_bytes(found, quantization, plain)
    else:
        weights = read_bytes
        method = _method(decoder)
        if shape.family not in FAMILIES:
            remarks.append(
                f"The architecture {shape.family[:40]!r} is not one that is known here; its KV cache is worked out from "
                "the attention keys of config.json."
            )
        if shape.stored_bytes is None and method is None:
            remarks.append("config.json names no dtype: the weights are taken to need what their files have.")
    piece, pieces = unsplit(decoder, shape)
    return Model(
        shape=shape,
        weights_bytes=weights,
        origin=origin,
        parameters=counted,
        quantization=method,
        piece_bytes=min(piece * _HALF, weights // pieces),
        pieces=pieces,
        widths=_widths(decoder, shape),
        remarks=tuple(remarks),
    )


def _read_bytes(index: Mapping[str, Any] | None, files_bytes: int | None) -> tuple[int | None, str]:
    if index is not None:
        if not isinstance(index, Mapping):
            raise SizingError(f"The index of the weights must hold a mapping, not {shown(index)}.")
        metadata = index.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
        if isinstance(total, float) and total.is_integer():
            total = int(total)
        if total is not None:
            if isinstance(total, bool) or not isinstance(total, int) or not 0 < total <= _MOST_BYTES:
                raise SizingError(
                    f"metadata.total_size in the index of the weights must be a number of bytes, not {shown(total)}."
                )
            return total, "index"
    return (files_bytes, "files") if files_bytes is not None else (None, "config")


def _method(config: Config) -> str | None:
    """The name of a checkpoint's quantisation, whatever it is: its size is known."""
    given = part(config, "quantization_config") or part(config, "compression_config")
    if not given:
        return None
    name = given.get("quant_method")
    return name[:40] if isinstance(name, str) and name else "unknown"


def _widths(config: Config, shape: Shape) -> tuple[int, int]:
    """Values of each token in a layer's widest moment: three times the MLP (gate, up and their product), which is
    split over the GPUs, and what experts give back before it is summed, which is not.
    """
    active = (
        optional(config, "num_experts_per_tok", "experts_per_token", "num_experts_per_token", least=0) or 0
    )
    count = expert_count(config)
    dense = intermediate(config, shape, wide=True)
    if not count or not active:
        return 3 * dense, 0
    active = min(active, count)
    return 3 * max(active * expert_width(config, shape), 0), active * shape.hidden
