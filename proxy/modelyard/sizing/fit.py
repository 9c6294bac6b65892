"""Does a model fit on a host's GPUs, on how many, with how long a context and how many requests, and if not, why?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from modelyard.errors import SizingError
from modelyard.sizing.estimate import Estimate, Request, estimate, splits
from modelyard.sizing.model import Model

GIB = 2**30
UTILIZATION = 0.9  # --gpu-memory-utilization of vLLM
NO_MEMORY = "how much memory its GPUs have is not declared (fleet_gpu_memory_gib), so nobody can tell"
_MOST_TOKENS = 2**24  # where a model names no longest context
_MOST_REQUESTS = 10**6


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of one host that models may have: how many, and the memory of each in GiB, None where it is unknown.

    ``barred`` says why the model may not be placed there; empty where it may. ``unwell`` are GPUs besides that no new
    replica gets.
    """

    host: str
    count: int
    memory_gib: float | None
    barred: str = ""
    unwell: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model's need besides the estimate, in bytes on each GPU.

    ``declared`` is the operator's word (0: any GPU will do), ``measured`` what an engine that takes only what it needs was
    seen to use, ``proved`` the memory of a GPU on which the model has run.
    """

    declared: int | None = None
    measured: int | None = None
    proved: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict for one host. ``fits`` is None where nobody can tell.

    ``gpus`` is the number of GPUs that one replica needs, ``max_model_len`` the longest context in tokens at the
    concurrency asked for, ``max_concurrency`` the most requests at the length asked for. ``reason`` is one sentence.
    """

    host: str
    count: int
    memory_gib: float | None
    fits: bool | None
    reason: str
    gpus: int | None = None
    max_model_len: int | None = None
    max_concurrency: int | None = None
    needs: Estimate | None = None


def judge(
    model: Model, request: Request, host: Gpus, *, utilization: float = UTILIZATION, fixed: bool = False
) -> Fit:
    """Whether a model fits on a host. ``utilization`` is the share of a GPU's memory that the engine may use.

    The smallest number of GPUs that does is taken, or with ``fixed`` the request's own ``tensor_parallel``. Raises
    SizingError for a request that the model cannot have.
    """
    check_utilization(utilization)
    if host.memory_gib is not None and not 0 < host.memory_gib <= 10**6:
        raise SizingError(f"{host.host}: {host.memory_gib:g} GiB is no memory of a GPU.")
    verdict = Fit(host.host, host.count, host.memory_gib, False, "")
    if host.barred:
        return replace(verdict, reason=f"{host.host}: {host.barred}.")
    if host.count < 1:
        return replace(verdict, reason=f"{host.host} has no GPUs for models{_unwell(host)}.")
    numbers = [request.tensor_parallel] if fixed else splits(model, host.count)
    if fixed and request.tensor_parallel > host.count:
        return replace(
            verdict,
            reason=f"{host.host} has {_counted(host.count, 'GPU')}{_unwell(host)}, and the model is to be shared by "
            f"{request.tensor_parallel}.",
        )
    if host.memory_gib is None:
        return replace(verdict, fits=None, reason=f"{host.host}: {NO_MEMORY}.")
    budget = budget_bytes(int(host.memory_gib * GIB), utilization)
    needed = [estimate(model, replace(request, tensor_parallel=number)) for number in numbers]
    there = int(host.memory_gib * GIB)
    for needs in needed:
        if required_bytes(needs.per_gpu.total, utilization) <= there:
            return _fitting(verdict, model, request, needs, budget)
    told = _why_not(model, request, needed[-1], budget, host)
    if fixed:
        told += _elsewhere(model, request, host, budget)
    return replace(verdict, needs=needed[-1], reason=told)


def corrected(verdict: Fit, request: Request, host: Gpus, known: Known) -> Fit:
    """The verdict by what is known besides, which goes before the estimate; ``request`` says how many GPUs share it."""
    split = request.tensor_parallel
    if host.barred or host.memory_gib is None or split > host.count:
        return verdict
    there, on = int(host.memory_gib * GIB), _counted(split, "GPU")
    for least, who in ((known.declared, "placement.gpu_memory_gib"), (known.measured, "what was measured")):
        if least is None:
            continue
        fits = there >= least
        told = f"{host.host}: {'fits' if fits else 'does not fit'} on {on} by {who}: "
        told += f"{gib(least)} on each, and {'it has' if split == 1 else 'they have'} {gib(there)}."
        return replace(verdict, fits=fits, gpus=split if fits else None, reason=told)
    if not verdict.fits and known.proved is not None and there >= known.proved:
        told = f"{host.host}: fits on {on}: it has run on {'one' if split == 1 else 'such'} of {gib(known.proved)}, "
        return replace(verdict, fits=True, gpus=split, reason=told + "whatever the estimate says.")
    return verdict


