"""What `modelyard security` prints, from prepared results."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from modelyard.cli.security import exit_code, render_security, summary


def one(severity: str, host: str = "gpu01") -> dict[str, Any]:
    return {
        "severity": severity, "host": host, "code": "container-root", "subject": "fleet-m[0]",
        "what": "It runs as root.", "todo": "Set fleet_container_user.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("severities", "code", "text"),
    [
        ((), 0, "No weakness found."),
        (("finding",), 2, "1 weakness."),
        (("finding", "finding", "unknown"), 2, "2 weaknesses, 1 unknown."),
        (("unknown",), 3, "No weakness seen, but 1 unknown."),
    ],
)
def test_exit_codes_and_the_last_line(severities: tuple[str, ...], code: int, text: str) -> None:
    found = {"findings": [one(severity) for severity in severities]}
    assert (exit_code(found), summary(found)) == (code, text)


def test_a_table_for_each_host_without_reading_markup() -> None:
    file = io.StringIO()
    found = {"findings": [one("finding"), one("unknown", "gpu02")]}
    render_security(Console(file=file, width=160), found)
    text = file.getvalue()
    assert text.index("gpu01") < text.index("gpu02")
    assert text.count("what to do") == 2
    assert "fleet-m[0]" in text
