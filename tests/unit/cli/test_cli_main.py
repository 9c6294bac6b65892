from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from modelyard import __version__
from modelyard.cli.main import COMMANDS, load, main
from modelyard.errors import ConfigError

PRESENT = [name for name, entry in COMMANDS.items() if find_spec(entry.target.partition(":")[0])]


def modelyard(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "modelyard", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", PRESENT)
def test_commands_of_the_table_exist_and_explain_themselves(name: str) -> None:
    assert load(name).name == name
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0
    assert "--json" in done.output


def test_help_lists_every_command_and_teaches_the_start() -> None:
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    for name, entry in COMMANDS.items():
        assert name in done.output
        assert entry.summary in done.output
    assert "make up" in done.output


def test_the_table_costs_no_import() -> None:
    """Listing and completing stay fast, and work where a command's own needs are missing."""
    code = (
        "import sys; from modelyard.cli.main import main; from click.testing import CliRunner;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "print([name for name in ('aiohttp', 'ansible_runner', 'jsonschema') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_version() -> None:
    done = modelyard("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"modelyard, version {__version__}")


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["echo", "--port", "65536"], ["echo", "--delay", "-1"], ["echo", "--model", " "]],
)
def test_wrong_calls_end_with_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "Error" in done.output


def test_errors_of_ours_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ConfigError("it is broken", ["here", "and there"])

    monkeypatch.setattr(load("echo"), "invoke", broken)
    done = CliRunner().invoke(main, ["echo"])
    assert done.exit_code == 1
    assert done.stderr == "Error: it is broken\n  here\n  and there\n"
