"""The image with the project's own echo engine: Debian's Python, the locked dependencies and the package."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.parts import wheelhouse
from tests.parts.docker import build, docker
from tests.parts.fingerprint import PREFIX, image_tag
from tests.parts.pip import pip
from tests.parts.rootfs import BASE

_FILES = Path(__file__).parent / "echo"
_LABEL = f"{PREFIX}.part=echo"
_PACKAGE = Path(__file__).parents[2] / "proxy" / "modelyard"


def tag() -> str:
    """The image's content-hash tag: another one as soon as a file of the package changes."""
    return image_tag("echo", BASE.tag, wheelhouse.LOCK, _FILES, _PACKAGE)


def build_image() -> None:
    """Build the image in about ten seconds; the base image and the wheels must be there."""
    with tempfile.TemporaryDirectory(prefix="modelyard-echo-") as name:
        context = Path(name, "context")
        shutil.copytree(_FILES, context)
        site = context / "site"
        pip(
            *["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--require-hashes"],
            *["--only-binary", ":all:", "--python-version", wheelhouse.PYTHON],
            *["--find-links", str(wheelhouse.directory()), "--target", str(site)],
            *["--requirement", str(wheelhouse.LOCK)],
            what="The echo engine's dependencies were not unpacked",
        )
        shutil.copytree(_PACKAGE, site / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        build(context, tag(), secrets={}, arguments={"BASE": BASE.tag})
    # each change of the package makes another; those of the last day may be another checkout's
    docker("image", "prune", "--all", "--force", "--filter", f"label={_LABEL}", "--filter", "until=24h")
