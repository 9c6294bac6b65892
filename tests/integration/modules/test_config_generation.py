"""The module config_generation: judged before it is in place, gone back to in one step, and nobody else reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tools.run_module import COLLECTIONS

MODULE = "ansible_collections.modelyard.fleet.plugins.modules.config_generation"
SECRET = "-----BEGIN PRIVATE KEY----- correct-horse-battery"
# takes what has the word good in it, and says why it does not
_SCRIPT = 'grep -q good "$0/main.cfg" || { echo "$0/main.cfg: line 1: no good" >&2; exit 1; }'
JUDGE = ["/bin/sh", "-c", _SCRIPT, "{directory}"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "edge"


def run(root: Path, check: bool = False, **params: Any) -> dict[str, Any]:
    arguments = {"root": str(root), **params, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, "-m", MODULE],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        cwd=COLLECTIONS,
    )
    assert "correct-horse" not in done.stdout + done.stderr
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def wish(text: str = "good", **more: Any) -> dict[str, Any]:
    return {"files": {"main.cfg": f"{text} @GENERATION@"}, "validate": JUDGE, **more}


def texts(root: Path, link: str = "current") -> dict[str, str]:
    place = root / link
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def test_a_check_tells_what_a_run_then_does(root: Path) -> None:
    foreseen = run(root, check=True, **wish(secrets={"keys/a.pem": SECRET}))
    assert not root.exists()
    done = run(root, **wish(secrets={"keys/a.pem": SECRET}))
    keys = ("changed", "generation", "pending", "diff")
    assert [foreseen[key] for key in keys] == [done[key] for key in keys]
    assert done["generation"] == 1
    assert texts(root) == {"main.cfg": "good 1\n", "keys/a.pem": f"{SECRET}\n"}
    assert {part["after"] for part in done["diff"]} == {"good 1\n", "(not shown)\n"}
    assert {path.stat().st_mode & 0o777 for path in (root, *root.rglob("*")) if not path.is_symlink()} == {
        0o600,
        0o700,
    }


def test_what_is_in_force_is_left_alone_and_what_is_not_stays_pending(root: Path) -> None:
    run(root, **wish())
    # a run that was cut off before the program was told is made up for
    assert (run(root, **wish())["changed"], run(root, **wish())["pending"]) == (False, True)
    run(root, state="in_force")
    again = run(root, **wish())
    assert (again["changed"], again["pending"], again["generation"]) == (False, False, 1)


def test_what_the_program_refuses_leaves_everything_as_it_was(root: Path) -> None:
    run(root, **wish())
    run(root, state="in_force")
    for check in (True, False):
        refused = run(root, check=check, **wish("bad", secrets={"keys/a.pem": SECRET}))
        assert refused["failed"]
        assert (
            "refuses the configuration, and what was there stays: main.cfg: line 1: no good" in refused["msg"]
        )
    assert texts(root) == {"main.cfg": "good 1\n"}
    assert [path.name for path in (root / "generations").iterdir()] == ["1"]


def test_going_back_to_what_ran_last(root: Path) -> None:
    run(root, **wish("good one"))
    run(root, state="in_force")
    run(root, **wish("good two"))
    assert texts(root) == {"main.cfg": "good two 2\n"}
    back = run(root, state="put_back")
    assert (back["changed"], back["generation"]) == (True, 1)
    assert texts(root) == {"main.cfg": "good one 1\n"}
    assert [path.name for path in (root / "generations").iterdir()] == ["1"]


def test_without_anything_to_go_back_to_there_is_no_current_one(root: Path) -> None:
    run(root, **wish())
    assert run(root, state="put_back")["generation"] == 0
    assert not (root / "current").exists()


def test_files_of_the_host_are_put_together_and_followed(root: Path, tmp_path: Path) -> None:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_text("CHAIN")
    key.write_text(SECRET)
    gathered = {"keys/a.pem": [str(chain), str(key)]}
    run(root, **wish(gathered=gathered))
    assert texts(root)["keys/a.pem"] == f"CHAIN\n{SECRET}\n"
    assert not run(root, **wish(gathered=gathered))["changed"]
    chain.write_text("RENEWED")
    renewed = run(root, **wish(gathered=gathered))
    assert renewed["changed"]
    assert texts(root)["keys/a.pem"].startswith("RENEWED")
    assert {part["after"] for part in renewed["diff"] if "a.pem" in part["after_header"]} == {
        "another (not shown)\n"
    }
    key.unlink()
    assert f"{key} cannot be read on this host" in run(root, **wish(gathered=gathered))["msg"]


def test_rights_that_were_widened_and_files_that_were_changed_by_hand_are_mended(root: Path) -> None:
    run(root, **wish())
    (root / "current" / "main.cfg").chmod(0o644)
    assert run(root, **wish())["changed"]
    assert (root / "current" / "main.cfg").stat().st_mode & 0o777 == 0o600
    (root / "current" / "main.cfg").write_text("good by hand")
    assert run(root, **wish())["changed"]
    assert texts(root)["main.cfg"].startswith("good 3")


def test_a_program_that_is_missing_judges_nothing(root: Path) -> None:
    missing = wish(validate=["/nowhere/haproxy", "{directory}"])
    assert "is not installed, so nobody can judge" in run(root, **missing)["msg"]
    foreseen = run(root, check=True, **missing)
    assert foreseen["changed"]
    assert "not installed yet" in str(foreseen["warnings"])
    assert not (root / "current").exists()


def test_a_path_that_leads_out_is_refused(root: Path) -> None:
    for name in ("../x", "/etc/x"):
        assert "leads out of" in run(root, files={name: "x"})["msg"]


def test_taking_it_away_leaves_nothing(root: Path) -> None:
    run(root, **wish())
    assert run(root, check=True, state="absent")["changed"]
    assert root.exists()
    assert run(root, state="absent")["changed"]
    assert not root.exists()
    assert not run(root, state="absent")["changed"]
