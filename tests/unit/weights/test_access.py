"""Lines of ``authorized_keys`` for the copies of one run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.modules import weights_access

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx modelyard-weights"
OWN = "ssh-ed25519 AAAA me@laptop\n# a comment\x0b\nssh-rsa BBBB modelyard-weights-of-somebody"


def asked(state: str = "present", **more: Any) -> dict[str, Any]:
    return {
        "keys": [KEY], "directories": ["/w/a b@1", '/w/"q"'], "rate": 5.0, "valid_s": 3600, "tag": "t1", "state": state,
    } | more  # fmt: skip


def test_a_key_may_do_one_thing_for_a_while() -> None:
    now = time.time()
    line = weights_access.line(KEY, Path("/h/.ssh/send.py"), asked(), now)
    until = time.strftime("%Y%m%d%H%M%S", time.localtime(now + 3600))
    assert line.startswith(f'restrict,expiry-time="{until}",command="')
    assert line.endswith(" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx")
    # spaces and quotes of a path stay what they are, for sshd first and for the shell after it
    assert "/h/.ssh/send.py 5.0 '/w/a b@1' '/w/\\\"q\\\"'\"" in line


@pytest.mark.parametrize(
    "key", ["", "ssh-rsa AAAA", 'ssh-ed25519 AAAA"\nssh-ed25519 BBBB', 'command="x" ssh-ed25519 A']
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no ed25519 public key"):
        weights_access.line(key, Path("/x"), asked(), 0)


def test_lines_of_others_are_left_to_the_byte(tmp_path: Path) -> None:
    keys = tmp_path / ".ssh" / "authorized_keys"
    keys.parent.mkdir()
    keys.write_text(OWN)
    keys.chmod(0o640)
    weights_access.change(asked(), tmp_path)
    weights_access.change(asked(), tmp_path)  # a run that is repeated adds no second line
    weights_access.change(asked(tag="t2"), tmp_path)
    assert keys.read_text().startswith(OWN + "\n")
    assert keys.read_text().count("AAAAC3Nz") == 2
    assert keys.stat().st_mode & 0o777 == 0o640
    weights_access.change(asked("absent", keys=[]), tmp_path)
    assert keys.read_text().count("modelyard-weights-t2") == 1
    assert (keys.parent / weights_access.SCRIPT).exists()
    weights_access.change(asked("absent", keys=[], tag="t2"), tmp_path)
    assert keys.read_text() == OWN + "\n"


def test_nothing_of_ours_is_left_of_a_user_without_keys(tmp_path: Path) -> None:
    weights_access.change(asked(), tmp_path)
    assert (tmp_path / ".ssh" / "authorized_keys").stat().st_mode & 0o777 == 0o600
    weights_access.change(asked("absent", keys=[]), tmp_path)
    assert [path.name for path in (tmp_path / ".ssh").iterdir()] == ["authorized_keys"]
    assert (tmp_path / ".ssh" / "authorized_keys").read_text() == ""
