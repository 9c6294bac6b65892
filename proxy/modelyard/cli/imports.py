"""``modelyard import``: an inventory from what runs already, or is written down for another tool."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console
from rich.text import Text

from modelyard.cli.console import fail, out, print_json
from modelyard.errors import ConfigError
from modelyard.importing import compose, docker, litellm, llama_swap, production_stack
from modelyard.importing.files import texts, write
from modelyard.importing.found import Found, UnreadableError
from modelyard.importing.gather import Inventory, gather

_TIMEOUT_S = 60

# from a text and its name to what is in it
READERS: dict[str, Callable[[str, str], Found]] = {
    "docker": docker.from_inspect,
    "compose": compose.from_compose,
    "litellm": litellm.from_config,
    "llama-swap": llama_swap.from_config,
    "production-stack": production_stack.from_values,
}


@click.command(name="import")
@click.argument("kind", metavar="KIND", type=click.Choice(list(READERS)))
@click.argument("source", metavar="[INPUT]", required=False)
@click.option(
    "-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Directory for the inventory.",
)  # fmt: skip
@click.option("--host", metavar="NAME", help="Name of the host in the inventory; without it, this machine.")
@click.option("--address", metavar="IP", help="IP address under which proxies reach the host.")
@click.option("--gpus", metavar="N", type=click.IntRange(0, 64), help="How many GPUs the host has.")
@click.option("--force", is_flag=True, help="Replace the inventory in a directory that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def import_(
    kind: str, source: str | None, output: Path, host: str | None, address: str | None, gpus: int | None,
    force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write an inventory from containers that run, a compose file, or another tool's configuration.

    KIND is docker, compose, litellm, llama-swap or production-stack. INPUT is a file, or - for standard input. For
    docker it may be left out: the containers of this machine are asked; else it is what
    docker inspect $(docker ps -q) prints.

    \b
    [bold]Examples[/bold]
      [cyan]modelyard import docker -o inventories/mine[/cyan]
      [cyan]ssh gpu01 'docker inspect $(docker ps -q)' > gpu01.json[/cyan]
      [cyan]modelyard import docker gpu01.json --host gpu01 --address 10.0.0.11 -o inventories/mine[/cyan]
      [cyan]modelyard import compose compose.yml -o inventories/mine[/cyan]

    Containers that run are adopted: deploying the inventory restarts none of them. Secrets are not written: they
    become variables of the vault. What cannot be taken over is told.
    """  # noqa: D301
    try:
        _check_address(address)
        found = _read(kind, source, local=host is None)
        made = gather(found, host or "localhost", address, gpus, local=host is None)
        if not made.models and not made.registry:
            raise ConfigError(
                "There is nothing in it that can be taken over, so nothing was written.", made.skipped
            )
        write(output, texts(made, kind), force=force)
    except ConfigError as exc:
        fail("\n  ".join([exc.message, *exc.problems]), as_json=as_json)
    if as_json:
        print_json(_as_json(made, output))
    else:
        _show(out(), made, output)


def _check_address(address: str | None) -> None:
    if address is not None:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise ConfigError(
                f"--address {address} is no IP address, and Docker publishes ports on addresses."
            ) from error


def _read(kind: str, source: str | None, *, local: bool) -> Found:
    if source is None:
        if kind != "docker":
            raise ConfigError(f"Name the file to import from ({kind}), or - for standard input.")
        return _this_machine()
    if source == "-":
        return READERS[kind](sys.stdin.read(), "standard input")
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    if kind == "compose":
        return compose.from_compose(text, source, beside=path.parent)
    return READERS[kind](text, source)


def _this_machine() -> Found:
    ids = _docker("ps", "--quiet", "--no-trunc").split()
    if not ids:
        raise ConfigError("No container runs on this machine.")
    containers = _docker("inspect", "--type", "container", *ids)
    images = sorted({str(item["Image"]) for item in json.loads(containers)})
    known = {item["Id"]: item for item in json.loads(_docker("image", "inspect", *images))}
    return docker.from_inspect(containers, f"containers of {socket.gethostname()}", known, _text_of)


def _docker(*words: str) -> str:
    try:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"docker {words[0]} cannot be asked: {error}.") from error
    if done.returncode != 0:
        raise ConfigError(f"docker {words[0]} failed: {done.stderr.strip() or done.returncode}.")
    return done.stdout


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _next(made: Inventory, output: Path) -> list[str]:
    steps = list(made.todo)
    if made.vault.where:
        steps.append(
            f"Fill in the secrets of {output}/group_vars/all/vault.yml ({', '.join(sorted(made.vault.where))}), then "
            f"ansible-vault encrypt {output}/group_vars/all/vault.yml"
        )
    steps.append(f"modelyard check {output}")
    if made.models:
        steps += [f"modelyard plan -i {output}", f"ansible-playbook -i {output} playbooks/site.yml"]
    if made.registry is not None:
        steps.append(f"modelyard serve --registry {output}/endpoints.yml   (the proxy alone, at once)")
    return steps


def _as_json(made: Inventory, output: Path) -> dict[str, Any]:
    return {
        "directory": str(output),
        "models": [model["id"] for model in made.models],
        "adopted": [entry["container"] for model in made.models for entry in model.get("adopt", ())],
        "endpoints": sum(len(entry["endpoints"]) for entry in (made.registry or {}).values()),
        "understood": made.understood,
        "skipped": made.skipped,
        "remarks": made.remarks,
        "secrets": made.vault.where,
        "next": _next(made, output),
    }


def _show(console: Console, made: Inventory, output: Path) -> None:
    for title, style, lines in (
        (f"Written to {output}", "bold green", made.understood),
        ("Not taken over", "bold yellow", made.skipped),
        ("Remarks", "bold", made.remarks),
        ("What to do next", "bold", _next(made, output)),
    ):
        if lines:
            console.print(Text(title, style=style), soft_wrap=True)
            for line in lines:
                console.print(Text(f"  {line}"), soft_wrap=True)