def check_utilization(utilization: float) -> None:
    """SizingError unless it is a share of the memory."""
    if not 0 < utilization <= 1:
        raise SizingError(f"The share of GPU memory must be above 0 and at most 1, not {utilization:g}.")


def budget_bytes(memory: int, utilization: float) -> int:
    """What the engine may use of a GPU's memory."""
    return int(memory * utilization)


def required_bytes(total: int, utilization: float) -> int:
    """The least memory of a GPU of which the engine may use ``total`` bytes."""
    least = math.ceil(total / utilization)
    while budget_bytes(least, utilization) < total:  # what dividing has rounded away
        least += 1
    while least > 0 and budget_bytes(least - 1, utilization) >= total:
        least -= 1
    return least


def longest_context(model: Model, request: Request, budget: int) -> int:
    """The longest context in tokens that fits into ``budget`` bytes on each GPU; 0 when none does."""
    most = model.shape.context or _MOST_TOKENS
    return _largest(
        max(most, request.max_model_len or 0),
        lambda length: estimate(model, replace(request, max_model_len=length)).per_gpu.total <= budget,
    )


def largest_concurrency(model: Model, request: Request, budget: int) -> int:
    """The most requests of the length asked for that fit into ``budget`` bytes on each GPU; 0 when none does."""
    return _largest(
        _MOST_REQUESTS,
        lambda number: estimate(model, replace(request, concurrency=number)).per_gpu.total <= budget,
    )


def gib(count: int) -> str:
    """Bytes as GiB with one digit; as MiB where that would show next to nothing."""
    return f"{count / GIB:.1f} GiB" if count >= GIB // 10 else f"{count / 2**20:.1f} MiB"


def _unwell(host: Gpus) -> str:
    return f" well and {host.unwell} that {'are' if host.unwell > 1 else 'is'} not" if host.unwell else ""


def _fitting(verdict: Fit, model: Model, request: Request, needs: Estimate, budget: int) -> Fit:
    shared = replace(request, tensor_parallel=needs.tensor_parallel)
    length, number = longest_context(model, shared, budget), largest_concurrency(model, shared, budget)
    on = _counted(needs.tensor_parallel, "GPU")
    return replace(
        verdict,
        fits=True,
        gpus=needs.tensor_parallel,
        max_model_len=length,
        max_concurrency=number,
        needs=needs,
        reason=f"{verdict.host}: fits on {on}: {gib(needs.per_gpu.total)} of {gib(budget)} that the engine may use on "
        f"each; up to {_counted(length, 'token')} for {_counted(needs.concurrency, 'request')} at once, or "
        f"{_counted(number, 'request')} of {_counted(needs.max_model_len, 'token')}.",
    )


def _why_not(model: Model, request: Request, needs: Estimate, budget: int, host: Gpus) -> str:
    """Why the model does not fit on the most GPUs that it can be shared by there."""
    split, share = needs.tensor_parallel, needs.per_gpu
    on = f"on each of {split} GPUs" if split > 1 else "on one GPU"
    begin = f"{host.host}: needs {gib(share.total)} {on}, and the engine may use {gib(budget)}: "
    if share.weights + share.overhead > budget:
        told = f"weights ({gib(share.weights)}) and overhead ({gib(share.overhead)}) alone are too much"
    else:
        left = budget - share.weights - share.overhead
        told = f"the KV cache of {_counted(needs.concurrency, 'request')} of {_counted(needs.max_model_len, 'token')} "
        told += f"takes {gib(share.kv)}, and {gib(left)} are left"
        shared = replace(request, tensor_parallel=split)
        length, number = longest_context(model, shared, budget), largest_concurrency(model, shared, budget)
        ways = [f"{_counted(length, 'token')} for {_counted(needs.concurrency, 'request')}"] if length else []
        ways += (
            [f"{_counted(number, 'request')} of {_counted(needs.max_model_len, 'token')}"] if number else []
        )
        told += f", enough for {' or '.join(ways)}" if ways else ""
    if split < host.count and not _can_grow(model, split, host.count):
        heads = model.shape.heads
        told += f"; it cannot be shared by more of its {host.count} GPUs, whose number must divide {heads} attention heads"
    return begin + told + "."


def _elsewhere(model: Model, request: Request, host: Gpus, budget: int) -> str:
    """The other number of GPUs of the host on which it would fit."""
    for number in splits(model, host.count):
        if estimate(model, replace(request, tensor_parallel=number)).per_gpu.total <= budget:
            return f" It would fit on {_counted(number, 'GPU')} there."
    return ""


def _can_grow(model: Model, split: int, count: int) -> bool:
    return any(number > split for number in splits(model, count))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 1 to ``most`` that fits, where all below one that fits do too; 0 for none."""
    if not fits(1):
        return 0
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' if number != 1 else ''}"
