"""What makes a bare Debian a container host and a proxy host, as a source of apt for test hosts, which have no way out."""

from __future__ import annotations

from tests.parts.debs import PLACE, Debs

DEBS = Debs("engine-packages", ("docker.io", "python3-apt", "python3-docker", "python3-venv"))
SOURCES = f"deb [trusted=yes] file:{PLACE} ./\n"
"""For ``sources.list`` of a host that has the directory at :data:`tests.parts.debs.PLACE`."""
