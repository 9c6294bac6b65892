"""Debian's HAProxy and keepalived as package files, for test hosts, which have no way out."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

from tests.parts import bare_image, machine
from tests.parts.docker import docker
from tests.parts.fingerprint import image_tag

_WANTED = ("haproxy", "keepalived")
_PLACE = "/srv/packages"
# apt of a machine that has not started yet knows no time and no /tmp
_FETCH = f"""
set -e
timeout 60 bash -c 'until systemctl is-active --quiet multi-user.target; do sleep 0.2; done'
mkdir -p {_PLACE}/partial
apt-get -qq update
apt-get -qq install -y --no-install-recommends --download-only -o Dir::Cache::archives={_PLACE} {" ".join(_WANTED)}
rm -rf {_PLACE}/partial {_PLACE}/lock
"""
_INSTALL = f"""
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
dpkg --install {_PLACE}/*.deb >/dev/null
rm -r /usr/sbin/policy-rc.d {_PLACE}
"""


def directory() -> Path:
    """Where the packages lie: another place for another image of test hosts."""
    version = image_tag("edge", bare_image.tag(), *_WANTED).rpartition(":")[2]
    return machine.cache_directory() / f"edge-packages-{version}"


def is_built() -> bool:
    """Whether they are there."""
    return directory().is_dir()


def build_packages() -> None:
    """Fetch what a test host lacks of them, in ten seconds; the bare machine's image must be there."""
    name = f"modelyard-parts-{uuid.uuid4().hex[:8]}"
    try:
        bare_image.start(name)
        docker("exec", name, "bash", "-c", _FETCH, timeout=180)
        target = directory()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as place:
            docker("cp", f"{name}:{_PLACE}", f"{place}/packages")
            # renamed last: what stands under the final name is whole
            shutil.move(f"{place}/packages", target)
    finally:
        docker("rm", "--force", "--volumes", name)


def install(container: str) -> None:
    """Install them on a test host. None of the distribution's units is started."""
    docker("cp", str(directory()), f"{container}:{_PLACE}")
    docker("exec", container, "bash", "-c", _INSTALL, timeout=120)
