"""Which modules are compiled, and that what is tested as compiled is."""

from __future__ import annotations

import importlib
import os
import tomllib
from pathlib import Path

import pytest

from modelyard.gateway.build import is_compiled

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODULES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["modules"]
COMPILED = bool(os.environ.get("MODELYARD_TESTS_COMPILED"))


@pytest.mark.parametrize("path", MODULES)
def test_all_of_them_are_compiled_or_none(path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert (ROOT / "proxy" / path).is_file()
    assert Path(module.__file__ or "").suffix == (".so" if COMPILED else ".py")
    assert is_compiled() is COMPILED
