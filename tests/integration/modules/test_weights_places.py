"""Weights from places with a list of checksums, and from other hosts."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import (
    peer,
    s3,
    sending,
    snapshot,
    weights_staging,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    MANIFEST,
    UnreachedError,
    WeightsError,
)

from tests.tools.ports import free_ports

from .conftest import Weights
from .test_snapshot import options, wish

DATA = random.Random(11).randbytes(400_000)


def tree(root: Path) -> tuple[Path, str]:
    """A directory with a list of checksums, and the SHA-256 of the list."""
    place = root / "files" / "tiny"
    (place / "sub").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "sub" / "a b.safetensors").write_bytes(DATA)
    lines = [
        f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  ./{name}\n"
        for name in ("config.json", "sub/a b.safetensors")
    ]
    (place / "SHA256SUMS").write_text("".join(lines))
    return place, hashlib.sha256("".join(lines).encode()).hexdigest()


def source_of(kind: str, weights: Weights, place: Path) -> str:
    return {
        "files": f"{weights.url}/tree/files/tiny",
        "s3": "s3://files/tiny",
        "copy": str(place),
    }[kind]


def bring(wished: snapshot.Snapshot, how: snapshot.Options) -> None:
    finding = snapshot.look(wished, how.full, how.changed)
    assert finding.fetch is not None
    snapshot.obtain(wished, finding, how)


@pytest.mark.parametrize("kind", ["files", "s3", "copy"])
def test_a_listed_place_is_fetched_file_by_file(weights: Weights, tmp_path: Path, kind: str) -> None:
    place, pin = tree(weights.root)
    how = options(store=s3.Store(f"{weights.url}/tree", "us-east-1"))
    target = tmp_path / "m"
    wished = wish(target, {kind: source_of(kind, weights, place), "sha256": pin})
    bring(wished, how)
    assert (target / "sub" / "a b.safetensors").read_bytes() == DATA
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert names == [MANIFEST, "config.json", "sub/a b.safetensors"]
    assert snapshot.look(wished, full=True).fetch is None


@pytest.mark.parametrize("kind", ["files", "copy"])
def test_what_was_begun_is_gone_on_with(weights: Weights, tmp_path: Path, kind: str) -> None:
    place, pin = tree(weights.root)
    wished = wish(tmp_path / "m", {kind: source_of(kind, weights, place), "sha256": pin})
    (place / "sub" / "a b.safetensors").rename(place / "hidden")
    with pytest.raises(WeightsError, match=r"404|is not there"):
        bring(wished, options())
    content = weights_staging.staging_of(tmp_path / "m") / "content" / "sub"
    (content / "a b.safetensors").write_bytes(DATA[:1000])
    (place / "hidden").rename(place / "sub" / "a b.safetensors")
    bring(wished, options())
    assert (tmp_path / "m" / "sub" / "a b.safetensors").read_bytes() == DATA
    if kind == "files":
        assert "bytes=1000-" in [one["range"] for one in weights.requests()]


def test_checksums_of_the_inventory_need_no_list(weights: Weights, tmp_path: Path) -> None:
    place, _ = tree(weights.root)
    (place / "SHA256SUMS").unlink()
    sums = {"config.json": hashlib.sha256(b"{}").hexdigest()}
    wished = wish(tmp_path / "m", {"copy": str(place), "checksums": sums})  # type: ignore[dict-item]
    bring(wished, options())
    assert [path.name for path in (tmp_path / "m").iterdir() if path.name != MANIFEST] == ["config.json"]


def test_a_list_or_a_file_that_was_replaced_is_refused(weights: Weights, tmp_path: Path) -> None:
    place, pin = tree(weights.root)
    with pytest.raises(WeightsError, match="SHA256SUMS has SHA-256"):
        bring(wish(tmp_path / "m", {"copy": str(place), "sha256": "0" * 64}), options())
    (place / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"config\.json has SHA-256 .* instead of"):
        bring(wish(tmp_path / "m", {"copy": str(place), "sha256": pin}), options())
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", ".modelyard-manifest.json"])
def test_a_list_that_reaches_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="refused"):
        wish(tmp_path / "m", {"copy": "/x", "checksums": {name: "0" * 64}})  # type: ignore[dict-item]


def test_a_mount_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is .* mounted on this host"):
        bring(wish(tmp_path / "m", {"copy": str(tmp_path / "none"), "sha256": "0" * 64}), options())


def test_signatures_are_those_of_the_published_example() -> None:
    """The worked example of "Authenticating Requests: Using Query Parameters" in the S3 API reference."""
    store = s3.Store(
        "https://examplebucket.s3.amazonaws.com",
        "us-east-1",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
    when = datetime(2013, 5, 24, tzinfo=timezone.utc)  # noqa: UP017
    url = s3.presigned(store, "https://examplebucket.s3.amazonaws.com/test.txt", "GET", when, 86400)
    wanted = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert url.endswith(f"&X-Amz-Signature={wanted}")


def test_credentials_are_read_and_never_told(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = AK\naws_secret_access_key = hush%1\n")
    assert s3.read_credentials(path) == ("AK", "hush%1", "")
    path.write_text("[default]\nhush\n")
    with pytest.raises(WeightsError) as caught:
        s3.read_credentials(path)
    assert "hush" not in str(caught.value)


def given(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Weights in place on one "host", and their source."""
    place, pin = tree(tmp_path)
    source = {"copy": str(place), "sha256": pin}
    bring(wish(tmp_path / "theirs", source), options())
    return tmp_path / "theirs", source


