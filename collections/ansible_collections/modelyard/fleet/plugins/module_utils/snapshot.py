"""Bring one model's weights to a directory of a host, and know whether they are there already."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.modelyard.fleet.plugins.module_utils import hub
from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import (
    check_url,
    content_length,
    download,
    require_space,
    without_userinfo,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.files import (
    UNCHANGED,
    describe,
    fsync_directory,
    human,
    unreadable_reason,
    write_atomically,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    MANIFEST,
    Manifest,
    WeightsError,
    damaged,
    files_under,
    give_to,
    make_manifest,
    read_manifest,
    sha256_of,
    write_manifest,
    wrongly_owned,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.unpack import archive_kind, unpack

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Options:
    """What holds for all snapshots of a call. Sizes in bytes, times in seconds."""

    full: bool
    offline: bool
    reserve: int
    hub_endpoint: str
    hub_python: str
    token: str | None
    timeout_s: float


@dataclass(frozen=True)
class Snapshot:
    """One model's weights: where from, where to, whose."""

    model: str
    kind: str
    source: dict[str, str]
    destination: Path
    owner: int
    group: int

    @property
    def origin(self) -> str:
        """The source in words, fit for a message (no credentials)."""
        if self.kind == "hub":
            return f"{self.source['hub']} at {self.source['revision'][:12]}"
        return without_userinfo(self.source["url"]) if self.kind == "url" else self.source["path"]


@dataclass
class Finding:
    """What a look at the destination showed. ``fetch``: bytes must come; ``own``: owners are wrong."""

    fetch: str | None = None
    own: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None
    bytes: int = 0


def parse(item: dict[str, Any]) -> Snapshot:
    """Check one item of the module's list. Raises ``WeightsError`` that names the model."""
    model = item["model"]
    source = {key: str(value) for key, value in item["source"].items() if value is not None}
    kinds = [kind for kind in ("path", "hub", "url") if kind in source]
    if len(kinds) != 1:
        raise WeightsError(f"{model}: the source must be exactly one of path, hub and url")
    kind = kinds[0]
    if kind == "hub" and not _COMMIT.fullmatch(source.get("revision", "")):
        raise WeightsError(
            f"{model}: a hub source needs a revision of 40 hex digits (a commit, not a branch or tag)"
        )
    if kind == "url":
        check_url(source["url"])
        source["sha256"] = source.get("sha256", "").lower()
        if not _SHA256.fullmatch(source["sha256"]):
            raise WeightsError(f"{model}: a url source needs its sha256, 64 hex digits")
    destination = Path(source["path"] if kind == "path" else item["destination"] or "")
    if not destination.is_absolute():
        raise WeightsError(f"{model}: {str(destination)!r} is no absolute path")
    return Snapshot(model, kind, source, destination, int(item["owner"]), int(item["group"]))


def look(snapshot: Snapshot, full: bool) -> Finding:
    """What is missing for this snapshot; reads only. Raises ``WeightsError`` for what cannot be mended."""
    place = snapshot.destination
    if snapshot.kind == "path":
        return _look_at_path(snapshot)
    if not place.exists():
        return Finding(fetch="is not there yet")
    if not place.is_dir() or place.is_symlink():
        raise WeightsError(f"{snapshot.model}: {place} is in the way: it is no directory")
    manifest = read_manifest(place)
    if manifest is None:
        if any(place.iterdir()) and not (place / MANIFEST).exists():
            raise WeightsError(
                f"{snapshot.model}: {place} holds files that were not put there by this role (no {MANIFEST}). "
                "Use source.path to serve them as they are, or move them away"
            )
        return Finding(fetch="has no usable manifest")
    if manifest.source != snapshot.source:
        return Finding(fetch="holds another source or revision", manifest=manifest)
    wrong = damaged(place, manifest, full)
    if wrong:
        text = "; ".join(f"{name} {reason}" for name, reason in sorted(wrong.items()))
        return Finding(fetch=f"is damaged: {text}", damaged=wrong, manifest=manifest)
    own = wrongly_owned(place, snapshot.owner, snapshot.group)
    return Finding(own=len(own), manifest=manifest, bytes=manifest.size)


def _look_at_path(snapshot: Snapshot) -> Finding:
    place = snapshot.destination
    if not place.exists():
        raise WeightsError(
            f"{snapshot.model}: {place} does not exist on this host (source.path is never fetched)"
        )
    files = [place] if place.is_file() else files_under(place)
    if not files:
        raise WeightsError(f"{snapshot.model}: {place} is an empty directory")
    uid = os.geteuid() if snapshot.owner == UNCHANGED else snapshot.owner
    gid = os.getegid() if snapshot.group == UNCHANGED else snapshot.group
    reason = unreadable_reason(place, uid, gid)
    if reason is not None:
        raise WeightsError(
            f"{snapshot.model}: {reason} by uid {uid}, gid {gid}, which the engine runs as. {place} is "
            f"{describe(place.stat())}; this role never changes a source.path: chmod -R a+rX it, or chown it to {uid}:{gid}"
        )
    return Finding(bytes=sum(path.stat().st_size for path in files))


def expected_bytes(snapshot: Snapshot, options: Options) -> int | None:
    """How much a fetch would download; None when the server does not say. Raises ``WeightsError``."""
    if snapshot.kind == "url":
        return content_length(snapshot.source["url"], options.timeout_s)
    files = hub.list_files(
        options.hub_endpoint,
        snapshot.source["hub"],
        snapshot.source["revision"],
        options.token,
        options.timeout_s,
    )
    return sum(file.size for file in files)


