"""What an inventory's model asks of memory: its arguments as a request, and what each GPU must have for that.

``modelyard fit`` and the plan both work with this, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from modelyard.errors import ConfigError
from modelyard.sizing.estimate import Request, estimate
from modelyard.sizing.fit import UTILIZATION, check_utilization, required_bytes
from modelyard.sizing.model import Model

RULES = "vllm"  # the engine of the catalog whose rules the estimate follows

# Arguments that change how much memory a replica takes in a way that the estimate does not know.
UNTOLD_ARGS = (
    "quantization", "cpu_offload_gb", "pipeline_parallel_size", "kv_cache_memory_bytes", "load_format", "hf_overrides",
    "speculative_config", "enable_lora", "num_gpu_blocks_override", "kv_offloading_size",
)  # fmt: skip


def asked_of(
    args: Mapping[str, Any],
    gpus: int | None,
    asked: Request,
    *,
    tensor_parallel: int | None = None,
    kv_dtype: str | None = None,
    utilization: float | None = None,
) -> tuple[Request, float]:
    """The request and the share of memory: what ``asked`` and the rest say, else the model's arguments, else defaults.

    ConfigError for an argument that is no number where it has to be.
    """
    share = utilization if utilization is not None else _number(args, "gpu_memory_utilization", float)
    request = replace(
        asked,
        kv_dtype=kv_dtype or str(args.get("kv_cache_dtype") or "auto"),
        dtype=str(args.get("dtype") or "auto"),
    )
    if request.max_model_len is None:
        request = replace(request, max_model_len=_number(args, "max_model_len", int))
    for field, name in (("batched_tokens", "max_num_batched_tokens"), ("sequences", "max_num_seqs")):
        number = _number(args, name, int)
        if number is not None:
            request = replace(request, **{field: number})
    if tensor_parallel is None:
        tensor_parallel = gpus
    request = replace(request, tensor_parallel=1 if tensor_parallel is None else tensor_parallel)
    return request, UTILIZATION if share is None else float(share)


def untold(args: Mapping[str, Any]) -> list[str]:
    """The arguments because of which nobody can tell by the estimate."""
    return [name for name in UNTOLD_ARGS if args.get(name) not in (None, False)]


def gpu_bytes(model: Model, args: Mapping[str, Any], gpus: int, concurrency: int = 1) -> int:
    """Bytes that each of a replica's GPUs must have. ConfigError and SizingError for what the model cannot have."""
    request, share = asked_of(args, gpus, Request(concurrency=concurrency))
    check_utilization(share)
    return required_bytes(estimate(model, request).per_gpu.total, share)


def _number(args: Mapping[str, Any], name: str, kind: type[int] | type[float]) -> Any:
    value = args.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        return kind(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ConfigError(f"args.{name} of the model is {str(value)[:40]!r}, which is no number.") from exc
