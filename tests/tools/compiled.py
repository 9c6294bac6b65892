"""The package with its path of requests as machine code, as the proxy hosts of a site get it.

    python -m tests.tools.compiled [--must] COMMAND [ARGUMENT...]

Runs the command with that package in place of the sources, for Python and for pytest. Where this machine cannot compile,
it says why and runs nothing; with --must that is an error.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import yaml

from tests.tools.run_module import COLLECTIONS

# benchmarks are run without any setting of paths
sys.path.insert(0, str(COLLECTIONS))

from ansible_collections.modelyard.fleet.plugins.modules.python_wheel import (
    build_compiled,
    cannot_compile,
    digest_of,
)

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"


class CannotCompileError(Exception):
    """What this machine lacks."""


def compiled_package() -> Path:
    """The directory that holds the package, built where it is not there. Raises ``CannotCompileError``."""
    if why := cannot_compile():
        raise CannotCompileError(why)
    facts = yaml.safe_load((ROOT / "roles" / "proxy" / "vars" / "main.yml").read_text(encoding="utf-8"))
    digest = digest_of(ROOT, facts["__proxy_sources"])
    wheel = build_compiled(ROOT, CACHE / "wheels" / digest)
    place = CACHE / "compiled" / f"{digest}-{sys.implementation.cache_tag}"
    if not place.is_dir():
        place.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".unpacking-") as name:
            whole = Path(name, "whole")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(whole)
            shutil.move(whole, place)
    return place


def environment(package: Path) -> dict[str, str]:
    """What makes Python and pytest take the package."""
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH")))),
        "PYTEST_ADDOPTS": f'-o "pythonpath={package} collections ." {os.environ.get("PYTEST_ADDOPTS", "")}',
        "MODELYARD_TESTS_COMPILED": "true",
    }


def main(arguments: list[str]) -> None:
    must = arguments[:1] == ["--must"]
    command = arguments[must:]
    if not command:
        sys.exit(__doc__)
    try:
        package = compiled_package()
    except CannotCompileError as error:
        print(f"the compiled package is not tested here: {error}", file=sys.stderr)
        sys.exit(int(must))
    os.environ.update(environment(package))
    os.execvp(command[0], command)  # noqa: S606 - the command is ours


if __name__ == "__main__":
    main(sys.argv[1:])
