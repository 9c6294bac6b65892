"""``modelyard fit``: how much GPU memory a model needs, and on which hosts it fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import rich_click as click
from click.exceptions import Exit

from modelyard.cli.console import PROBLEM, fail, out, print_json
from modelyard.cli.fit_inputs import Wished, fleet, gpus_of, model_path, wished, with_remark
from modelyard.cli.fit_view import as_data, render_fit
from modelyard.cli.verbs import DEFAULT_INVENTORY
from modelyard.errors import ConfigError
from modelyard.sizing import (
    KV_DTYPES,
    UTILIZATION,
    Fit,
    Model,
    Request,
    asked_of,
    check_utilization,
    corrected,
    estimate,
    judge,
    model_at,
)

NOWHERE = 2  # exit code: it fits on none of the hosts


@click.command()
@click.argument("name", metavar="MODEL")
@click.option(
    "--max-model-len", type=int, metavar="TOKENS", help="Context of a request; default: the model's longest."
)
@click.option(
    "--concurrency",
    type=int,
    metavar="N",
    help="Such requests at once; default: what the inventory says, else 1.",
)
@click.option(
    "--tensor-parallel", type=int, metavar="N",
    help="GPUs of one replica; default: what the inventory says of the model, else the fewest that do.",
)  # fmt: skip
@click.option("--kv-dtype", type=click.Choice(list(KV_DTYPES)), help="Type of the KV cache; default: auto.")
@click.option(
    "--gpu-memory-utilization", "utilization", type=float, metavar="SHARE",
    help=f"Share of each GPU that the engine may use; default: {UTILIZATION}, as vLLM's.",
)  # fmt: skip
@click.option(
    "--gpu", "gpus", multiple=True, metavar="NAME:GIB[xN]",
    help="GPUs that are in no inventory, such as h100:79.6x8; may be repeated.",
)  # fmt: skip
@click.option(
    "-i", "--inventory", metavar="PATH", envvar="MODELYARD_INVENTORY", show_envvar=True,
    help=f"Inventory whose hosts are judged; default for a model's id: {DEFAULT_INVENTORY}.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Print the whole result as one JSON object, sizes in bytes."
)
def fit(
    name: str,
    max_model_len: int | None,
    concurrency: int | None,
    tensor_parallel: int | None,
    kv_dtype: str | None,
    utilization: float | None,
    gpus: tuple[str, ...],
    inventory: str | None,
    as_json: bool,
) -> None:
    """Estimate how much GPU memory MODEL needs and on which hosts it fits. Touches no host.

    MODEL is a directory with a config.json, a config.json, or the id of a model of the inventory whose source is
    a path that is on this machine.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard fit /srv/models/qwen2.5-7b[/cyan]                    what it needs
      [cyan]modelyard fit ./config.json --gpu h100:79.6x8 --gpu l40s:44.5x4 --concurrency 16[/cyan]
      [cyan]modelyard fit qwen2.5-7b -i inventories/production[/cyan]      as the inventory declares it
      [cyan]modelyard fit qwen2.5-7b -i inventories/production --max-model-len 32768 --kv-dtype fp8[/cyan]

    Weights are read from model.safetensors.index.json or the weight files, else counted from config.json for
    families that are known. A host's GPUs are those that the last deploy saw, else fleet_gpu_memory_gib says their memory;
    without both nobody can tell. Plans go by the same figures.
    It is an estimate by vLLM's rules; the start of an engine has the last word.
    Exit code 0: it fits somewhere, or no GPUs were named. 2: it fits nowhere. 1: nobody can tell, or bad input.
    """  # noqa: D301
    try:
        here = model_path(name)
        hosts = [gpus_of(given) for given in gpus]
        found = fleet(inventory or DEFAULT_INVENTORY, as_json=as_json) if inventory or here is None else None
        item = wished(found, name, Path.cwd()) if found is not None and here is None else None
        model = with_remark(_model(here, item), item)
        asked = Request(
            max_model_len=max_model_len,
            concurrency=concurrency
            if concurrency is not None
            else item.concurrency
            if item is not None
            else 1,
            tensor_parallel=tensor_parallel or 1,
        )
        request, share = asked_of(
            item.args if item is not None else {},
            item.gpus if item is not None else None,
            asked,
            tensor_parallel=tensor_parallel,
            kv_dtype=kv_dtype,
            utilization=utilization,
        )
        check_utilization(share)
        fixed = tensor_parallel is not None or item is not None
        hosts += found.gpus(item) if found is not None else []
        verdicts = [judge(model, request, host, utilization=share, fixed=fixed) for host in hosts]
        as_wished = (max_model_len, concurrency, tensor_parallel, kv_dtype, utilization) == (None,) * 5
        if item is not None and as_wished:  # of another wish nothing has been declared or measured
            verdicts = [
                corrected(one, request, host, item.known) for one, host in zip(verdicts, hosts, strict=True)
            ]
        _tell(name, model, request, verdicts, share, fixed=fixed, as_json=as_json)
    except ConfigError as exc:
        fail(exc.message, as_json=as_json)
    _leave(verdicts)


def _model(here: Path | None, item: Wished | None) -> Model:
    if here is not None:
        return model_at(here)
    if item is None:  # a model that is no path comes from an inventory
        raise ConfigError("There is no such model.")
    return item.model()


def _tell(
    name: str,
    model: Model,
    request: Request,
    verdicts: list[Fit],
    share: float,
    *,
    fixed: bool,
    as_json: bool,
) -> None:
    """Print what the model needs, shared as it would run, and the verdicts."""
    shared = next((one.gpus for one in verdicts if one.fits and one.gpus), None)
    needs = estimate(model, request if fixed or shared is None else replace(request, tensor_parallel=shared))
    if as_json:
        print_json(as_data(name, model, request, needs, verdicts, share))
    else:
        render_fit(out(), name, model, request, needs, verdicts, share)


def _leave(verdicts: list[Fit]) -> None:
    """The exit code of the verdicts."""
    if not verdicts or any(one.fits for one in verdicts):
        return
    raise Exit(PROBLEM if any(one.fits is None for one in verdicts) else NOWHERE)
