"""The engine and its file in the catalog must tell the same."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from modelyard.catalog import load_engine
from modelyard.cli.echo import echo
from modelyard.engines.echo.metrics import EchoMetrics


def test_declared_metrics_exist() -> None:
    text = EchoMetrics(CollectorRegistry()).render().decode()
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    declared = load_engine("echo").metrics
    assert {*declared.running, *declared.waiting, *declared.progress} <= names


def test_launch_flags_exist() -> None:
    given = [part for block in load_engine("echo").data["command"] for part in block["args"]]
    flags = {part for part in given if part.startswith("--")}
    assert flags
    assert flags <= {name for option in echo.params for name in option.opts}
