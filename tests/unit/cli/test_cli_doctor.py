"""What `modelyard doctor` prints and how it ends, from prepared results."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from modelyard.cli import doctor as command
from modelyard.cli.doctor import exit_code, render_doctor, verdict
from modelyard.cli.main import main
from modelyard.cli.playbooks import Outcome


def one(severity: str, host: str = "gpu01", text: str = "It is ill [very]. Do something.") -> dict[str, Any]:
    return {"severity": severity, "host": host, "kind": "gpu", "code": "x", "subject": "", "text": text}


def result(*findings: dict[str, Any]) -> dict[str, Any]:
    counts = {"critical": 1, "unknown": 0, "warning": 2, "note": 0}
    return {
        "findings": list(findings),
        "hosts": [
            {
                "name": "gpu01",
                "verdict": "ill",
                "counts": counts,
                "told": "1 critical, 1 of 2 replicas generated",
            },
            {"name": "gpu02", "verdict": "well", "counts": dict.fromkeys(counts, 0), "told": ""},
        ],
        "notes": ["somebody is [at it]"],
    }


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        ((), 0),
        (("note",), 0),
        (("warning", "note"), 2),
        (("critical", "unknown"), 2),
        (("warning", "unknown"), 2),
        (("unknown", "note"), 3),
    ],
)
def test_exit_codes(severities: tuple[str, ...], code: int) -> None:
    assert exit_code(result(*(one(severity) for severity in severities))) == code


def test_a_table_for_each_host_and_a_verdict_for_all() -> None:
    file = io.StringIO()
    render_doctor(Console(file=file, width=160), result(one("critical"), one("unknown", "gpu02")))
    text = file.getvalue()
    assert text.index("gpu01") < text.index("gpu02")
    assert text.count("what to do") == 2
    assert "It is ill [very]. Do something." in text
    assert "Note: somebody is [at it]" in text
    assert "gpu01: ill (1 critical, 1 of 2 replicas generated)\ngpu02: well\n" in text


def test_a_verdict_has_its_colour() -> None:
    spans = [[span.style for span in verdict(host).spans] for host in result()["hosts"]]
    assert spans == [["bold red"], ["green"]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the playbook would be run with."""
    given: dict[str, Any] = {}

    def run(
        name: str, inventory: str, limit: str | None, *, as_json: bool, extra: Mapping[str, Any]
    ) -> Outcome:
        given.update(extra, name=name, limit=limit)
        return Outcome("successful", result(), (), "")

    monkeypatch.setattr(command, "run_verb", run)
    return given


def test_everything_is_asked_of_everybody_unless_told_otherwise(asked: dict[str, Any]) -> None:
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 0
    assert (asked["name"], asked["limit"], asked["generate"], asked["named_hosts"]) == (
        "doctor",
        None,
        True,
        [],
    )
    assert (asked["generation_timeout_s"], asked["command_timeout_s"]) == (60, 20)
    assert CliRunner().invoke(main, ["doctor", "--no-generate", "gpu01", "gpu02"]).exit_code == 0
    assert (asked["limit"], asked["generate"], asked["named_hosts"]) == (
        "gpu01,gpu02",
        False,
        ["gpu01", "gpu02"],
    )
    assert CliRunner().invoke(main, ["doctor", "--limit", "gpu*"]).exit_code == 0
    assert asked["limit"] == "gpu*"


def test_hosts_and_a_pattern_are_a_wrong_call() -> None:
    done = CliRunner().invoke(main, ["doctor", "gpu01", "--limit", "gpu*"])
    assert done.exit_code == 2
    assert "not both" in done.output
