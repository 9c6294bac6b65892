"""Archives of a bundle: reading those of images, making those of ours, unpacking those of collections."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelyard.bundle.manifest import BundleError
from modelyard.bundle.paths import BLOCK, unsafe

_LARGEST_DOCUMENT = 16 << 20  # bytes of a JSON file inside an archive
_LARGEST_UNPACKED = 4 << 30  # bytes of a collection


def image_names(place: Path) -> list[str]:
    """The names of all images in an archive of ``docker save``. Raises ``BundleError`` for what is none."""
    try:
        with tarfile.open(place, mode="r:") as archive:
            for member in archive:
                if member.name == "manifest.json" and member.isfile() and member.size <= _LARGEST_DOCUMENT:
                    stream = archive.extractfile(member)
                    entries = json.load(stream) if stream else []
                    return sorted(str(tag) for entry in entries for tag in entry["RepoTags"] or ())
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{place.name} is no archive of images: {error}") from error
    raise BundleError(f"{place.name} is no archive of images as `docker save` writes them.")


def pack(target: Path, members: Iterable[tuple[str, Path]]) -> None:
    """Write a .tar.gz of files under the names given; the same files give the same bytes. Raises ``OSError``."""
    with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, path in sorted(members):
                entry = tarfile.TarInfo(name)
                state = path.stat()
                entry.size = state.st_size
                entry.mode = 0o755 if state.st_mode & 0o100 else 0o644
                with path.open("rb") as handle:
                    archive.addfile(entry, handle)
        packed.flush()


def read_json(place: Path, name: str) -> dict[str, Any]:
    """One JSON file of a .tar.gz. Raises ``BundleError``."""
    try:
        with tarfile.open(place, mode="r:gz") as archive:
            member = archive.getmember(name)
            stream = archive.extractfile(member) if member.size <= _LARGEST_DOCUMENT else None
            document = json.load(stream) if stream else None
    except (OSError, tarfile.TarError, ValueError, KeyError, EOFError) as error:
        raise BundleError(f"{place.name} has no {name}: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{place.name}: {name} is no object.")
    return document


def unpack(place: Path, target: Path) -> None:
    """Unpack a .tar.gz as ``target``, which appears whole and replaces what was there. Raises ``BundleError``.

    Only files and directories, and only below ``target``: a link, a device or a path that leads out refuses all of it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".modelyard-", dir=target.parent))
    try:
        fresh = scratch / "fresh"
        fresh.mkdir(mode=0o755)
        total = 0
        with tarfile.open(place, mode="r:gz") as archive:
            for member in archive:
                reason = unsafe(member.name.rstrip("/"))
                if reason or not (member.isreg() or member.isdir()):
                    told = reason or "is a link or a device"
                    raise BundleError(f"{place.name}: {member.name[:120]!r} {told}: nothing was unpacked")
                total += member.size
                if total > _LARGEST_UNPACKED:
                    raise BundleError(
                        f"{place.name} unpacks to more than {_LARGEST_UNPACKED >> 30} GiB: refused"
                    )
                where = fresh / member.name
                if member.isdir():
                    where.mkdir(parents=True, exist_ok=True)
                    continue
                where.parent.mkdir(parents=True, exist_ok=True)
                stream = archive.extractfile(member)
                with where.open("xb") as output:
                    while stream is not None and (block := stream.read(BLOCK)):
                        output.write(block)
                where.chmod(0o755 if member.mode & 0o100 else 0o644)
        if target.is_symlink():
            raise BundleError(f"{target} is a symbolic link: nothing was unpacked")
        if target.exists():
            target.rename(scratch / "old")
        fresh.rename(target)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError) as error:
        raise BundleError(f"{place.name} cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
