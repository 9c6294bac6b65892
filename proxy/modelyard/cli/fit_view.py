"""How ``modelyard fit`` shows what it found: two tables and a sentence for each host, or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelyard.cli.tables import cell
from modelyard.sizing import Estimate, Fit, Model, Request, gib

_ORIGINS = {
    "index": "read from the index of the weights",
    "files": "the size of the weight files",
    "config": "counted from config.json",
}
_VERDICTS = {True: ("fits", "green"), False: ("does not fit", "red"), None: ("unknown", "magenta")}


def as_data(
    name: str, model: Model, request: Request, needs: Estimate, verdicts: Sequence[Fit], share: float
) -> dict[str, Any]:
    """Everything for programs; sizes in bytes."""
    return {
        "model": name,
        "architecture": model.shape.family,
        "parameters": model.parameters,
        "quantization": model.quantization,
        "weights_from": model.origin,
        "asked": {
            "max_model_len": needs.max_model_len,
            "concurrency": needs.concurrency,
            "tensor_parallel": needs.tensor_parallel,
            "kv_dtype": request.kv_dtype,
            "gpu_memory_utilization": share,
        },
        "kv_bytes_per_token": needs.kv_bytes_per_token,
        "total_bytes": _parts(needs.total),
        "per_gpu_bytes": _parts(needs.per_gpu),
        "hosts": [_verdict(one) for one in verdicts],
        "fits": [one.host for one in verdicts if one.fits],
        "remarks": list(model.remarks),
    }


def _parts(share: Any) -> dict[str, int]:
    return {**asdict(share), "total": share.total}


def _verdict(one: Fit) -> dict[str, Any]:
    return {
        "host": one.host,
        "gpus": one.count,
        "memory_gib": one.memory_gib,
        "fits": one.fits,
        "gpus_needed": one.gpus,
        "longest_context": one.max_model_len,
        "largest_concurrency": one.max_concurrency,
        "per_gpu_bytes": _parts(one.needs.per_gpu) if one.needs is not None else None,
        "reason": one.reason,
    }


def render_fit(
    console: Console,
    name: str,
    model: Model,
    request: Request,
    needs: Estimate,
    verdicts: Sequence[Fit],
    share: float,
) -> None:
    """What the model needs, then the hosts, then one sentence for each."""
    console.print(_needs_table(name, model, request, needs))
    for remark in model.remarks:
        console.print(Text(remark, style="yellow"), soft_wrap=True)
    if not verdicts:
        console.print(
            Text(
                "No GPUs were named: say -i INVENTORY or --gpu NAME:GIBxN to see where it fits.", style="dim"
            ),
            soft_wrap=True,
        )
        return
    table = Table(
        title=f"Where it fits, using {share:.0%} of each GPU", title_justify="left", title_style="bold"
    )
    for column in ("host", "GPUs", "GiB each", "", "on GPUs", "longest context", "most requests"):
        table.add_column(column, overflow="fold", no_wrap=column == "host")
    for one in verdicts:
        word, style = _VERDICTS[one.fits]
        memory = "unknown" if one.memory_gib is None else f"{one.memory_gib:g}"
        table.add_row(
            Text(one.host), cell(one.count), Text(memory), Text(word, style=style), cell(one.gpus),
            cell(one.max_model_len), cell(one.max_concurrency),
        )  # fmt: skip
    console.print(table)
    for one in verdicts:
        console.print(Text(one.reason), soft_wrap=True)


def _needs_table(name: str, model: Model, request: Request, needs: Estimate) -> Table:
    about = model.shape.family + (f", {model.quantization}" if model.quantization else "")
    if model.parameters is not None:
        about += f", {model.parameters / 1e9:.3g} billion parameters"
    table = Table(title=Text(f"{name} ({about})"), title_justify="left", title_style="bold")
    table.add_column("needs", no_wrap=True)
    split = needs.tensor_parallel
    table.add_column("in all" if split > 1 else "one GPU", justify="right", no_wrap=True)
    if split > 1:
        table.add_column(f"each of {split} GPUs", justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    total, each = needs.total, needs.per_gpu
    long = f"{needs.concurrency} x {needs.max_model_len} tokens, {request.kv_dtype}"
    lines = (
        ("weights", total.weights, each.weights, _ORIGINS[model.origin]),
        ("KV cache", total.kv, each.kv, f"{long}; {needs.kv_bytes_per_token / 1024:g} KiB for each token"),
        (
            "overhead",
            total.overhead,
            each.overhead,
            "activations, sampler, CUDA's context, libraries and graphs",
        ),
        ("sum", total.total, each.total, "beside what other programs use"),
    )
    for what, whole, part, means in lines:
        style = "bold" if what == "sum" else ""
        sizes = [gib(whole), gib(part)] if split > 1 else [gib(whole)]
        table.add_row(
            Text(what, style=style), *(Text(size, style=style) for size in sizes), Text(means, style="dim")
        )
    return table
