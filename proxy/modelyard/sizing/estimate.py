"""What a model needs of GPU memory to serve requests: weights, KV cache and what comes besides.

The rules are vLLM's. Its profile of a start (``determine_available_memory`` in ``vllm/v1/worker/gpu_worker.py``) adds
weights, the peak of activations and what libraries take; the rest of the memory that it may use is the KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.errors import SizingError
from modelyard.sizing.keys import shown
from modelyard.sizing.layers import Kept
from modelyard.sizing.model import Model
from modelyard.sizing.shape import BYTES_OF

BLOCK_TOKENS = 16  # tokens of one block of vLLM's KV cache
BATCHED_TOKENS = 8192  # --max-num-batched-tokens of a server on a large GPU
SEQUENCES = 256  # --max-num-seqs
# CUDA's context, libraries, NCCL's buffers and CUDA graphs. 1.79 GiB were measured for Llama 3 8B on one 80 GB GPU
# (vllm-project/vllm, pull request 10511).
RUNTIME_BYTES = 1536 * 2**20
_SAMPLER_BYTES = 12  # of each logit: float32, its softmax, and one sorted
KV_DTYPES = {
    "auto": None, "float16": 2, "bfloat16": 2, "float32": 4,
    "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "fp8_inc": 1,
}  # fmt: skip
_MOST = 10**9


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model. ``max_model_len`` in tokens, None for the model's longest context; ``concurrency``
    are requests of that length at once; ``tensor_parallel`` GPUs share the model. ``kv_dtype`` and ``dtype`` are as for
    vLLM; ``batched_tokens`` and ``sequences`` are what it takes at most in one step.
    """

    max_model_len: int | None = None
    concurrency: int = 1
    tensor_parallel: int = 1
    kv_dtype: str = "auto"
    dtype: str = "auto"
    batched_tokens: int = BATCHED_TOKENS
    sequences: int = SEQUENCES


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes by what they are for."""

    weights: int
    kv: int
    overhead: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.kv + self.overhead


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request needs: on each GPU, on all of them, and the figures that these come from.

    ``kv_bytes_per_token`` is what one token takes in all layers while it is within every window, on one GPU that
    holds all heads. ``max_model_len``, ``concurrency`` and ``tensor_parallel`` are those that were worked with.
    """

    max_model_len: int
    concurrency: int
    tensor_parallel: int
    kv_bytes_per_token: int
    per_gpu: Share

    @property
    def total(self) -> Share:
        """The same on all GPUs together; what is on several of them counts several times."""
        times = self.tensor_parallel
        return Share(self.per_gpu.weights * times, self.per_gpu.kv * times, self.per_gpu.overhead * times)


def estimate(model: Model, request: Request) -> Estimate:
    """Work out what a request needs. Raises SizingError for one that the model cannot have."""
    length = context_of(model, request)
    for name, value in (
        ("The concurrency", request.concurrency),
        ("max_num_batched_tokens", request.batched_tokens),
        ("max_num_seqs", request.sequences),
    ):
        _check(name, value)
    _check_split(model, request.tensor_parallel)
    values = kv_value_bytes(model, request)
    split = request.tensor_parallel
    per_request = kv_bytes(model, length, split, values, request.batched_tokens)
    return Estimate(
        max_model_len=length,
        concurrency=request.concurrency,
        tensor_parallel=split,
        kv_bytes_per_token=_token_bytes(model.shape.kept, _heads(model, 1), values) * model.shape.kept.layers,
        per_gpu=Share(
            weights=_weights(model, request),
            kv=per_request * request.concurrency,
            overhead=_overhead(model, request),
        ),
    )


def context_of(model: Model, request: Request) -> int:
    """The length that is worked with: the one asked for, else the model's longest."""
    if request.max_model_len is not None:
        _check("The length", request.max_model_len)
        return request.max_model_len
    if model.shape.context is None:
        raise SizingError(
            "config.json names no longest context (max_position_embeddings): say a length in tokens."
        )
    return model.shape.context


