"""What the machine already knows about mirrors, package indexes and certificates.

Read when a part is built and handed to the tools that build it; nothing of it is written into the
repository or kept in an image's layers, except the apt sources that a Debian root file system has anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tests.parts.errors import PartError

_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def ca_bundle() -> Path | None:
    """The machine's bundle of certificate authorities, or None where it has none."""
    named = os.environ.get("SSL_CERT_FILE")
    for name in (named, *_CA_BUNDLES):
        if name and Path(name).is_file() and Path(name).stat().st_size:
            return Path(name)
    return None


def debian_sources(codename: str) -> list[str]:
    """The machine's apt sources for Debian `codename`, one line each.

    Empty on a machine of another distribution or release: mmdebstrap's own default is right there.
    """
    form = "$(LABEL)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)"
    try:
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError:
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for line in listed.splitlines():
        label, name, uri, component = line.split("|")
        if label in {"Debian", "Debian-Security"} and name.split("-")[0] == codename:
            components = found.setdefault((uri, name), [])
            if component not in components:
                components.append(component)
    if not any(name == codename for _, name in found):
        return []
    return [f"deb {uri} {name} {' '.join(components)}" for (uri, name), components in found.items()]


def apt_settings() -> str:
    """How apt reaches its mirrors on this machine, as a configuration file: proxies, and checks of dates."""
    wanted = ("Acquire::http", "Acquire::Check-")
    try:
        dumped = subprocess.run(
            ["apt-config", "dump", "--no-empty", "Acquire"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except FileNotFoundError:
        return ""
    return "".join(f"{line}\n" for line in dumped.splitlines() if line.startswith(wanted))


def pip_settings() -> dict[str, list[str]]:
    """Pip's own settings on this machine: option name -> its values, environment over files."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PartError(
            f"`{sys.executable} -m pip` does not work (is python3-venv installed?):\n{done.stderr.strip()}"
        )
    settings: dict[str, tuple[bool, list[str]]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.strip().partition(".")
        option = option.lstrip(".")
        from_environment = section == ":env:"
        if option and (from_environment or not settings.get(option, (False, []))[0]):
            settings[option] = (from_environment, value.strip().strip("'\"").split())
    return {option: values for option, (_, values) in settings.items()}


def local_path(location: str) -> Path | None:
    """The directory or file that a pip location names on this machine, or None for one on the network."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location) if not parts.scheme else None


def find_links() -> list[Path]:
    """The local directories in which pip looks for wheels besides its indexes."""
    paths = (local_path(location) for location in pip_settings().get("find-links", []))
    return [path for path in paths if path is not None and path.is_dir()]


def mounts_for_pip() -> list[Path]:
    """What pip's settings name on this machine's disk: a container that uses the settings needs it mounted."""
    settings = pip_settings()
    found: list[Path] = []
    for option in ("constraint", "requirement"):
        for location in settings.get(option, []):
            path = local_path(location)
            if path is not None and path.is_file() and path not in found:
                found.append(path)
    for option in ("find-links", "index-url", "extra-index-url"):
        for location in settings.get(option, []):
            path = local_path(location)
            if path is not None and path.is_dir():
                # an index's pages point at files beside it, so its parent is what is needed
                path = path if option == "find-links" else path.parent
                if path not in found:
                    found.append(path)
    return found


def cache_directory() -> Path:
    """Where what was built is kept: ``MODELYARD_TEST_CACHE``, or below the user's cache directory."""
    named = os.environ.get("MODELYARD_TEST_CACHE")
    if named:
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "modelyard-tests"
