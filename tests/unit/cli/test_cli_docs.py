"""docs/cli.md must name every command and every option, with its default and environment variable."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from test_cli_main import PRESENT

from modelyard.cli.main import COMMANDS, load

TEXT = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    found = re.search(rf"^## `modelyard {name}.*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section on `modelyard {name}`"
    return found.group(0)


def test_every_section_is_a_command() -> None:
    assert set(re.findall(r"^## `modelyard (\w+)", TEXT, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("name", PRESENT)
def test_every_option_is_explained(name: str) -> None:
    text = section(name)
    command = load(name)
    below = command.commands.values() if isinstance(command, click.Group) else ()
    for parameter in [*command.params, *(one for each in below for one in each.params)]:
        if isinstance(parameter, click.Argument):
            assert (parameter.metavar or parameter.name or "").upper() in text
            continue
        for spelling in (*parameter.opts, *parameter.secondary_opts):
            assert f"`{spelling}" in text, f"docs/cli.md does not explain {name} {spelling}"
        if isinstance(parameter.envvar, str):
            assert f"`{parameter.envvar}`" in text
