"""The tour's requests: each works as it is printed."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from modelyard.cli.tour import requests, this_command


def test_every_request_is_a_whole_shell_line_for_the_proxy() -> None:
    lines = requests("http://192.0.2.1:8000", "m")
    for line in lines:
        words = shlex.split(line)
        assert any(word.startswith("http://192.0.2.1:8000") for word in words), line
        if "-d" in words:
            body = json.loads(words[words.index("-d") + 1])
            assert "m" in (body.get("model"), body.get("model_id"))
    assert [shlex.split(line)[0] for line in lines].count("curl") == 4


def test_the_command_can_be_called_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "modelyard"), "tour"])
    assert this_command() == ".venv/bin/modelyard"
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/modelyard", "tour"])
    assert this_command() == "modelyard"
