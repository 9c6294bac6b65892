"""Unpack an archive of weights; only plain files, only below the directory it is meant for."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import require_space
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import BLOCK, WeightsError

TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ZIP = (".zip",)


def archive_kind(name: str) -> str | None:
    """``tar``, ``zip`` or None for a single file, by the name alone.

    The content does not tell: a PyTorch checkpoint *is* a zip file and must stay one.
    """
    lowered = name.lower()
    if lowered.endswith(TAR):
        return "tar"
    return "zip" if lowered.endswith(ZIP) else None


def member_path(name: str) -> PurePosixPath:
    """The relative path of a member; refuses what would land elsewhere."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and ":" in path.parts[0]):
        raise WeightsError(f"the archive's member {name!r} would be written outside its directory: refused")
    return path


def _tar_members(archive: tarfile.TarFile) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    for member in archive:
        path = member_path(member.name)
        if member.isdir():
            continue
        if not member.isreg():
            raise WeightsError(f"the archive's member {member.name!r} is a link or a device: refused")
        handle = archive.extractfile(member)
        if handle is None:
            raise WeightsError(f"the archive's member {member.name!r} cannot be read")
        yield path, member.size, handle


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    for member in archive.infolist():
        path = member_path(member.filename)
        if member.is_dir():
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise WeightsError(f"the archive's member {member.filename!r} is a link or a device: refused")
        with archive.open(member) as handle:
            yield path, member.file_size, handle


def _write_all(members: Iterator[tuple[PurePosixPath, int, IO[bytes]]], target: Path, reserve: int) -> None:
    for path, size, handle in members:
        require_space(target, size, reserve, f"unpacking {path}")
        place = target.joinpath(*path.parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with place.open("xb") as output:
            while block := handle.read(BLOCK):
                written += len(block)
                if written > size:
                    raise WeightsError(f"the archive's member {path} is larger than it says: refused")
                output.write(block)
        if written != size:
            raise WeightsError(f"the archive's member {path} is shorter than it says: the archive is damaged")


def _lift_single_folder(target: Path) -> None:
    """An archive that holds one folder with everything in it loses that folder."""
    inside = list(target.iterdir())
    if len(inside) != 1 or not inside[0].is_dir():
        return
    # under another name first: the folder may hold an entry of its own name
    folder = inside[0].rename(target / ".modelyard-lifted")
    for entry in list(folder.iterdir()):
        entry.rename(target / entry.name)
    folder.rmdir()


def unpack(archive: Path, kind: str, target: Path, reserve: int) -> None:
    """Write the archive's files below ``target``, which is emptied first. Raises ``WeightsError``."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True, mode=0o755)
    try:
        if kind == "tar":
            with tarfile.open(archive, mode="r|*") as tar:
                _write_all(_tar_members(tar), target, reserve)
        else:
            with zipfile.ZipFile(archive) as zipped:
                _write_all(_zip_members(zipped), target, reserve)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise WeightsError(f"{archive.name} cannot be unpacked: {error}") from error
    except FileExistsError as error:
        raise WeightsError(f"the archive holds {error.filename} twice: refused") from error
    _lift_single_folder(target)
