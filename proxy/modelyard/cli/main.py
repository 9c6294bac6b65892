"""The entry point ``modelyard``. Each command lives in its own module, which is imported only when it is
asked for.
"""

from __future__ import annotations

import sys
from importlib import import_module

import rich_click as click

from modelyard import __version__
from modelyard.errors import ConfigError, ModelyardError

# command -> (module, attribute, one line of help); the help stands here so that listing imports nothing
COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("modelyard.cli.serve", "serve", "Run the proxy."),
}


class LazyGroup(click.RichGroup):
    """A group that knows its commands by table and imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; ``None`` when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry[0]), entry[1])
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry[0]}.{entry[1]} is no command")
        return command


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="modelyard")
def cli() -> None:
    """A few YAML files become a running, routed fleet of language-model servers."""


def main() -> None:
    """Run the command line; an error of ours is told in plain words and ends with exit code 1."""
    try:
        cli.main(standalone_mode=True)
    except ModelyardError as exc:
        print(f"error: {exc.message}", file=sys.stderr)
        if isinstance(exc, ConfigError):
            for problem in exc.problems:
                print(f"  {problem}", file=sys.stderr)
        sys.exit(1)