def splits(model: Model, gpus: int) -> list[int]:
    """The numbers of GPUs, at most ``gpus``, that a model can be shared by: those that divide its attention heads and
    either divide its KV heads or are divided by them.
    """
    return [number for number in range(1, min(gpus, model.shape.heads) + 1) if _divides(model, number)]


def kv_value_bytes(model: Model, request: Request) -> int:
    """Bytes of one cached value."""
    if request.kv_dtype not in KV_DTYPES:
        raise SizingError(
            f"The KV cache type {shown(request.kv_dtype)} is not one of {', '.join(KV_DTYPES)}."
        )
    return KV_DTYPES[request.kv_dtype] or compute_bytes(model, request)


def compute_bytes(model: Model, request: Request) -> int:
    """Bytes of a value that the engine computes with: ``auto`` makes 16 bits of float32 too."""
    if request.dtype == "auto":
        return 2
    size = BYTES_OF.get(request.dtype)
    if size is None or size == 1:
        raise SizingError(f"The type {shown(request.dtype)} is not one that an engine computes with.")
    return size


def kv_bytes(model: Model, length: int, split: int, value_bytes: int, batched_tokens: int) -> int:
    """Bytes of the KV cache that one request of ``length`` tokens takes on each GPU, in whole blocks.

    A layer with a window keeps what may be looked at while a step is computed: the window and the tokens of the step
    (``SlidingWindowSpec`` in ``vllm/v1/kv_cache_interface.py``).
    """
    kept = model.shape.kept
    token = _token_bytes(kept, _heads(model, split), value_bytes)
    tokens = kept.full * _blocks(length)
    for window, layers in kept.windows:
        tokens += layers * min(_blocks(length), _blocks(window - 1 + batched_tokens) + BLOCK_TOKENS)
    return tokens * token + kept.states * -(-kept.state_bytes // split)


def _blocks(tokens: int) -> int:
    """Tokens in whole blocks."""
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _heads(model: Model, split: int) -> int:
    return 1 if model.shape.kept.latent else max(1, model.shape.kv_heads // split)


def _token_bytes(kept: Kept, heads: int, value_bytes: int) -> int:
    """Bytes of one token in one layer."""
    return heads * kept.values * value_bytes + kept.indexer_bytes


def _weights(model: Model, request: Request) -> int:
    """Weights on each GPU: an even share, and what cannot be split that far."""
    total = resident_bytes(model, request)
    split = request.tensor_parallel
    piece = min(model.piece_bytes, total // model.pieces)
    return -(-(total + max(0, piece * (split - model.pieces))) // split)


def resident_bytes(model: Model, request: Request) -> int:
    """Weights in memory: those of an unquantised checkpoint have the size of the type that is computed with."""
    stored = model.shape.stored_bytes
    if model.origin == "config" and stored is None:
        stored = 4  # what Transformers takes for a config that names no dtype
    if model.quantization is not None or stored is None or stored == 1:
        return model.weights_bytes
    return -(-model.weights_bytes * compute_bytes(model, request) // stored)


def _overhead(model: Model, request: Request) -> int:
    """Activations of the largest step, the sampler, and the runtime, on each GPU."""
    shared, own = model.widths
    values = 4 * model.shape.hidden + own + -(-shared // request.tensor_parallel)
    activations = request.batched_tokens * values * compute_bytes(model, request)
    return RUNTIME_BYTES + activations + request.sequences * model.shape.vocab * _SAMPLER_BYTES


def _divides(model: Model, split: int) -> bool:
    heads, kv_heads = model.shape.heads, model.shape.kv_heads
    return heads % split == 0 and (model.shape.kept.latent or kv_heads % split == 0 or split % kv_heads == 0)


def _check_split(model: Model, split: int) -> None:
    _check("The number of GPUs", split)
    if not _divides(model, split):
        possible = ", ".join(str(number) for number in splits(model, 64)[:10])
        raise SizingError(
            f"{model.shape.heads} attention heads and {model.shape.kv_heads} KV heads cannot be shared by {split} GPUs; "
            f"possible: {possible}."
        )


def _check(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise SizingError(f"{name} must be a whole number from 1 to {_MOST}, not {shown(value)}.")
