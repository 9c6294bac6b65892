"""Fetch from places that hold many files and a list of their checksums: http(s), S3, rsync, a directory.

The list (``SHA256SUMS``, as ``sha256sum`` writes it) says which files there are. It is pinned by its own SHA-256, or
stands in the inventory itself, so each file is known before its first byte comes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import signal
import subprocess
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils import s3
from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import (
    brought,
    check_url,
    content_length,
    download,
    require_space,
    without_userinfo,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import BLOCK, WeightsError, sha256_of
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import LIST

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


@dataclass(frozen=True)
class Access:
    """How places are reached: time limit in seconds, bytes that must stay free, the S3 store."""

    timeout_s: float
    reserve: int
    store: s3.Store


@dataclass(frozen=True)
class Place:
    """One place: its name in messages, the size of a file in bytes (None when it does not tell), and how to get one."""

    name: str
    size: Callable[[str], int | None]
    bring: Callable[[str, Path], None]


def parse_list(text: str, where: str) -> dict[str, str]:
    """SHA-256 by path. Refuses paths that lead elsewhere and lines that are no checksums."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise WeightsError(f"{where}: {line[:100]!r} is no line of a list of SHA-256 checksums")
        name = match[2].removeprefix("./")
        path = Path(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or not path.parts:
            raise WeightsError(f"{where}: {name!r} lies outside of the directory: refused")
        if path.name.startswith(".modelyard-"):
            raise WeightsError(f"{where}: {name!r} is a name of Modelyard's own: refused")
        found[path.as_posix()] = match[1].lower()
    if not found:
        raise WeightsError(f"{where} lists no file")
    return found


def _http(base: str, access: Access) -> Place:
    check_url(base)
    parts = urllib.parse.urlsplit(base)

    def url(name: str) -> str:
        path = f"{parts.path.rstrip('/')}/{urllib.parse.quote(name)}"
        return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))

    return Place(
        without_userinfo(base),
        lambda name: content_length(url(name), access.timeout_s),
        lambda name, target: download(url(name), target, access.timeout_s, access.reserve),
    )


def _s3(address: str, access: Access) -> Place:
    bucket, prefix = s3.split(address)

    def url(name: str, method: str) -> str:
        key = f"{prefix}/{name}" if prefix else name
        plain = s3.object_url(access.store, bucket, key)
        return s3.presigned(access.store, plain, method, datetime.now(tz=timezone.utc))  # noqa: UP017 - Python 3.10

    return Place(
        address,
        lambda name: content_length(url(name, "HEAD"), access.timeout_s),
        lambda name, target: download(url(name, "GET"), target, access.timeout_s, access.reserve),
    )


def _copy(directory: str, access: Access) -> Place:
    root = Path(directory)

    def size(name: str) -> int | None:
        try:
            return (root / name).stat().st_size
        except OSError:
            return None

    def bring(name: str, target: Path) -> None:
        have = target.stat().st_size if target.exists() else 0
        try:
            with (root / name).open("rb") as source, target.open("ab") as output:
                total = os.fstat(source.fileno()).st_size
                require_space(target.parent, max(0, total - have), access.reserve, str(root / name))
                source.seek(have)
                while block := source.read(BLOCK):
                    output.write(block)
        except FileNotFoundError as error:
            raise WeightsError(f"{root / name} is not there: is {root} mounted on this host?") from error
        except OSError as error:
            raise WeightsError(f"{root / name} cannot be copied: {error}") from error

    return Place(directory, size, bring)