def other(directory: Path, rate: float = 0) -> dict[str, Any]:
    return {"host": "gpu01", "directory": str(directory), "rate": rate, "bytes": 0}


def test_a_copy_from_another_host_is_hashed_and_resumed(tmp_path: Path) -> None:
    theirs, source = given(tmp_path)
    wished = wish(tmp_path / "mine", source)
    staging = weights_staging.staging_of(tmp_path / "mine")
    (staging / "content" / "sub").mkdir(parents=True)
    (staging / "content" / "sub" / "a b.safetensors").write_bytes(b"x" * 1000)
    weights_staging.prepare(staging, wished.source)
    assert not (staging / "content").exists()
    bring(wished, options(peer=other(theirs)))
    assert (tmp_path / "mine" / "sub" / "a b.safetensors").read_bytes() == DATA
    assert snapshot.look(wished, full=True).fetch is None


def test_a_copy_that_was_changed_over_there_is_not_taken(tmp_path: Path) -> None:
    theirs, source = given(tmp_path)
    with (theirs / "sub" / "a b.safetensors").open("r+b") as handle:
        handle.write(b"y")
    with pytest.raises(WeightsError, match="gpu01 has another content than its manifest says"):
        bring(wish(tmp_path / "mine", source), options(peer=other(theirs)))
    os.truncate(theirs / "sub" / "a b.safetensors", 10)
    with pytest.raises(WeightsError, match="10 bytes on the other host instead of 400000"):
        bring(wish(tmp_path / "mine", source), options(peer=other(theirs)))
    assert not (tmp_path / "mine").exists()
    with pytest.raises(WeightsError, match="copying from gpu01 failed: the weights cannot be sent"):
        bring(wish(tmp_path / "mine", source), options(peer=other(tmp_path / "none")))


def test_a_host_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    _, source = given(tmp_path)
    there = {"host": "gpu01", "number": 0, "address": "127.0.0.1", "port": 9, "user": "x", "bytes": 0}
    there |= {"key": str(tmp_path / "key"), "host_keys": []}
    with pytest.raises(UnreachedError, match="fleet_weights_site"):
        bring(wish(tmp_path / "mine", source), options(peer=there))


def test_the_sender_gives_what_the_manifest_lists_and_nothing_else(tmp_path: Path) -> None:
    theirs, _ = given(tmp_path)
    for asked, error in (
        (b"1\n", IndexError),
        (b"0\n9 0\n", IndexError),
        (b"0\n-1 0\n", ValueError),
        (b"-1\n", ValueError),
    ):
        with pytest.raises(error):
            sending.send([str(theirs)], 0, io.BytesIO(asked), io.BytesIO())
    (theirs / "config.json").unlink()
    (theirs / "config.json").symlink_to("/etc/passwd")
    output = io.BytesIO()
    with pytest.raises(ValueError, match="outside"):
        sending.send([str(theirs)], 0, io.BytesIO(b"0\n0 0\n"), output)
    assert b"root:" not in output.getvalue()


def test_the_sender_keeps_to_its_rate(tmp_path: Path) -> None:
    theirs, _ = given(tmp_path)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    sending.send([str(theirs)], 100_000, io.BytesIO(b"0\n1 0\n"), io.BytesIO(), lambda: now[0], sleep)
    assert now[0] == pytest.approx(4.0)


def test_the_program_that_is_sent_stands_alone() -> None:
    text = peer.program()
    assert "ansible" not in text
    assert compile(text, "sending.py", "exec")
    assert sys.version_info >= (3, 7)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed here")
def test_a_directory_behind_an_rsync_daemon(tmp_path: Path) -> None:
    place, pin = tree(tmp_path)
    (port,) = free_ports(1)
    config = tmp_path / "rsyncd.conf"
    config.write_text(f"use chroot = no\n[models]\npath = {place.parent}\nread only = yes\n")
    command = [
        "rsync",
        "--daemon",
        "--no-detach",
        f"--config={config}",
        "--address=127.0.0.1",
        f"--port={port}",
    ]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as daemon:
        try:
            end = time.monotonic() + 20
            while not answers(port):
                assert time.monotonic() < end
                time.sleep(0.05)
            address = f"rsync://127.0.0.1:{port}/models/tiny"
            wished = wish(tmp_path / "m", {"rsync": address, "sha256": pin})
            assert snapshot.expected_bytes(wished, options()) == len(DATA) + 2
            with pytest.raises(WeightsError, match="are missing"):
                bring(wished, options(reserve=1 << 60))
            content = weights_staging.staging_of(tmp_path / "m") / "content" / "sub"
            content.mkdir(parents=True, exist_ok=True)
            (content / "a b.safetensors").write_bytes(DATA[:5000])
            bring(wished, options())
            assert (tmp_path / "m" / "sub" / "a b.safetensors").read_bytes() == DATA
            (place / "config.json").unlink()
            with pytest.raises(WeightsError, match="rsync from rsync://127"):
                bring(wish(tmp_path / "n", {"rsync": address, "sha256": pin}), options())
        finally:
            daemon.terminate()