def refuse_offline(snapshot: Snapshot, finding: Finding) -> None:
    """The error for weights that would have to come over the network when there is none."""
    raise WeightsError(
        f"{snapshot.model}: {snapshot.destination} {finding.fetch}, and model_weights_offline forbids to download "
        f"{snapshot.origin}. Put the weights on the host and use source.path, or allow downloads"
    )


@contextmanager
def _locked(staging: Path) -> Iterator[None]:
    """Only one run at a time may fill a staging directory."""
    lock = staging.with_name(f"{staging.name}.lock")
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WeightsError(f"another run is downloading into {staging}: wait for it") from error
        yield
        lock.unlink(missing_ok=True)


def _prepare(staging: Path, snapshot: Snapshot) -> None:
    """Keep what an earlier, interrupted run of the same source left; drop anything else."""
    note = staging / ".modelyard-source.json"
    wanted = json.dumps(snapshot.source, sort_keys=True)
    if staging.exists() and (not note.is_file() or note.read_text(encoding="utf-8") != wanted):
        shutil.rmtree(staging)
    staging.mkdir(mode=0o755, exist_ok=True)
    write_atomically(note, wanted.encode(), 0o644)


def _keep_good_files(content: Path, place: Path, manifest: Manifest, wrong: dict[str, str]) -> None:
    """Link the undamaged files of ``place`` into the new tree, so that only the damaged ones are fetched."""
    for entry in manifest.files:
        target = content / entry.path
        if entry.path in wrong or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(place / entry.path, target)


def _fetch_url(staging: Path, content: Path, snapshot: Snapshot, options: Options) -> None:
    url, wanted = snapshot.source["url"], snapshot.source["sha256"]
    partial = staging / "download.partial"
    resumed = partial.exists()
    while True:
        download(url, partial, options.timeout_s, options.reserve)
        found = sha256_of(partial)
        if found == wanted:
            break
        partial.unlink()
        if not resumed:
            raise WeightsError(
                f"{snapshot.model}: {without_userinfo(url)} has SHA-256 {found} instead of {wanted}: the file was "
                "replaced at its source or damaged on the way. Nothing of it was kept"
            )
        resumed = False  # the kept beginning may belong to another file: once more from the start
    name = Path(urlsplit(url).path).name or "weights"
    kind = archive_kind(name)
    if kind is not None:
        unpack(partial, kind, content, options.reserve)
        partial.unlink()
        return
    if content.exists():
        shutil.rmtree(content)
    content.mkdir(mode=0o755)
    partial.rename(content / name)


def _open_modes(content: Path) -> None:
    """Readable by everyone: safetensors writes 0600, which another uid meets as a missing file."""
    for path in [content, *content.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _put_in_place(content: Path, place: Path) -> None:
    """Swap the finished tree in. A running engine keeps the files that it has open."""
    old = place.with_name(f"{place.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if place.exists():
        place.rename(old)
    content.rename(place)
    fsync_directory(place.parent)
    if old.exists():
        shutil.rmtree(old)


def obtain(snapshot: Snapshot, finding: Finding, options: Options) -> Manifest:
    """Download what ``finding`` says is missing and put it in place whole. Raises ``WeightsError``, ``OSError``."""
    place = snapshot.destination
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    staging = place.with_name(f".{place.name}.partial")
    with _locked(staging):
        _prepare(staging, snapshot)
        content = staging / "content"
        if snapshot.kind == "url":
            _fetch_url(staging, content, snapshot, options)
        else:
            content.mkdir(mode=0o755, exist_ok=True)
            if finding.damaged and finding.manifest is not None:
                _keep_good_files(content, place, finding.manifest, finding.damaged)
            hub.fetch(
                content,
                snapshot.source["hub"],
                snapshot.source["revision"],
                options.hub_endpoint,
                options.token,
                options.reserve,
                options.timeout_s,
                options.hub_python,
            )
        if not files_under(content):
            raise WeightsError(f"{snapshot.model}: {snapshot.origin} holds no file")
        _open_modes(content)
        give_to(wrongly_owned(content, snapshot.owner, snapshot.group), snapshot.owner, snapshot.group)
        manifest = make_manifest(content, snapshot.model, snapshot.source)
        write_manifest(content, manifest, snapshot.owner, snapshot.group)
        _put_in_place(content, place)
        shutil.rmtree(staging)
    return manifest


def check_rights(snapshot: Snapshot) -> None:
    """Before anything is downloaded: may this user give the files to their owner at all?"""
    uid, gid = os.geteuid(), os.getegid()
    groups = {UNCHANGED, gid, *os.getgroups()}
    if uid != 0 and (snapshot.owner not in (UNCHANGED, uid) or snapshot.group not in groups):
        raise WeightsError(
            f"{snapshot.model}: uid {uid} cannot give files to {snapshot.owner}:{snapshot.group}: run with become, "
            f"or set the owner and group of the weights to {uid}:{gid} (or -1 to leave them)"
        )


def summary(snapshot: Snapshot, manifest: Manifest | None) -> str:
    """A few lines for ``--diff``."""
    if manifest is None:
        return ""
    source = "".join(f"  {key}: {value}\n" for key, value in sorted(manifest.source.items()) if key != "url")
    files = f"files: {len(manifest.files)}\nsize: {human(manifest.size)}\n" if manifest.files else ""
    return f"model: {snapshot.model}\nsource:\n{source}{files}"


__all__ = [
    "Finding",
    "Options",
    "Snapshot",
    "check_rights",
    "expected_bytes",
    "look",
    "obtain",
    "parse",
    "refuse_offline",
    "require_space",
    "summary",
]
