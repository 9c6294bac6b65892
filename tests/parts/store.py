"""Ready-filled stores for the engines inside test hosts.

Loading the vLLM image into an inner engine takes about 45 s and 2.6 GB for each host. Instead one inner
engine is filled once, and each host gets a copy in which image layers are hard links: under a second and
a few megabytes. That is safe, since the engine never writes into a layer (a container's changes go to a
directory of its own, and a deleted file only loses one of its names); all else is really copied. All hosts
share the pages of one copy in memory, too.

All stores lie in one Docker volume, as hard links cannot leave a mount. Containers mount directories of it.
"""

from __future__ import annotations

import re
import shlex
import subprocess

from tests.parts import host_image, vllm_image
from tests.parts.docker import docker, succeeds
from tests.parts.errors import PartError
from tests.parts.fingerprint import PREFIX, fingerprint
from tests.parts.rootfs import BASE

_VOLUME = f"{PREFIX}-stores"
_FILLER = f"{PREFIX}-store-filler"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


def images() -> list[str]:
    """The images with which every test host's engine starts."""
    return [BASE.tag, vllm_image.tag()]


def seed() -> str:
    """The name of the filled store that hosts' stores are copied from."""
    return f"seed-{fingerprint(host_image.tag(), *images())}"


def is_built() -> bool:
    """Whether the filled store is there; it gets its name only when it is complete."""
    return succeeds("volume", "inspect", _VOLUME) and _in_volume(f"test -d /stores/{seed()}").returncode == 0


def build_store() -> None:
    """Fill a store: about 50 seconds, 2.7 GB. The images of :func:`images` and the host's must be there."""
    docker("volume", "create", "--label", PREFIX, _VOLUME)
    fresh = f"filling-{seed()}"
    # A filling that was cut off is of no use. Other seeds may be another checkout's: only idle ones go.
    _check(_in_volume("rm -rf /stores/filling-*"))
    _check(_in_volume("find /stores -maxdepth 1 -name 'seed-*' -mmin +1440 -exec rm -rf {} +"))
    _check(_in_volume(f"mkdir /stores/{fresh}"))
    docker("rm", "--force", "--volumes", _FILLER)
    docker(
        *["run", "--detach", "--name", _FILLER, "--network", "none", *host_image.machine_flags()],
        *["--volume", f"{path(fresh)}:/var/lib/docker", host_image.tag()],
    )
    try:
        host_image.wait_for_engine(_FILLER)
        load(_FILLER, images())
        # a clean stop: the engine has written all it knows, systemd has unmounted what it mounted
        docker("stop", "--time", "60", _FILLER)
    finally:
        docker("rm", "--force", "--volumes", _FILLER)
    _check(_in_volume(f"mv /stores/{fresh} /stores/{seed()}"))


def copy(name: str) -> str:
    """Make a host's own store `name` out of the filled one; return its path on the outer engine's machine."""
    quoted = _quoted(name)
    script = (
        f"mkdir /stores/{quoted}; cd /stores/{seed()}; touch .;"
        f"for entry in *; do if [ $entry = overlay2 ]; then how=-al; else how=-a; fi;"
        f"cp $how $entry /stores/{quoted}/; done"
    )
    _check(_in_volume(script))
    return path(name)


def drop(name: str) -> None:
    """Remove a host's store; one that is not there is fine."""
    _check(_in_volume(f"rm -rf /stores/{_quoted(name)}"))


def names() -> list[str]:
    """All stores but the filled one."""
    if not succeeds("volume", "inspect", _VOLUME):
        return []
    done = _in_volume("ls /stores")
    _check(done)
    return [name for name in done.stdout.decode().split() if not name.startswith(("seed-", "filling-"))]


def path(name: str) -> str:
    """Where the store `name` lies on the machine of the outer engine."""
    return f"{docker('volume', 'inspect', '--format', '{{.Mountpoint}}', _VOLUME)}/{name}"


def load(container: str, references: list[str]) -> None:
    """Copy images from the outer engine into the engine inside `container`."""
    with subprocess.Popen(["docker", "save", *references], stdout=subprocess.PIPE) as saved:
        loaded = subprocess.run(
            ["docker", "exec", "-i", container, "docker", "load", "--quiet"],
            stdin=saved.stdout,
            capture_output=True,
            check=False,
        )
    if saved.returncode != 0 or loaded.returncode != 0:
        words = loaded.stderr.decode(errors="replace").strip()
        raise PartError(
            f"Images {references} were not loaded into {container}: {words or 'docker save failed'}"
        )


def _in_volume(script: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [
            *["docker", "run", "--rm", "--network", "none", "--volume", f"{_VOLUME}:/stores"],
            *[BASE.tag, "bash", "-euc", script],
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )


def _check(done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode != 0:
        raise PartError(
            f"The volume {_VOLUME} cannot be worked on: {done.stderr.decode(errors='replace').strip()}"
        )


def _quoted(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a store's name: {name!r}")
    return shlex.quote(name)
