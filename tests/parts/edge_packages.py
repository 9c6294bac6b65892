"""Debian's HAProxy and keepalived as package files, for test hosts, which have no way out."""

from __future__ import annotations

from tests.parts.debs import PLACE, Debs
from tests.parts.docker import docker

DEBS = Debs("edge-packages", ("haproxy", "keepalived"))
_INSTALL = f"""
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
dpkg --install {PLACE}/*.deb >/dev/null
rm -r /usr/sbin/policy-rc.d {PLACE}
"""


def install(container: str) -> None:
    """Install them on a test host. None of the distribution's units is started."""
    docker("cp", str(DEBS.directory()), f"{container}:{PLACE}")
    docker("exec", container, "bash", "-c", _INSTALL, timeout=120)
