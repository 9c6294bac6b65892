"""The command ``modelyard``: a table of names, each loaded only when it is called.

Listing and completing commands import nothing but this module, so they answer at once and work where a
command's own needs (Ansible, for one) are not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import rich_click as click
from click.exceptions import Exit

from modelyard import __version__
from modelyard.cli.console import PROBLEM
from modelyard.errors import ConfigError, ModelyardError


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives (``module:attribute``) and the line that lists it."""

    target: str
    summary: str


COMMANDS: Mapping[str, Entry] = {
    "serve": Entry("modelyard.cli.serve:serve", "Run the proxy: one address in front of all replicas."),
    "echo": Entry("modelyard.cli.echo:echo", "Run a small engine that answers with the prompt's words."),
    "chat": Entry("modelyard.cli.chat:chat", "Talk to a model through the proxy."),
    "chaos": Entry("modelyard.cli.chaos:chaos", "Show that the proxy stands engines that misbehave."),
    "check": Entry("modelyard.cli.check:check", "Check an inventory or an endpoint registry."),
    "plan": Entry("modelyard.cli.plan:plan", "Show what a deployment would start, stop and replace."),
    "fit": Entry("modelyard.cli.fit:fit", "Estimate a model's GPU memory, and where it fits."),
    "import": Entry("modelyard.cli.imports:import_", "Write an inventory from what runs already."),
    "export": Entry("modelyard.cli.export:export", "Write a registry as another program's configuration."),
    "bundle": Entry("modelyard.cli.bundle:bundle", "Take a fleet's needs into a closed network."),
    "drift": Entry("modelyard.cli.drift:drift", "Compare what runs with what is declared."),
    "security": Entry("modelyard.cli.security:security", "Look for weaknesses of hosts and containers."),
    "doctor": Entry("modelyard.cli.doctor:doctor", "Find what is wrong with hosts, GPUs and replicas."),
    "requests": Entry("modelyard.cli.proxy_views:requests", "Show what a proxy is serving now."),
    "replicas": Entry("modelyard.cli.proxy_views:replicas", "Show what a proxy knows of every replica."),
    "explain": Entry("modelyard.cli.proxy_views:explain", "Show where a request would go now, and why."),
    "history": Entry("modelyard.cli.history:history", "Show what was applied to each model, and when."),
    "status": Entry("modelyard.cli.status:status", "Show what runs on every host."),
    "logs": Entry("modelyard.cli.logs:logs", "Show the log of one replica's engine, and follow it."),
    "tour": Entry(
        "modelyard.cli.tour:tour", "Show what runs, let every model answer, print requests to try."
    ),
}


def load(name: str) -> click.Command:
    """Import one command of the table; KeyError for a name that is not in it."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command


class LazyGroup(click.RichGroup):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The name and its summary, enough for lists and completion."""
        entry = COMMANDS.get(cmd_name)
        return click.RichCommand(name=cmd_name, short_help=entry.summary) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is about to run, imported."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(name) if name is not None else None, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours ends it with exit code 1 and is told in plain words."""
        try:
            return super().invoke(ctx)
        except ModelyardError as exc:
            click.echo(f"Error: {exc.message}", err=True)
            for problem in exc.problems if isinstance(exc, ConfigError) else ():
                click.echo(f"  {problem}", err=True)
            raise Exit(PROBLEM) from exc


_HELP: dict[str, Any] = {"text_markup": "rich", "max_width": 100}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.rich_config(_HELP)
@click.version_option(__version__, "-V", "--version", prog_name="modelyard")
def main() -> None:
    """Declarative fleets of language-model servers, and the proxy in front of them.

    \b
    [bold]Two lines to a first answer[/bold], no GPU and no weights needed:
      [cyan]make up[/cyan]                              two echo replicas and a proxy, here
      [cyan]modelyard chat echo "Hello, world!"[/cyan]  an answer through the proxy

    \b
    [bold]Day by day[/bold]
      [cyan]modelyard check inventories/local[/cyan]    is the wish in order?
      [cyan]modelyard plan -i inventories/local[/cyan]  what would a deployment change?
      [cyan]ansible-playbook -i inventories/local playbooks/site.yml[/cyan]
      [cyan]modelyard status -i inventories/local[/cyan]

    \b
    [bold]Only the proxy, in front of engines that already run[/bold]
      [cyan]modelyard check endpoints.yml[/cyan]
      [cyan]modelyard serve --registry endpoints.yml[/cyan]

    Every command has --help and --json. Exit codes: 0 all is well, 1 a problem was found, 2 the command was
    called wrongly.
    """  # noqa: D301
