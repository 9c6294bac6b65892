"""How a replica that does not answer ended, as its runtime tells it; unknown is never gone."""

from __future__ import annotations

import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import postmortem


def frame(text: bytes) -> bytes:
    return b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text


def test_the_engines_log_stream_as_text() -> None:
    assert postmortem.plain_log(frame(b"one\n") + frame(b"two\n")) == "one\ntwo\n"
    assert postmortem.plain_log(b"plain\n") == "plain\n"
    assert postmortem.plain_log(b"") == ""


def container(monkeypatch: pytest.MonkeyPatch, *states: dict[str, Any] | None) -> postmortem.ContainerWatch:
    watch = postmortem.ContainerWatch("h.m.0", "f", Path("/nowhere/docker.sock"))
    left = list(states)
    monkeypatch.setattr(watch, "_inspect", lambda: left.pop(0))
    return watch


def test_a_container_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
    watch = container(monkeypatch, {"RestartCount": 0, "State": state})
    assert watch.gone() == "its container ended with exit code 137, out of memory"


def test_a_container_that_restarts_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [{"RestartCount": count, "State": {"Status": "restarting", "ExitCode": 1}} for count in (5, 7, 8)]
    watch = container(monkeypatch, *seen)
    assert watch.gone() is None
    assert watch.gone() is None
    assert watch.gone() == "its container ended 8 times, last with exit code 1"


def test_a_container_engine_that_does_not_answer_says_nothing() -> None:
    watch = postmortem.ContainerWatch("h.m.0", "f", Path("/nowhere/docker.sock"))
    assert watch.gone() is None
    assert watch.log(5) == []


def process(
    monkeypatch: pytest.MonkeyPatch, home: Path, answer: dict[str, str] | Exception, log: str = ""
) -> postmortem.ProcessWatch:
    (home / "supervisor").mkdir(exist_ok=True)
    (home / "supervisor" / "supervisord.log").write_text(log, encoding="utf-8")
    watch = postmortem.ProcessWatch("h.m.0", home)

    def call(*_arguments: Any) -> dict[str, str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(watch._supervisor, "call", call)
    return watch


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"statename": "RUNNING"}, None),
        ({"statename": "FATAL"}, "its process ended again and again, last with exit status 3"),
        ({"statename": "STOPPED"}, "its process was stopped, last end: exit status 3"),
        (xmlrpc.client.Fault(10, "BAD_NAME"), "supervisord does not know it: <Fault 10: 'BAD_NAME'>"),
        (FileNotFoundError(), None),
    ],
)
def test_how_a_process_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Any, said: str | None
) -> None:
    log = (
        "INFO exited: h.m.0 (exit status 3; not expected)\nINFO exited: other (exit status 9; not expected)\n"
    )
    assert process(monkeypatch, tmp_path, answer, log).gone() == said


def test_the_last_words_of_a_process(tmp_path: Path) -> None:
    folder = tmp_path / "process" / "h.m.0"
    folder.mkdir(parents=True)
    watch = postmortem.ProcessWatch("h.m.0", tmp_path)
    assert watch.log(2) == []
    (folder / "output.log").write_text("a\nb\nc\n", encoding="utf-8")
    assert watch.log(2) == ["b", "c"]


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("ActiveState=active\nNRestarts=0\n", None),
        ("", None),
        ("ActiveState=failed\nExecMainStatus=2\n", "the unit p.service is failed, last exit code 2"),
        ("ActiveState=activating\nNRestarts=3\nExecMainStatus=2\n",
         "the unit p.service ended 3 times, last with exit code 2"),
    ],
)  # fmt: skip
def test_how_a_unit_ended(monkeypatch: pytest.MonkeyPatch, shown: str, said: str | None) -> None:
    watch = postmortem.UnitWatch("p.service")
    monkeypatch.setattr(watch, "_ask", lambda *_command: shown)
    assert watch.gone() == said