def _rsync(address: str, access: Access) -> Place:
    base = address.rstrip("/")
    if base.startswith("-"):
        raise WeightsError(f"{address!r} is no rsync address")

    def run(*words: str) -> str:
        # with a daemon's address a remote shell would mean a daemon that is started through it
        shell = [] if "://" in base else ["-e", "ssh -o BatchMode=yes"]
        command = ["rsync", f"--timeout={max(1, int(access.timeout_s))}", *shell, *words]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            raise WeightsError(f"rsync cannot be run on this host ({error.strerror}): install it") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise WeightsError(
                f"rsync from {without_password(address)}: {said[0]}. What arrived is kept; the next run goes on from there"
            )
        return done.stdout

    def size(name: str) -> int | None:
        try:
            listed = run("--list-only", "--", f"{base}/{name}").split()
            return int(listed[1].replace(",", "").replace(".", ""))
        except (WeightsError, IndexError, ValueError):
            return None

    # in place: what a killed run left is taken up by the next one, block by block
    return Place(
        without_password(address),
        size,
        lambda name, target: void(run("--inplace", "--", f"{base}/{name}", str(target))),
    )


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent: a run that was killed leaves nothing that goes on writing."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def void(_: object) -> None:
    """Nothing, whatever was given."""


def without_password(address: str) -> str:
    """An rsync address for a message."""
    return without_userinfo(address) if "://" in address else address


PLACES: Mapping[str, Callable[[str, Access], Place]] = {
    "files": _http,
    "s3": _s3,
    "rsync": _rsync,
    "copy": _copy,
}


def _the_list(place: Place, given: str | None, pin: str, staging: Path) -> dict[str, str]:
    """The checksums of a place: those of the inventory, else its own list, which must be the pinned one."""
    if given is not None:
        return parse_list(given, "source.checksums")
    target = staging / LIST
    target.unlink(missing_ok=True)
    place.bring(LIST, target)
    found = sha256_of(target)
    if found != pin:
        target.unlink()
        raise WeightsError(
            f"{place.name}/{LIST} has SHA-256 {found} instead of {pin}: the files were replaced at their source, or the "
            "pin is that of other files. Nothing was fetched"
        )
    return parse_list(target.read_text(encoding="utf-8"), f"{place.name}/{LIST}")


def expected_bytes(
    kind: str, address: str, given: str | None, pin: str, staging: Path, access: Access
) -> int | None:
    """How much a fetch would bring; None when the place does not tell. Reads the list only."""
    place = PLACES[kind](address, access)
    sizes = [place.size(name) for name in _the_list(place, given, pin, staging)]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def fetch(
    kind: str,
    address: str,
    given: str | None,
    pin: str,
    content: Path,
    access: Access,
    expect: Callable[[int], None],
) -> dict[str, str]:
    """Bring ``content`` to what is at ``address``; raises ``WeightsError``, what arrived is kept.

    ``given`` is the text of the list where the inventory has it. ``expect`` is told how many bytes there will be. Gives
    the SHA-256 of all files.
    """
    place = PLACES[kind](address, access)
    content.mkdir(mode=0o755, exist_ok=True)
    checksums = _the_list(place, given, pin, content.parent)
    for stray in [path for path in content.rglob("*") if path.is_file()]:
        if stray.relative_to(content).as_posix() not in checksums:
            stray.unlink()
    sizes = {name: place.size(name) for name in checksums}
    total = sum(size or 0 for size in sizes.values())
    have = sum((content / name).stat().st_size for name in checksums if (content / name).is_file())
    require_space(content, max(0, total - have), access.reserve, place.name)
    expect(total)
    for name, wanted in checksums.items():
        target = content / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and sha256_of(target) == wanted:
            continue
        found = brought(target, partial(place.bring, name, target), partial(_another, target, wanted))
        if found:
            raise WeightsError(
                f"{place.name}/{name} has SHA-256 {found} instead of {wanted}: it was replaced at its source or "
                "damaged on the way. Nothing of it was kept"
            )
    return checksums


def _another(target: Path, wanted: str) -> str:
    """The SHA-256 that a file has in place of the one that is wanted; empty where it is that one."""
    found = sha256_of(target) if target.exists() else hashlib.sha256().hexdigest()
    return "" if found == wanted else found
