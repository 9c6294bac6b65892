from __future__ import annotations

import ast
from pathlib import Path

import pytest

import modelyard
from modelyard import errors
from modelyard.gateway.metric_rows import METRICS, Row
from modelyard.gateway.routes import ROUTES, Route
from modelyard.settings import Setting, settings_table

ROOT = Path(__file__).parents[2]
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def route_row(route: Route) -> str:
    return f"| `{route.method} {route.path}` | {route.summary} |"


def setting_row(row: Setting) -> str:
    default = ",".join(row.default) if isinstance(row.default, tuple) else row.default
    shown = (
        "none" if default in (None, "") else str(default).lower() if isinstance(default, bool) else default
    )
    return f"| `{row.env}` | `{row.flag}` | {row.kind} | {shown} | {row.help} |"


def metric_row(row: Row) -> str:
    return f"| `{row.name}` | {', '.join(row.labels)} | {row.help} |".replace("|  |", "| |")


def codes() -> set[str]:
    """Every stable error code in the source: class attributes and `code=` arguments."""
    found = {value for item in vars(errors).values() if isinstance(value := getattr(item, "code", None), str)}
    for path in (Path(modelyard.__file__).parent / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                found.add(str(node.value.value))
    return found - {"bad_configuration", "registry_refused"}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_documented(route: Route) -> None:
    assert route_row(route) in HTTP


def test_no_route_is_documented_that_does_not_exist() -> None:
    rows = {line for line in HTTP.splitlines() if line.startswith(("| `GET ", "| `POST "))}
    assert rows == {route_row(route) for route in ROUTES}


@pytest.mark.parametrize("row", settings_table(), ids=lambda row: row.name)
def test_every_setting_is_documented(row: Setting) -> None:
    assert setting_row(row) in SETTINGS


def test_every_error_code_is_documented() -> None:
    missing = sorted(code for code in codes() if f"`{code}`" not in HTTP)
    assert missing == []


def test_exactly_the_metrics_there_are_are_documented() -> None:
    rows = [line for line in HTTP.splitlines() if line.startswith("| `modelyard_")]
    assert rows == [metric_row(row) for row in METRICS]
