"""What `modelyard drift` prints and leaves behind, from prepared results."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelyard.cli.drift import exit_code, render_drift, summary
from modelyard.cli.drift_metrics import metrics_text, write_text_file


def one(severity: str, host: str = "gpu01", kind: str = "image") -> dict[str, Any]:
    return {
        "severity": severity, "host": host, "kind": kind, "subject": f"{host}.m.0", "field": "image",
        "wanted": "a[b]", "found": None, "what": "deploy mends it",
    }  # fmt: skip


def result(*findings: dict[str, Any]) -> dict[str, Any]:
    return {
        "hosts": ["gpu01", "gpu02"], "kinds": ["image", "registry"], "findings": list(findings),
        "checked_at": "2026-01-01T00:00:00+00:00", "notes": ["gpu01: [odd]"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("severities", "code", "text"),
    [
        ((), 0, "All is as declared."),
        (("note",), 0, "All is as declared. Containers of others: 1."),
        (("drift",), 2, "1 difference."),
        (("drift", "drift", "unknown"), 2, "2 differences, 1 unknown."),
        (("unknown", "note"), 3, "No difference seen, but 1 unknown. Containers of others: 1."),
    ],
)
def test_exit_codes_and_the_last_line(severities: tuple[str, ...], code: int, text: str) -> None:
    found = result(*(one(severity) for severity in severities))
    assert (exit_code(found), summary(found)) == (code, text)


def test_a_table_for_each_host_without_reading_markup() -> None:
    file = io.StringIO()
    render_drift(Console(file=file, width=160), result(one("drift"), one("unknown", "gpu02")))
    text = file.getvalue()
    assert text.index("gpu01") < text.index("gpu02")
    assert text.count("what to do") == 2
    assert "a[b]" in text
    assert "gpu01: [odd]" in text


def test_prometheus_text_has_zeros_for_what_was_seen_and_nothing_for_what_was_not() -> None:
    text = metrics_text(result(one("drift"), one("drift"), one("note"), one("unknown", "gpu02", "host")))
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        'modelyard_drift{host="gpu01",kind="image"} 2',
        'modelyard_drift{host="gpu01",kind="registry"} 0',
        'modelyard_drift_unknown{host="gpu01"} 0',
        'modelyard_drift_unknown{host="gpu02"} 1',
        "modelyard_drift_checked_timestamp_seconds 1767225600",
    ]
    assert text.endswith("\n")


def test_labels_are_quoted() -> None:
    assert r'host="a\"b\\"' in metrics_text(result(one("drift", 'a"b\\')))


def test_the_file_is_replaced_whole_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "drift.prom"
    path.write_text("old", encoding="utf-8")
    write_text_file(path, "new\n")
    assert path.read_text(encoding="utf-8") == "new\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="No such file"):
        write_text_file(tmp_path / "missing" / "x.prom", "new")
