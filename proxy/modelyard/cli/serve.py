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
from typing import Any, Protocol, TypeVar

import rich_click as click

from modelyard.errors import ConfigError
from modelyard.gateway.app import create_app, first_registry
from modelyard.gateway.build import is_compiled
from modelyard.gateway.server import ProxyServer, ShutdownReport
from modelyard.gateway.workers.supervisor import Supervisor
from modelyard.gateway.workers.watch import FleetWatch
from modelyard.gateway.workers.worker import loop_factory
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
    return {
        "metavar": {"list": "LIST", "path": "FILE", "integer": "N", "number": "N", "url": "URL"}.get(
            row.kind, "TEXT"
        )
    }


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
    # also where each worker will make its own: what is wrong is told before any begins
    app = create_app(settings, registry, source=source, version=version)
    facts = {
        "source": source,
        "generation": registry.generation,
        "compiled": is_compiled(),
        "models": {model.id: [item.url for item in model.endpoints] for model in registry.models.values()},
    }
    if check:
        _print_check(settings, facts, as_json)
        return
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    workers = settings.workers or os.cpu_count() or 1

    def make() -> _Server:
        if workers == 1:
            return ProxyServer(app)
        return Supervisor(settings, FleetWatch(settings, registry, source, version), environment, workers)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(make, settings, facts, as_json))


class _Server(Protocol):
    """One process or several, started and stopped alike."""

    async def start(self) -> str:
        """Listen; returns the base URL."""

    async def stop(self, hurry: asyncio.Event) -> ShutdownReport:
        """End in good order, or at once when ``hurry`` is set."""

    def hang_up(self) -> None:
        """SIGHUP came."""


def _print_check(settings: Settings, facts: dict[str, Any], as_json: bool) -> None:
    values = {row.name: getattr(settings, row.name) for row in settings_table()}
    if as_json:
        click.echo(json.dumps({"settings": values, **facts}, indent=2, default=str))
        return
    for name, value in values.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        click.echo(f"{name:20} {'-' if shown in (None, '') else shown}")
    click.echo(f"\nthe path of requests is {'machine code' if facts['compiled'] else 'interpreted'}")
    click.echo(f"{facts['source']}: valid, generation {facts['generation']}")
    for model, urls in facts["models"].items():
        click.echo(f"  {model}: {', '.join(urls) or 'no endpoints'}")


async def _serve(
    make: Callable[[], _Server], settings: Settings, facts: dict[str, Any], as_json: bool
) -> None:
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        # the second signal means it
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    server = make()
    try:
        url = await server.start()
    except OSError as exc:
        raise ConfigError(_why_not(settings, exc)) from exc
    if settings.access_log_file is not None:
        loop.add_signal_handler(signal.SIGHUP, server.hang_up)
    if as_json:
        click.echo(json.dumps({"url": url, **facts}))
    else:
        names = ", ".join(facts["models"]) or "no models yet"
        click.echo(f"listening on {url} ({names}; from {facts['source']})")
    await stop.wait()
    report = await server.stop(hurry)
    if as_json:
        facts = {"running": report.running, "cut": report.cut, "models": dict(report.models)}
        click.echo(json.dumps({"stopped": True, **facts}))
    else:
        click.echo(f"stopped: {report}")


def _why_not(settings: Settings, error: OSError) -> str:
    place = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program; stop that one or choose another port with --port"
    if error.errno == errno.EACCES:
        return f"{place} may not be used by this user; choose a port of 1024 or above with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{place} is no address of this machine; choose another with --host"
    return f"cannot listen on {place}: {error.strerror or error}"
