"""``modelyard export``: a registry as the configuration of another program."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from modelyard.cli.console import fail, print_json
from modelyard.errors import ModelyardError
from modelyard.registry.exports import FORMATS
from modelyard.registry.exports import export as rendered
from modelyard.registry.load import load_file


@click.command()
@click.argument("form", metavar="FORMAT", type=click.Choice(list(FORMATS)))
@click.option(
    "--registry", required=True, metavar="FILE", envvar="MODELYARD_REGISTRY", show_envvar=True,
    type=click.Path(path_type=Path), help="Endpoint registry to export.",
)  # fmt: skip
@click.option("--model", "models", multiple=True, metavar="ID", help="Only this model; may be repeated.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, replaced in one step; without it the text is printed.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object that holds the text.")
def export(form: str, registry: Path, models: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Print a registry's replicas as HAProxy backends, nginx upstreams, Prometheus targets and more.

    FORMAT is haproxy, nginx, file_sd (Prometheus), litellm (its model_list) or llm_d (its endpoints.yaml).

    \b
    [bold]Examples[/bold]
      [cyan]modelyard export haproxy --registry endpoints.yml -o /etc/haproxy/modelyard.cfg[/cyan]
      [cyan]modelyard export llm_d --registry endpoints.yml --model qwen2.5-7b[/cyan]

    What another program cannot say stands in its file as a comment. To have the files written at every
    deployment, set fleet_registry_exports in the inventory.
    """  # noqa: D301
    try:
        text = rendered(load_file(registry), form, models)
    except ModelyardError as exc:
        fail("\n  ".join([exc.message, *getattr(exc, "problems", ())]), as_json=as_json)
    if output is not None:
        try:
            _write(output, text)
        except OSError as exc:
            fail(f"{output} cannot be written: {exc.strerror or exc}.", as_json=as_json)
    if as_json:
        print_json({"format": form, "output": str(output) if output else None, "text": text})
    elif output is None:
        click.echo(text, nl=False)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, so that a reader never meets a part. Raises OSError."""
    part = path.with_name(f".{path.name}.new")
    try:
        part.write_text(text, encoding="utf-8")
        if path.exists():
            part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
