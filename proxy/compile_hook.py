"""Build hook: the modules of the data path as machine code, for a wheel that asks for it.

    HATCH_BUILD_HOOK_ENABLE_CUSTOM=true pip wheel --no-deps --no-build-isolation .

mypyc compiles the very modules that otherwise run interpreted; ``pyproject.toml`` lists them. Their sources stay in the
wheel, and nothing is written beside them. The wheel bears the tag of this Python and this C library, so that pip refuses
it wherever it might not run. Needs a C compiler, Python's headers, mypy and setuptools.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

_PACKAGES = "proxy"
# mypy's own judgement of the code is lint's business, with all stubs at hand; here it only has to know the types
_MYPY = ["--config-file=", "--ignore-missing-imports", "--disable-error-code=import-untyped"]
_SETUP = """
import json, sys
from setuptools import setup
from mypyc.build import mypycify

wish = json.loads(sys.argv.pop())
setup(name="modelyard", packages=[], ext_modules=mypycify(wish["arguments"], **wish["options"]))
"""


class CompileHook(BuildHookInterface[Any]):
    """Hatchling finds it by its base class. Lives as long as one build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what came of it to the wheel. Raises ``RuntimeError`` with the compiler's words."""
        if version == "editable":
            # its modules are read where they lie, and must be what was written last
            return
        self._place = tempfile.TemporaryDirectory(prefix="modelyard-compile-")
        place = Path(self._place.name)
        built = self._compile(place)
        build_data["pure_python"] = False
        build_data["tag"] = _tag()
        build_data["force_include"] |= {
            str(path): path.relative_to(built).as_posix() for path in built.rglob("*.so")
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written."""
        if version != "editable":
            self._place.cleanup()

    def _compile(self, place: Path) -> Path:
        wish = {
            "arguments": [*_MYPY, f"--cache-dir={place / 'mypy'}", *self.config["modules"]],
            "options": {"group_name": "modelyard", "target_dir": str(place / "c"), "debug_level": "0"},
        }
        built = place / "lib"
        command = [sys.executable, "-c", _SETUP, "build_ext", "--build-lib", str(built)]
        command += ["--build-temp", str(place / "objects"), json.dumps(wish)]
        done = subprocess.run(
            command,
            cwd=Path(self.root) / _PACKAGES,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"the data path cannot be compiled:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return built


def _tag() -> str:
    """What a wheel built here says of where it runs: with this C library or a newer one, where there is a word for it."""
    ours = list(sys_tags())
    exact = (tag for tag in ours if tag.platform.startswith(("manylinux_", "musllinux_")))
    return str(next(exact, ours[0]))
