"""Releases, going back and holds under real playbooks: echo engines as processes on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from modelyard.cli.main import main
from tests.integration.test_local_fleet import Fleet, local_fleet

SECRET = "correct-horse-battery"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with local_fleet(tmp_path_factory.mktemp("r")) as fleet:
        yield fleet


class Operator:
    """Changes the wish, runs playbooks and looks at what is recorded."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.models = fleet.inventory / "group_vars" / "all" / "models.yml"
        self.original = self.models.read_text(encoding="utf-8")
        self.state = fleet.inventory / ".modelyard"

    def wish(self, ttft: float, token: str = SECRET) -> None:
        more = f"    engine: echo\n    args: {{ttft: {ttft}}}\n    env: {{TOKEN: {token}}}\n"
        self.models.write_text(self.original.replace("    engine: echo\n", more), encoding="utf-8")

    def play(self, name: str, *more: str) -> str:
        result = self.fleet.play(name, *more)
        assert result.returncode == 0, result.stdout + result.stderr
        assert not (self.state / "lock").exists()
        return " ".join((result.stdout + result.stderr).split())

    def refused(self, *more: str) -> str:
        result = self.fleet.play("rollback", *more)
        assert result.returncode != 0
        return " ".join((result.stdout + result.stderr).split())

    def releases(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.state / "releases" / "echo.json").read_text())[
            "releases"
        ]
        return found

    def running(self) -> set[str]:
        """The time to the first token that each replica was started with."""
        found = set()
        for path in (self.fleet.home / "home" / "process").glob("*/launch.json"):
            command = json.dumps(json.loads(path.read_text(encoding="utf-8")))
            found.add(command.partition("--ttft")[2].strip('", ').partition('"')[0])
        return found


@pytest.mark.timeout(900)
def test_going_back_and_coming_forth(fleet: Fleet) -> None:
    operator = Operator(fleet)
    operator.wish(0.01)
    operator.play("site", "--check")
    assert not operator.state.exists()
    assert "Release 1 of echo: the first one recorded" in operator.play("site")
    operator.play("deploy")
    assert [one["number"] for one in operator.releases()] == [1], (
        "a deploy that changes nothing is no release"
    )
    operator.wish(0.02)
    assert "Release 2 of echo: ttft 0.01 -> 0.02" in operator.play("deploy")
    operator.wish(0.03)
    operator.play("deploy")
    assert operator.running() == {"0.03"}

    assert "did you mean echo?" in operator.refused("-e", "model=ecko")
    assert "Say which model" in operator.refused()
    assert "release is previous, current or the number" in operator.refused("-e", "model=echo release=two")
    assert "There is no release 9 of echo" in operator.refused("-e", "model=echo release=9")

    # check mode tells what would be, and leaves all as it is
    said = operator.play("rollback", "-e", "model=echo", "--check", "--diff")
    assert "2 to replace" in said
    assert "ttft: 0.03 -> 0.02" in said
    assert not (operator.state / "holds.json").exists()

    said = operator.play("rollback", "-e", "model=echo")
    assert "echo goes back to release 2" in said
    assert operator.running() == {"0.02"}

    # the rejected wish is not applied again, and everybody says why
    for verb in ("plan", "deploy", "status"):
        said = operator.play(verb)
        assert "echo is held at release 2" in said, verb
    assert operator.running() == {"0.02"}
    assert [one["number"] for one in operator.releases()] == [1, 2, 3, 4]

    # back again goes on backwards, to the release before last
    operator.play("rollback", "-e", "model=echo")
    assert operator.running() == {"0.01"}
    assert "There is nothing before release 1 of echo" in operator.refused("-e", "model=echo")
    assert [one["rollback_of"] for one in operator.releases()] == [None, None, None, 2, 1]

    # another wish ends the hold
    operator.wish(0.04, token="another")
    assert "echo is held at release 1 no more: its wish in the inventory is another one" in operator.play(
        "plan"
    )
    operator.play("deploy")
    assert operator.running() == {"0.04"}
    assert json.loads((operator.state / "holds.json").read_text())["holds"] == {}

    # to a named one, whose secret was another, and back to the wish
    said = operator.play("rollback", "-e", "model=echo release=3")
    assert "env TOKEN has another value than it had then" in said
    assert operator.running() == {"0.03"}
    operator.play("rollback", "-e", "model=echo release=current")
    assert operator.running() == {"0.04"}
    assert "is held" not in operator.play("deploy")

    kept = "".join(path.read_text(encoding="utf-8") for path in operator.state.rglob("*") if path.is_file())
    assert SECRET not in kept
    assert "another" not in kept

    told = CliRunner().invoke(main, ["history", "-i", str(fleet.inventory), "--json"])
    assert told.exit_code == 0, told.output
    (model,) = json.loads(told.output)["models"]
    assert [one["number"] for one in model["releases"]] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert model["current"] == 8
    assert model["held"] is None
