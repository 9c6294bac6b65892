"""``modelyard serve``: run the proxy."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from aiohttp import web

from modelyard.errors import ConfigError
from modelyard.gateway.app import create_app, first_registry
from modelyard.gateway.server import ProxyServer
from modelyard.settings import Setting, Settings, load_settings, read_environment, settings_table

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _settings_options(command: CommandT) -> CommandT:
    """One option for each row of the settings table. Values are checked by the table's own reader."""
    for row in reversed(settings_table()):
        flags = f"{row.flag}/--no-{row.flag[2:]}" if row.kind == "switch" else row.flag
        command = click.option(
            flags, row.name, default=None, help=f"{row.help} [{_default(row)}; env {row.env}]", **_shown(row)
        )(command)
    return command


def _shown(row: Setting) -> dict[str, Any]:
    if row.kind == "switch":
        return {"is_flag": True}
    return {"metavar": {"list": "LIST", "path": "FILE", "integer": "N", "number": "N"}.get(row.kind, "TEXT")}


def _default(row: Setting) -> str:
    shown = ",".join(row.default) if isinstance(row.default, tuple) else row.default
    return f"default {'none' if shown in (None, '') else shown}"


@click.command()
@_settings_options
@click.option("--check", is_flag=True, help="Check settings and registry, print them, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def serve(check: bool, as_json: bool, **flags: Any) -> None:
    """Run the proxy.

    The models come from a registry file (--registry), or from variables TGI_<NAME>_ENDPOINT in the
    environment or in a file .env of the working directory.
    """
    environment = read_environment(os.environ, Path.cwd())
    settings = load_settings(environment, flags)
    registry, source, version = first_registry(settings, environment)
    app = create_app(settings, registry, source=source, version=version)
    facts = {
        "source": source,
        "generation": registry.generation,
        "models": {model.id: [item.url for item in model.endpoints] for model in registry.models.values()},
    }
    if check:
        _print_check(settings, facts, as_json)
        return
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    _run(app, settings, facts, as_json)


def _print_check(settings: Settings, facts: dict[str, Any], as_json: bool) -> None:
    values = {row.name: getattr(settings, row.name) for row in settings_table()}
    if as_json:
        click.echo(json.dumps({"settings": values, **facts}, indent=2, default=str))
        return
    for name, value in values.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        click.echo(f"{name:20} {'-' if shown in (None, '') else shown}")
    click.echo(f"\n{facts['source']}: valid, generation {facts['generation']}")
    for model, urls in facts["models"].items():
        click.echo(f"  {model}: {', '.join(urls) or 'no endpoints'}")


def _run(app: web.Application, settings: Settings, facts: dict[str, Any], as_json: bool) -> None:
    try:
        import uvloop
    except ImportError:  # it does not exist for every platform
        factory = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(app, settings, facts, as_json))


async def _serve(app: web.Application, settings: Settings, facts: dict[str, Any], as_json: bool) -> None:
    server = ProxyServer(app)
    try:
        url = await server.start()
    except OSError as exc:
        raise ConfigError(_why_not(settings, exc)) from exc
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        # the second signal means it
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if as_json:
        click.echo(json.dumps({"url": url, **facts}))
    else:
        names = ", ".join(facts["models"]) or "no models yet"
        click.echo(f"listening on {url} ({names}; from {facts['source']})")
    await stop.wait()
    report = await server.stop(hurry)
    if as_json:
        click.echo(json.dumps({"stopped": True, "running": report.running, "cut": report.cut}))
    else:
        click.echo(f"stopped: {report.running - report.cut} requests finished, {report.cut} cut")


def _why_not(settings: Settings, error: OSError) -> str:
    place = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program; stop that one or choose another port with --port"
    if error.errno == errno.EACCES:
        return f"{place} may not be used by this user; choose a port of 1024 or above with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{place} is no address of this machine; choose another with --host"
    return f"cannot listen on {place}: {error.strerror or error}"
