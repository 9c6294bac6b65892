"""What commands share: consoles, JSON output, and one-sentence failures."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn, TextIO

import rich_click as click
from click.exceptions import Exit
from rich.console import Console

PROBLEM = 1  # exit code: the command worked and found a problem, or its work failed


_PIPE_WIDTH = 160  # columns of tables that no terminal limits


def out() -> Console:
    """Standard output, for what was asked for."""
    return _console(sys.stdout)


def err() -> Console:
    """Standard error, for progress and problems."""
    return _console(sys.stderr)


def _console(file: TextIO) -> Console:
    told = os.environ.get("COLUMNS")
    return Console(file=file, highlight=False, width=None if told or file.isatty() else _PIPE_WIDTH)


def print_json(value: Any) -> None:
    """One JSON value on standard output, ended by a newline."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def fail(message: str, *, as_json: bool = False, **more: Any) -> NoReturn:
    """End the command with exit code 1 and one sentence that says what to do.

    With ``as_json`` it is on standard output as ``{"error": ...}`` with ``more`` beside it.
    """
    if as_json:
        print_json({"error": message, **more})
    else:
        click.echo(f"Error: {message}", err=True)
    raise Exit(PROBLEM)
