"""The few Docker commands that the parts and the test hosts need, with readable failures."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.parts.errors import PartError


def docker(*arguments: str, stdin: bytes | None = None, timeout: float | None = 600) -> str:
    """Run ``docker ARGUMENTS`` and return its stripped standard output.

    Raises :class:`PartError` with what Docker wrote to standard error when the command fails or takes
    longer than `timeout` seconds.
    """
    return _run(["docker", *arguments], stdin=stdin, timeout=timeout)


def succeeds(*arguments: str, timeout: float = 60) -> bool:
    """Whether ``docker ARGUMENTS`` ends with status 0; its output is dropped."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def require_engine() -> None:
    """Raise :class:`PartError` unless a Docker engine answers."""
    if shutil.which("docker") is None:
        raise PartError(
            "There is no `docker` on PATH. Install it (Debian: apt-get install docker.io) and retry."
        )
    if not succeeds("version"):
        raise PartError(
            "No Docker engine answers (tried `docker version`). Start it (`sudo systemctl start docker`, or "
            "`bash tests/parts/engine.sh` as root), and check that this user may use it (group `docker`)."
        )


def has_image(reference: str) -> bool:
    """Whether the engine holds the image `reference`."""
    return succeeds("image", "inspect", reference)


def build(context: Path, tag: str, *, secrets: dict[str, Path], arguments: dict[str, str]) -> None:
    """Build `context` into the image `tag` with BuildKit.

    `secrets` are files seen by the build and left in no layer. What the build prints goes to the terminal.
    """
    command = [buildkit_client(), "build", "--tag", tag, "--progress", "plain"]
    for name, path in secrets.items():
        command += ["--secret", f"id={name},src={path}"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    _run([*command, str(context)], environment={"DOCKER_BUILDKIT": "1"}, timeout=1800)


@functools.cache
def buildkit_client() -> str:
    """The first Docker client on PATH that can build with BuildKit.

    Clients up to 22 speak to the engine's BuildKit themselves; later ones need the buildx plugin. Where a
    newer client without the plugin stands first on PATH, the distribution's own may stand behind it.
    """
    seen = []
    for directory in os.get_exec_path():
        client = Path(directory) / "docker"
        if not os.access(client, os.X_OK):
            continue
        version = _run([str(client), "--version"], timeout=30)
        seen.append(f"{client}: {version}")
        found = re.search(r"version (\d+)\.", version)
        plugin = subprocess.run(
            [str(client), "buildx", "version"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if plugin.returncode == 0 or (found and int(found[1]) < 23):
            return str(client)
    raise PartError(
        "None of the Docker clients on PATH can build with BuildKit ("
        + "; ".join(seen)
        + "). Install the buildx plugin (Debian: docker-buildx or docker-buildx-plugin)."
    )


def _run(
    command: Sequence[str],
    *,
    stdin: bytes | None = None,
    environment: dict[str, str] | None = None,
    timeout: float | None = None,
) -> str:
    shown = " ".join(command[:6]) + (" ..." if len(command) > 6 else "")
    try:
        done = subprocess.run(
            list(command),
            input=b"" if stdin is None else stdin,
            capture_output=True,
            env={**os.environ, **(environment or {})},
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise PartError(f"{command[0]} is not installed, so `{shown}` cannot run.") from error
    except subprocess.TimeoutExpired as error:
        raise PartError(f"`{shown}` did not end within {timeout:.0f} s.") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise PartError(f"`{shown}` failed with status {done.returncode}:\n{words[-6000:]}")
    return done.stdout.decode(errors="replace").strip()
