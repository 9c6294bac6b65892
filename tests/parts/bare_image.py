"""The image of a bare machine: a test host without a container engine, which can install one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.parts import host_image, machine
from tests.parts.docker import build, docker
from tests.parts.fingerprint import image_tag

_FILES = Path(__file__).parent / "bare"


def tag() -> str:
    """The image's content-hash tag."""
    return image_tag("bare", host_image.tag(), _FILES)


def build_image() -> None:
    """Build the image in a few seconds; the host's image must be there."""
    build(_FILES, tag(), secrets={}, arguments={"BASE": host_image.tag()})


def start(name: str) -> None:
    """Start a machine called `name` on a network with a way out, whose apt works as it does on this one."""
    bundle = machine.ca_bundle()
    trusted = ["--volume", f"{bundle.resolve()}:/etc/ssl/certs/ca-certificates.crt:ro"] if bundle else []
    docker(
        *["create", "--name", name, "--hostname", "bare", *host_image.machine_flags(), *trusted],
        # engines refuse to lay one overlay over another
        *["--volume", "/var/lib/docker", "--volume", "/var/lib/containers", tag()],
    )
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory, "settings")
        settings.write_text(machine.apt_settings())
        settings.chmod(0o644)
        docker("cp", str(settings), f"{name}:/etc/apt/apt.conf.d/99machine")
    docker("start", name)
