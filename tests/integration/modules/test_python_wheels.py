"""The modules python_wheel and python_env: what is built where, and which build a host takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.modules.python_wheel import cannot_compile
from packaging.tags import sys_tags

from tests.tools.run_module import run_module

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ["pyproject.toml", "proxy"]
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "demo"
version = "1.0"
requires-python = ">=3.11"
[tool.hatch.build.targets.wheel]
packages = ["proxy/demo"]
[tool.hatch.build.targets.wheel.hooks.custom]
path = "proxy/compile_hook.py"
enable-by-default = false
modules = ["demo/fast.py"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of one module, with our build hook."""
    place = tmp_path / "project"
    (place / "proxy" / "demo").mkdir(parents=True)
    (place / "pyproject.toml").write_text(PROJECT)
    (place / "proxy" / "demo" / "__init__.py").write_text("")
    (place / "proxy" / "demo" / "fast.py").write_text(
        "def double(number: int) -> int:\n    return 2 * number\n"
    )
    shutil.copy(ROOT / "proxy" / "compile_hook.py", place / "proxy")
    return place


def build(project: Path, compiled: str, **environment: str) -> dict[str, Any]:
    params = {"project": str(project), "sources": SOURCES, "destination": str(project.parent / "wheels")}
    return run_module("python_wheel", {**params, "compiled": compiled}, environment=environment)


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_wheel_for_everybody_is_built_once(project: Path) -> None:
    first = build(project, "never")
    assert first["changed"]
    assert first["wheels"] == [first["wheel"]]
    assert Path(first["wheel"]).name == "demo-1.0-py3-none-any.whl"
    assert not build(project, "never")["changed"]
    (project / "proxy" / "demo" / "fast.py").write_text("")
    assert build(project, "never")["digest"] != first["digest"]


def test_without_a_compiler_auto_does_without_and_always_says_what_to_install(project: Path) -> None:
    said = build(project, "auto", CC="/nowhere/cc")
    assert len(said["wheels"]) == 1
    assert "install gcc" in said["uncompiled"]
    failed = build(project, "always", CC="/nowhere/cc")
    assert failed["failed"]
    assert "install gcc" in failed["msg"]


def test_code_that_does_not_compile_is_told_and_runs_interpreted(project: Path, needs_compiler: None) -> None:
    (project / "proxy" / "demo" / "fast.py").write_text(
        "def double(number: int) -> str:\n    return 2 * number\n"
    )
    said = build(project, "auto")
    assert len(said["wheels"]) == 1
    assert "Incompatible return value" in said["uncompiled"]
    assert "runs interpreted" in str(said["warnings"])
    assert "Incompatible return value" in build(project, "always")["msg"]


def test_a_compiled_wheel_leaves_nothing_in_the_project(project: Path, needs_compiler: None) -> None:
    before = files(project)
    said = build(project, "always")
    assert files(project) == before
    plain, compiled = map(Path, said["wheels"])
    assert plain.name.endswith("-py3-none-any.whl")
    assert sysconfig.get_config_var("SOABI") in compiled.parent.name
    # the tag names the C library that it needs at least
    assert compiled.stem.rpartition("-")[2].startswith(("manylinux_", "musllinux_"))
    place = project.parent / "unpacked"
    zipfile.ZipFile(compiled).extractall(place)
    code = "import demo.fast; print(demo.fast.__file__, demo.fast.double(21))"
    told = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=place).split()
    assert Path(told[0]).suffix == ".so"
    assert told[1] == "42"
    assert (place / "demo" / "fast.py").is_file()
    assert not build(project, "always")["changed"]


@pytest.fixture
def needs_compiler() -> None:
    """The test compiles."""
    if why := cannot_compile():
        pytest.skip(why)


def wheel(place: Path, tag: str, says: str) -> str:
    """A wheel of the package ``which`` that says which build it is."""
    path = place / f"which-1.0-{tag}.whl"
    info = "which-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("which.py", f"BUILD = {says!r}\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: which\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return str(path)


def test_a_host_takes_the_build_that_fits_it_best(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("")
    everywhere = wheel(tmp_path, "py3-none-any", "everywhere")
    elsewhere = wheel(tmp_path, "cp39-cp39-manylinux_2_17_s390x", "elsewhere")
    here = wheel(tmp_path, str(next(sys_tags())), "here")
    params = {"path": str(tmp_path / "env"), "requirements": str(lock), "python": sys.executable}

    def install(*wheels: str, origin: str) -> tuple[str, bool]:
        said = run_module("python_env", {**params, "wheels": list(wheels), "origin": origin})
        assert "msg" not in said, said
        code = "import which; print(which.BUILD)"
        return subprocess.check_output([said["python"], "-c", code], text=True).strip(), said["changed"]

    assert install(everywhere, elsewhere, origin="one") == ("everywhere", True)
    # another controller, which compiled: the same sources are no reason to install anew, and its wheels need not be there
    assert install(everywhere, str(tmp_path / "which-1.0-not-sent.whl"), origin="one") == (
        "everywhere",
        False,
    )
    assert install(everywhere, here, elsewhere, origin="two") == ("here", True)
    assert run_module("python_env", {**params, "wheels": [everywhere], "origin": "three"}, check=True)[
        "stale"
    ]
