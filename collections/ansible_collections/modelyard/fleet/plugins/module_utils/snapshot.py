"""Bring one model's weights to a directory of a host, and know whether they are there already."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.modelyard.fleet.plugins.module_utils import hub, listed, peer, s3, sealing
from ansible_collections.modelyard.fleet.plugins.module_utils import weights_staging as staged
from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import (
    brought,
    check_url,
    content_length,
    download,
    require_space,
    without_userinfo,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.files import (
    UNCHANGED,
    describe,
    human,
    unreadable_reason,
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
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import (
    KINDS,
    kinds_in,
    list_text,
    pin_of,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.unpack import archive_kind, unpack
from ansible_collections.modelyard.fleet.plugins.module_utils.weights_tree import (
    open_modes,
    put_in_place,
    settle,
)

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
    changed: bool = False
    store: s3.Store = field(default_factory=lambda: s3.Store("https://s3.amazonaws.com", "us-east-1"))
    peer: Mapping[str, Any] | None = None
    clock: Any = time.monotonic
    sleep: Any = time.sleep

    @property
    def access(self) -> listed.Access:
        """How places that list their files are reached."""
        return listed.Access(self.timeout_s, self.reserve, self.store)


@dataclass(frozen=True)
class Snapshot:
    """One model's weights: where from, where to, whose. ``listing`` are checksums that the inventory has itself."""

    model: str
    kind: str
    source: dict[str, str]
    destination: Path
    owner: int
    group: int
    listing: str | None = None

    @property
    def pin(self) -> str:
        """What fixes the content; empty where nothing does."""
        return self.source.get(KINDS[self.kind].pin, "")

    @property
    def in_place(self) -> bool:
        """Whether the engine reads files that somebody else put there."""
        return KINDS[self.kind].in_place

    @property
    def origin(self) -> str:
        """The source in words, fit for a message (no credentials)."""
        if self.in_place:
            return str(self.destination)
        value = self.source[self.kind]
        if self.kind == "hub":
            return f"{value} at {self.pin[:12]}"
        return without_userinfo(value) if "://" in value and self.kind != "s3" else value


@dataclass
class Finding:
    """What a look at the destination showed. ``fetch``: bytes must come; ``own``: owners are wrong."""

    fetch: str | None = None
    own: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None
    bytes: int = 0
    stamps: sealing.Stamps | None = None
    """What may be noted in the seal; None when it is there already, or nothing was hashed."""
    hashed: int = 0


def parse(item: dict[str, Any]) -> Snapshot:
    """Check one item of the module's list. Raises ``WeightsError`` that names the model."""
    model = item["model"]
    given = {key: value for key, value in item["source"].items() if value is not None}
    kinds = kinds_in(given)
    if len(kinds) != 1:
        raise WeightsError(f"{model}: the source must be exactly one of {', '.join(KINDS)}")
    kind = KINDS[kinds[0]]
    source = {kind.key: str(given[kind.key])}
    listing = None
    if kind.pin:
        source[kind.pin] = (pin_of(kind, given) or "").lower()
    if kind.key == "hub" and not _COMMIT.fullmatch(source["revision"]):
        raise WeightsError(
            f"{model}: a hub source needs a revision of 40 hex digits (a commit, not a branch or tag)"
        )
    if kind.key in ("url", "files"):
        check_url(source[kind.key])
    if kind.key == "s3":
        s3.split(source["s3"])
    if kind.pin == "sha256" and not _SHA256.fullmatch(source["sha256"]):
        more = " (of its SHA256SUMS), or checksums" if kind.listed else ""
        raise WeightsError(f"{model}: a {kind.key} source needs its sha256, 64 hex digits{more}")
    if kind.listed and given.get("checksums"):
        listing = list_text(given["checksums"])
        listed.parse_list(listing, f"{model}: source.checksums")
    destination = Path(source["path"] if kind.key == "path" else item["destination"] or "")
    if not destination.is_absolute():
        raise WeightsError(f"{model}: {str(destination)!r} is no absolute path")
    return Snapshot(model, kind.key, source, destination, int(item["owner"]), int(item["group"]), listing)


def look(snapshot: Snapshot, full: bool, changed: bool = False) -> Finding:
    """What is missing for this snapshot; reads only. Raises ``WeightsError`` for what cannot be mended.

    Sizes are compared; with ``changed`` what the seal does not vouch for is hashed, with ``full`` everything.
    """
    place = snapshot.destination
    if snapshot.in_place:
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
    noted: sealing.Stamps | None = None
    hashed = 0
    if full or changed:
        wrong, noted, hashed = sealing.examine(place, manifest, full)
    else:
        wrong = damaged(place, manifest)
    if wrong:
        text = "; ".join(f"{name} {reason}" for name, reason in sorted(wrong.items()))
        return Finding(fetch=f"is damaged: {text}", damaged=wrong, manifest=manifest, hashed=hashed)
    own = wrongly_owned(place, snapshot.owner, snapshot.group)
    return Finding(
        own=len(own), manifest=manifest, bytes=manifest.size, stamps=noted if hashed else None, hashed=hashed
    )


