from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import modelyard

PACKAGE = Path(modelyard.__file__).parent

# ground floor first: a room may import only from itself and from rooms above it in this list
ROOMS = (
    ("errors", "settings", "setting_values", "yaml_text"),
    ("catalog", "sizing"),
    ("registry",),
    ("inventory", "releases"),
    ("importing", "bundle"),
    ("gateway",),
    ("engines", "chaos"),
    ("cli", "__main__"),
)
# the same inside the data path
GATEWAY = (
    ("json_text", "events", "in_band", "usage", "memory", "trace"),
    ("build", "affinity", "breaker", "policies", "retries", "suspects", "queue", "outcomes"),
    ("replicas",),
    ("health",),
    ("balancer",),
    ("fallbacks", "losses", "pursuit", "pursuits"),
    ("visit",),
    ("tally", "access_log", "tracing"),
    ("upstream",),
    ("wire",),
    ("headers",),
    ("forward", "homes"),
    ("mirror",),
    ("answers", "metric_rows", "metrics", "admin_key"),
    ("keys", "relay", "routes", "context"),
    ("dialects", "replica_admin", "request_admin"),
    ("lane",),
    ("engine_handlers",),
    ("tgi_handlers",),
    ("handlers", "guard"),
    ("app",),
    ("server",),
    ("workers",),
)


def imported(path: Path, package: Path = PACKAGE) -> Iterator[tuple[str, ...]]:
    """The modules of ours that a file imports, as parts below the package."""
    parents = ("modelyard", *path.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            module = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = tuple(name.split("."))
            if parts[0] == "modelyard" and len(parts) > 1:
                yield parts[1:]


def floor(name: str, rooms: tuple[tuple[str, ...], ...]) -> int | None:
    return next((number for number, names in enumerate(rooms) if name in names), None)


def room_of(path: Path, below: Path) -> str:
    return path.relative_to(below).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    mine = floor(room_of(path, PACKAGE), ROOMS)
    assert mine is not None, f"{path} is in no room; add the room to the list"
    for parts in imported(path):
        theirs = floor(parts[0], ROOMS)
        if theirs is not None:
            assert theirs <= mine, f"{path} imports {'.'.join(parts)}, which stands further down"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "gateway").rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_inside_the_data_path_go_one_way(path: Path) -> None:
    if path == PACKAGE / "gateway" / "__init__.py":
        assert not list(imported(path))
        return
    mine = floor(room_of(path, PACKAGE / "gateway"), GATEWAY)
    assert mine is not None, f"{path} has no place in the data path; give it one"
    for parts in imported(path):
        if parts[0] == "gateway" and len(parts) > 1:
            theirs = floor(parts[1], GATEWAY)
            assert theirs is not None
            assert theirs <= mine, f"{path} imports {'.'.join(parts)}, which stands further down"


def test_chaos_sees_the_proxy_from_outside_only() -> None:
    used = {parts[0] for path in FILES if room_of(path, PACKAGE) == "chaos" for parts in imported(path)}
    assert used == {"chaos", "settings"}


def test_the_walk_sees_relative_imports(tmp_path: Path) -> None:
    (tmp_path / "gateway" / "dialects").mkdir(parents=True)
    file = tmp_path / "gateway" / "dialects" / "x.py"
    file.write_text("from ..app import create_app\nfrom . import openai\nimport modelyard.cli.main\n")
    assert list(imported(file, tmp_path)) == [
        ("gateway", "app", "create_app"),
        ("gateway", "dialects", "openai"),
        ("cli", "main"),
    ]
