"""Whether site.yml has something to do on a host: by one look at its engine, and by what was noted of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import look, setup

WISH = "ab" * 32


@pytest.mark.parametrize(
    ("state", "noted", "client", "why"),
    [
        ("absent", None, False, setup.NO_ENGINE),
        # made once, and its packages were removed since; or a run died between two packages
        ("absent", WISH, False, setup.NO_ENGINE),
        ("absent", "", True, setup.NO_ENGINE),
        # a command without an engine is somebody's way to another engine
        ("absent", None, True, ""),
        ("up", None, True, ""),
        ("down", None, True, ""),
        ("up", WISH, True, ""),
        ("up", "cd" * 32, True, setup.CHANGED),
        ("up", "", True, setup.NOT_ENDED),
        ("down", "", True, setup.NOT_ENDED),
        # one that was stopped on purpose is not started by a change of settings
        ("down", "cd" * 32, True, ""),
        ("down", WISH, True, ""),
        # containers may run
        ("unknown", None, True, ""),
        ("unknown", "", True, ""),
        ("unknown", "cd" * 32, True, ""),
    ],
)
def test_what_needs_the_role(state: str, noted: str | None, client: bool, why: str) -> None:
    seen: dict[str, Any] = {"engine": {"state": state, "client": client}, "wish": noted}
    assert setup.reason(seen, WISH) == why


def test_a_host_that_did_not_answer_is_left_alone() -> None:
    assert setup.reason({"unreachable": True, "msg": "no route to host"}, WISH) == ""


def test_what_was_noted_of_a_host(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    assert look.wish_noted(note) is None
    note.write_text('{"wish": ""}', encoding="utf-8")
    assert look.wish_noted(note) == ""
    note.write_text(f'{{"wish": "{WISH}"}}', encoding="utf-8")
    assert look.wish_noted(note) == WISH
    for broken in ("", "[]", "{}", "\xff"):
        note.write_text(broken, encoding="latin-1")
        assert look.wish_noted(note) == "", "what was cut off while it was written is begun, not ended"


@pytest.mark.parametrize("there", [True, False])
def test_a_look_says_whether_the_engines_command_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    monkeypatch.setattr(look, "_keepers", lambda name: 0)
    monkeypatch.setattr(look, "which", lambda name: "/x" if name == "docker" and there else None)
    found, _ = look.engine("docker", tmp_path / "docker.sock", 5)
    assert (found["state"], found["client"]) == ("absent", there)