def _look_at_path(snapshot: Snapshot) -> Finding:
    place = snapshot.destination
    if not place.exists():
        raise WeightsError(
            f"{snapshot.model}: {place} does not exist on this host (source.{snapshot.kind} is never fetched)"
        )
    files = [place] if place.is_file() else files_under(place)
    if not files:
        raise WeightsError(f"{snapshot.model}: {place} is an empty directory")
    uid = os.geteuid() if snapshot.owner == UNCHANGED else snapshot.owner
    gid = os.getegid() if snapshot.group == UNCHANGED else snapshot.group
    if snapshot.kind == "custom" and snapshot.owner != UNCHANGED:
        strangers = wrongly_owned(place, uid, UNCHANGED)
        if strangers:
            one = strangers[0]
            raise WeightsError(
                f"{snapshot.model}: {one} belongs to uid {one.lstat().st_uid} and not to {uid}, which the engine "
                f"runs as ({len(strangers)} files and directories do). Custom weights must be the engine's own: "
                f"chown -R {uid}:{gid} {place}"
            )
    reason = unreadable_reason(place, uid, gid)
    if reason is not None:
        raise WeightsError(
            f"{snapshot.model}: {reason} by uid {uid}, gid {gid}, which the engine runs as. {place} is "
            f"{describe(place.stat())}; this role never changes a source.{snapshot.kind}: chmod -R a+rX it, or "
            f"chown it to {uid}:{gid}"
        )
    return Finding(bytes=sum(path.stat().st_size for path in files))


def expected_bytes(snapshot: Snapshot, options: Options) -> int | None:
    """How much a fetch would download; None when the server does not say. Raises ``WeightsError``."""
    if snapshot.kind == "url":
        return content_length(snapshot.source["url"], options.timeout_s)
    if KINDS[snapshot.kind].listed:
        with tempfile.TemporaryDirectory() as scratch:
            return listed.expected_bytes(
                snapshot.kind,
                snapshot.source[snapshot.kind],
                snapshot.listing,
                snapshot.pin,
                Path(scratch),
                options.access,
            )
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


def _fetch_url(staging: Path, content: Path, snapshot: Snapshot, options: Options) -> dict[str, str]:
    url, wanted = snapshot.source["url"], snapshot.source["sha256"]
    partial = staging / "download.partial"

    def another() -> str:
        have = sha256_of(partial)
        return "" if have == wanted else have

    found = brought(
        partial,
        lambda: download(
            url,
            partial,
            options.timeout_s,
            options.reserve,
            expect=lambda total: staged.expect(staging, total),
        ),
        another,
    )
    if found:
        raise WeightsError(
            f"{snapshot.model}: {without_userinfo(url)} has SHA-256 {found} instead of {wanted}: the file was "
            "replaced at its source or damaged on the way. Nothing of it was kept"
        )
    name = Path(urlsplit(url).path).name or "weights"
    kind = archive_kind(name)
    if kind is not None:
        unpack(partial, kind, content, options.reserve)
        partial.unlink()
        return {}
    if content.exists():
        shutil.rmtree(content)
    content.mkdir(mode=0o755)
    partial.rename(content / name)
    return {name: wanted}


def _fetch(
    staging: Path, content: Path, snapshot: Snapshot, finding: Finding, options: Options
) -> dict[str, str]:
    """Fill ``content`` from a peer if there is one, else from the source; gives the SHA-256 of what was hashed."""
    if snapshot.kind == "url" and options.peer is None:
        return _fetch_url(staging, content, snapshot, options)
    content.mkdir(mode=0o755, exist_ok=True)
    if finding.damaged and finding.manifest is not None:
        staged.keep_good_files(content, snapshot.destination, finding.manifest, finding.damaged)
    if options.peer is not None:
        staged.expect(staging, int(options.peer.get("bytes") or 0))
        return peer.fetch(content, snapshot.source, options.peer, options.reserve)
    if snapshot.kind == "hub":
        return hub.fetch(
            content,
            snapshot.source["hub"],
            snapshot.source["revision"],
            hub.Hub(options.hub_endpoint, options.token, options.timeout_s, options.hub_python),
            options.reserve,
            lambda total: staged.expect(staging, total),
        )
    return listed.fetch(
        snapshot.kind,
        snapshot.source[snapshot.kind],
        snapshot.listing,
        snapshot.pin,
        content,
        options.access,
        lambda total: staged.expect(staging, total),
    )


def obtain(snapshot: Snapshot, finding: Finding, options: Options) -> Manifest:
    """Download what ``finding`` says is missing and put it in place whole. Raises ``WeightsError``, ``OSError``."""
    place = snapshot.destination
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    staging = staged.staging_of(place)
    with staged.locked(staging, 4 * options.timeout_s, options.clock, options.sleep):
        # while this run waited, another one may have brought them
        now = look(snapshot, options.full, options.changed)
        if now.fetch is None and now.manifest is not None:
            return now.manifest
        staged.prepare(staging, snapshot.source)
        content = staging / "content"
        try:
            known = _fetch(staging, content, snapshot, finding, options)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WeightsError(
                    f"{snapshot.model}: the file system of {place.parent} became full while the weights were fetched "
                    f"({error.strerror}). What arrived is kept; make room and run again, it goes on from there"
                ) from error
            raise
        if not files_under(content):
            raise WeightsError(f"{snapshot.model}: {snapshot.origin} holds no file")
        open_modes(content)
        give_to(wrongly_owned(content, snapshot.owner, snapshot.group), snapshot.owner, snapshot.group)
        manifest = make_manifest(content, snapshot.model, snapshot.source, known)
        settle(content)
        write_manifest(content, manifest, snapshot.owner, snapshot.group)
        put_in_place(content, place)
        shutil.rmtree(staging)
        seal(snapshot, manifest, sealing.stamps(place, manifest))
    staged.lock_path(staging).unlink(missing_ok=True)
    return manifest


def seal(snapshot: Snapshot, manifest: Manifest, noted: sealing.Stamps) -> None:
    """Note that the files were hashed and are right. A seal that cannot be written costs another hashing, no more."""
    if set(noted) == {entry.path for entry in manifest.files}:
        with suppress(OSError):
            write_manifest(snapshot.destination, manifest, snapshot.owner, snapshot.group, noted)


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
    "seal",
    "summary",
]
