"""Fetch one pinned revision of a model from a Hugging Face hub, and check that all of it arrived.

What must arrive is asked of the hub itself: size and hash of each file. The bytes come file by file, a few at once, each
going on where an earlier run stopped. Or ``huggingface_hub`` moves them: it knows the hub's faster protocols, but begins
anew each file that a killed run had not finished (its partial files have new names each time), and may return a
half-filled folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import (
    brought,
    download,
    get_json,
    require_space,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import BLOCK, WeightsError, sha256_of

# Ends with its parent, so that a run that was killed leaves nothing that goes on writing.
_SCRIPT = """
import ctypes, json, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
from huggingface_hub import snapshot_download
snapshot_download(**json.load(sys.stdin))
"""

AT_ONCE = 4
"""Files that are downloaded at the same time."""

_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_OFFLINE": "0",
}


@dataclass(frozen=True)
class HubFile:
    """One file of a revision: SHA-256 for large files, git's blob id (SHA-1) for small ones."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None


def _git_blob_id(path: Path) -> str:
    """Git's name of a file's content: SHA-1 over a header and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def list_files(
    endpoint: str, repository: str, revision: str, token: str | None, timeout_s: float
) -> list[HubFile]:
    """All files of a revision, as the hub lists them. Raises ``WeightsError``."""
    url: str | None = (
        f"{endpoint.rstrip('/')}/api/models/{urllib.parse.quote(repository)}/tree/{revision}?recursive=true"
    )
    found: list[HubFile] = []
    while url is not None:
        entries, url = get_json(url, token, timeout_s)
        for entry in entries:
            if entry.get("type") != "file":
                continue
            large: dict[str, Any] = entry.get("lfs") or {}
            found.append(
                HubFile(
                    entry["path"],
                    int(large.get("size", entry["size"])),
                    large.get("oid") or large.get("sha256"),
                    None if large else entry.get("oid"),
                )
            )
    if not found:
        raise WeightsError(f"{repository} at {revision} holds no file")
    return found


def faults(directory: Path, files: list[HubFile]) -> dict[str, str]:
    """Files of ``directory`` that are not what the hub has, each with the reason."""
    found = {}
    for file in files:
        path = directory / file.path
        if not path.is_file():
            found[file.path] = "did not arrive"
        elif path.stat().st_size != file.size:
            found[file.path] = f"has {path.stat().st_size} bytes instead of {file.size}"
        elif file.sha256 and sha256_of(path) != file.sha256:
            found[file.path] = "has another SHA-256 than the hub says"
        elif file.blob_id and _git_blob_id(path) != file.blob_id:
            found[file.path] = "has another content than the hub says"
    return found


def missing_bytes(directory: Path, files: list[HubFile]) -> int:
    """Bytes still to be downloaded into ``directory``."""
    present = 0
    for file in files:
        path = directory / file.path
        if path.is_file():
            present += min(file.size, path.stat().st_size)
    return sum(file.size for file in files) - present


def _run_library(python: str, environment: dict[str, str], options: dict[str, Any]) -> str:
    """Run ``snapshot_download`` in ``python``; returns what went wrong, empty when nothing did.

    The options, token included, go through standard input: a command line is seen by every user.
    """
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT],
            input=json.dumps(options),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return f"{python} cannot be run ({error.strerror}); set model_weights_hub_python to a Python with huggingface_hub"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else f"ended with {done.returncode}"
    if "No module named 'huggingface_hub'" in last:
        return f"{python} has no huggingface_hub: install it there, or let the role make its environment"
    return last


@dataclass(frozen=True)
class Hub:
    """How a hub is reached. ``python``: one that has ``huggingface_hub``, to let that move the bytes; empty for none."""

    endpoint: str
    token: str | None
    timeout_s: float
    python: str = ""


def _download(directory: Path, repository: str, revision: str, hub: Hub, reserve: int, file: HubFile) -> None:
    """Bring one file, and check it."""
    path = directory / file.path
    if ".." in Path(file.path).parts or Path(file.path).is_absolute():
        raise WeightsError(
            f"{repository}: {file.path!r} lies outside of the directory of the weights: refused"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    url = f"{hub.endpoint.rstrip('/')}/{repository}/resolve/{revision}/{urllib.parse.quote(file.path)}"
    if path.is_file() and path.stat().st_size > file.size:
        path.unlink()

    def bring() -> None:
        if not path.is_file() or path.stat().st_size < file.size:
            download(url, path, hub.timeout_s, reserve, token=hub.token)

    wrong = brought(path, bring, lambda: faults(directory, [file]).get(file.path, ""))
    if wrong:
        raise WeightsError(
            f"{repository} at {revision}: {file.path} {wrong}: it was damaged on the way or at the hub. Run again "
            "to download it anew"
        )


def _download_all(
    directory: Path, repository: str, revision: str, hub: Hub, reserve: int, files: list[HubFile]
) -> None:
    wanted = {file.path for file in files}
    for stray in [path for path in directory.rglob("*") if path.is_file()]:
        if stray.relative_to(directory).as_posix() not in wanted:
            stray.unlink()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [pool.submit(_download, directory, repository, revision, hub, reserve, file) for file in files]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _let_library(directory: Path, repository: str, revision: str, hub: Hub, files: list[HubFile]) -> None:
    for left in (directory / ".cache").rglob("*.incomplete"):
        left.unlink()  # the library never goes on with them
    said = _run_library(
        hub.python,
        {**os.environ, **_ENVIRONMENT, "HF_HOME": str(directory.parent / f"{directory.name}.hub")},
        {
            "repo_id": repository,
            "revision": revision,
            "local_dir": str(directory),
            "endpoint": hub.endpoint,
            "token": hub.token or False,
            "etag_timeout": hub.timeout_s,
        },
    )
    if said:
        raise WeightsError(
            f"{repository} at {revision}: {said}. Files that arrived whole are kept for the next run"
        )
    wrong = faults(directory, files)
    for name in wrong:
        (directory / name).unlink(missing_ok=True)
    if wrong:
        listing = "; ".join(f"{name} {reason}" for name, reason in sorted(wrong.items()))
        raise WeightsError(f"{repository} at {revision}: {listing}. Run again to download these anew")
    shutil.rmtree(directory / ".cache", ignore_errors=True)
    shutil.rmtree(directory.parent / f"{directory.name}.hub", ignore_errors=True)


def fetch(
    directory: Path,
    repository: str,
    revision: str,
    hub: Hub,
    reserve: int,
    expect: Callable[[int], None] = lambda total: None,
) -> dict[str, str]:
    """Download the revision into ``directory``, or raise ``WeightsError``; what arrived is kept for next time.

    ``expect`` is told how many bytes there will be. Gives the SHA-256 of the files that it has hashed. Raises ``OSError``
    for a full disk.
    """
    files = list_files(hub.endpoint, repository, revision, hub.token, hub.timeout_s)
    expect(sum(file.size for file in files))
    require_space(directory, missing_bytes(directory, files), reserve, repository)
    if hub.python:
        _let_library(directory, repository, revision, hub, files)
    else:
        _download_all(directory, repository, revision, hub, reserve, files)
    return {file.path: file.sha256 for file in files if file.sha256}
