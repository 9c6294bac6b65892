"""An image of two megabytes that does nothing but sleep, for engines that have just been installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.parts.docker import docker
from tests.parts.errors import PartError
from tests.parts.fingerprint import image_tag
from tests.parts.rootfs import BASE

_PACK = 'tar --create --dereference /bin/sleep $(ldd /bin/sleep | grep -o "/[^ ]*")'
_COMMAND = 'CMD ["/bin/sleep", "infinity"]'


def tag() -> str:
    """The image's content-hash tag."""
    return image_tag("sleeper", BASE.tag, _PACK, _COMMAND)


def build_image() -> None:
    """Make the image in a second; the base image must be there."""
    packed = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", BASE.tag, "sh", "-c", _PACK],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if packed.returncode != 0:
        raise PartError(f"The sleeper was not packed: {packed.stderr.decode(errors='replace').strip()}")
    docker("import", "--change", _COMMAND, "-", tag(), stdin=packed.stdout)


def save(path: Path) -> None:
    """Write the image to `path` as ``docker save`` does."""
    docker("save", "--output", str(path), tag())
