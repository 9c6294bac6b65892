"""Weights: what is fetched, resumed, trusted, mended and refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import fetch, snapshot
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import MANIFEST, WeightsError

from .conftest import TOKEN, Weights

REVISION = "0123456789abcdef0123456789abcdef01234567"
DATA = random.Random(7).randbytes(300_000)


def options(**changed: Any) -> snapshot.Options:
    base: dict[str, Any] = {
        "full": False,
        "offline": False,
        "reserve": 0,
        "hub_endpoint": "http://127.0.0.1:9",
        "hub_python": "",
        "token": None,
        "timeout_s": 10.0,
    }
    return snapshot.Options(**(base | changed))


def wish(destination: Path, source: dict[str, str], **more: Any) -> snapshot.Snapshot:
    item = {"model": "tiny", "source": source, "destination": str(destination), "owner": -1, "group": -1}
    return snapshot.parse(item | more)


def bring(wished: snapshot.Snapshot, how: snapshot.Options) -> None:
    finding = snapshot.look(wished, how.full)
    assert finding.fetch is not None
    snapshot.obtain(wished, finding, how)


def url_source(weights: Weights, name: str, data: bytes, route: str = "files") -> dict[str, str]:
    (weights.root / name).write_bytes(data)
    return {"url": f"{weights.url}/{route}/{name}", "sha256": hashlib.sha256(data).hexdigest()}


def repository(weights: Weights, owner: str = "org") -> dict[str, str]:
    place = weights.root / owner / "tiny"
    (place / "sub").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "sub" / "vocab.txt").write_text("a b c")
    (place / "model.safetensors").write_bytes(DATA)
    return {"hub": f"{owner}/tiny", "revision": REVISION}


def archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o600
    return info


def test_a_single_file_is_fetched_whole_and_readable(weights: Weights, tmp_path: Path) -> None:
    place = tmp_path / "m"
    wished = wish(place, url_source(weights, "weights.gguf", DATA))
    bring(wished, options())
    assert (place / "weights.gguf").read_bytes() == DATA
    assert (place / "weights.gguf").stat().st_mode & 0o777 == 0o644
    assert snapshot.look(wished, full=True).fetch is None
    assert [path.name for path in tmp_path.iterdir() if path.name != "served"] == ["m"]


def test_a_dropped_connection_is_resumed_by_range(weights: Weights, tmp_path: Path) -> None:
    source = url_source(weights, "weights.bin", DATA, route="cut/100000")
    bring(wish(tmp_path / "m", source), options())
    assert (tmp_path / "m" / "weights.bin").read_bytes() == DATA
    assert [item["range"] for item in weights.requests()] == [None, "bytes=100000-", "bytes=200000-"]


def test_what_an_ended_run_left_is_resumed(weights: Weights, tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", url_source(weights, "weights.bin", DATA))
    staging = tmp_path / ".m.partial"
    staging.mkdir()
    (staging / ".modelyard-source.json").write_text(json.dumps(wished.source, sort_keys=True))
    (staging / "download.partial").write_bytes(DATA[:1234])
    bring(wished, options())
    assert weights.requests()[-1]["range"] == "bytes=1234-"
    assert (tmp_path / "m" / "weights.bin").read_bytes() == DATA


def test_a_rest_of_another_file_is_not_trusted(weights: Weights, tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", url_source(weights, "weights.bin", DATA))
    staging = tmp_path / ".m.partial"
    staging.mkdir()
    (staging / ".modelyard-source.json").write_text(json.dumps(wished.source, sort_keys=True))
    (staging / "download.partial").write_bytes(b"x" * 1234)
    bring(wished, options())
    assert (tmp_path / "m" / "weights.bin").read_bytes() == DATA


def test_a_server_that_ignores_ranges_is_read_from_the_start(weights: Weights, tmp_path: Path) -> None:
    (weights.root / "a.bin").write_bytes(DATA)
    partial = tmp_path / "partial"
    partial.write_bytes(DATA[:500])
    fetch.download(f"{weights.url}/plain/a.bin", partial, 10, 0)
    assert partial.read_bytes() == DATA


def test_an_unreachable_server_ends_after_some_attempts_and_keeps_what_came(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(b"kept")
    pauses: list[float] = []
    with pytest.raises(WeightsError, match="4 B are kept"):
        fetch.download("http://127.0.0.1:9/x", partial, 1, 0, sleep=pauses.append)
    assert len(pauses) == fetch.ATTEMPTS - 1
    assert partial.read_bytes() == b"kept"


def test_a_wrong_hash_is_named_and_nothing_appears(weights: Weights, tmp_path: Path) -> None:
    source = url_source(weights, "weights.bin", DATA) | {"sha256": "0" * 64}
    with pytest.raises(WeightsError, match=f"{hashlib.sha256(DATA).hexdigest()} instead of 0000"):
        bring(wish(tmp_path / "m", source), options())
    assert not (tmp_path / "m").exists()


def test_a_missing_file_is_not_retried(weights: Weights, tmp_path: Path) -> None:
    source = {"url": f"{weights.url}/files/none", "sha256": "0" * 64}
    with pytest.raises(WeightsError, match="answered 404"):
        bring(wish(tmp_path / "m", source), options())
    assert len(weights.requests()) == 1


@pytest.mark.parametrize("name", ["w.tar.gz", "w.zip"])
def test_an_archive_is_unpacked_and_its_single_folder_lifted(
    weights: Weights, tmp_path: Path, name: str
) -> None:
    if name.endswith("zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as zipped:
            zipped.writestr("tiny/config.json", "{}")
            zipped.writestr("tiny/tiny/weights.bin", DATA)
        data = buffer.getvalue()
    else:
        data = archive([(member("tiny/config.json"), b"{}"), (member("tiny/tiny/weights.bin"), DATA)])
    bring(wish(tmp_path / "m", url_source(weights, name, data)), options())
    assert (tmp_path / "m" / "config.json").read_text() == "{}"
    assert (tmp_path / "m" / "tiny" / "weights.bin").read_bytes() == DATA


@pytest.mark.parametrize(
    "bad",
    [
        member("../outside"),
        member("/etc/outside"),
        member("a/../../outside"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "config.json"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type!r}",
)
def test_an_archive_that_reaches_out_is_refused(
    weights: Weights, tmp_path: Path, bad: tarfile.TarInfo
) -> None:
    data = archive([(member("config.json"), b"{}"), (bad, b"")])
    with pytest.raises(WeightsError, match="refused"):
        bring(wish(tmp_path / "d" / "m", url_source(weights, "w.tar.gz", data)), options())
    assert not (tmp_path / "d" / "m").exists()
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "d" / "outside").exists()


def test_a_checkpoint_that_is_a_zip_file_stays_one(weights: Weights, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("data.pkl", "x")
    bring(wish(tmp_path / "m", url_source(weights, "pytorch_model.bin", buffer.getvalue())), options())
    assert zipfile.is_zipfile(tmp_path / "m" / "pytorch_model.bin")


def test_the_hub_is_fetched_and_verified(weights: Weights, tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", repository(weights))
    bring(wished, options(hub_endpoint=weights.url))
    names = sorted(
        path.relative_to(tmp_path / "m").as_posix() for path in (tmp_path / "m").rglob("*") if path.is_file()
    )
    assert names == [MANIFEST, "config.json", "model.safetensors", "sub/vocab.txt"]
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == DATA
    assert snapshot.look(wished, full=True).fetch is None


def test_only_the_damaged_file_is_fetched_again(weights: Weights, tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", repository(weights))
    how = options(hub_endpoint=weights.url, full=True)
    bring(wished, how)
    before = len(weights.requests())
    with (tmp_path / "m" / "sub" / "vocab.txt").open("r+b") as handle:
        handle.write(b"z")
    assert snapshot.look(wished, full=False).fetch is None
    finding = snapshot.look(wished, full=True)
    assert list(finding.damaged) == ["sub/vocab.txt"]
    snapshot.obtain(wished, finding, how)
    assert (tmp_path / "m" / "sub" / "vocab.txt").read_text() == "a b c"
    fetched = [item["path"] for item in weights.requests()[before:] if item["method"] == "GET"]
    assert not [path for path in fetched if "model.safetensors" in path]


def test_a_token_is_sent_to_the_hub_and_its_lack_explained(weights: Weights, tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", repository(weights, "private"))
    with pytest.raises(WeightsError, match="token"):
        bring(wished, options(hub_endpoint=weights.url))
    bring(wished, options(hub_endpoint=weights.url, token=TOKEN))
    assert (tmp_path / "m" / "config.json").exists()


def test_a_hub_that_goes_away_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", {"hub": "org/tiny", "revision": REVISION})
    with pytest.raises(WeightsError, match="cannot be reached"):
        bring(wished, options())
    assert not (tmp_path / "m").exists()


def test_another_revision_replaces_the_whole_directory(weights: Weights, tmp_path: Path) -> None:
    source = repository(weights)
    how = options(hub_endpoint=weights.url)
    bring(wish(tmp_path / "m", source), how)
    (weights.root / "org" / "tiny" / "sub" / "vocab.txt").unlink()
    bring(wish(tmp_path / "m", source | {"revision": "f" * 40}), how)
    assert not (tmp_path / "m" / "sub").exists()


def test_a_directory_without_a_manifest_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine.bin").write_text("mine")
    with pytest.raises(WeightsError, match=r"source\.path"):
        snapshot.look(wish(tmp_path / "m", {"hub": "org/tiny", "revision": REVISION}), full=False)


def test_too_little_space_is_said_with_numbers(weights: Weights, tmp_path: Path) -> None:
    wished = wish(tmp_path / "m", url_source(weights, "weights.bin", DATA))
    with pytest.raises(WeightsError, match=r"needs 293\.0 KiB .* are missing"):
        bring(wished, options(reserve=1 << 60))
    assert not (tmp_path / "m").exists()


def test_a_path_is_only_looked_at(tmp_path: Path) -> None:
    place = tmp_path / "m"
    place.mkdir()
    (place / "weights.bin").write_bytes(b"x")
    (place / "weights.bin").chmod(0o600)
    finding = snapshot.look(wish(place, {"path": str(place)}), full=True)
    assert finding.fetch is None
    assert [path.name for path in place.iterdir()] == ["weights.bin"]
    assert (place / "weights.bin").stat().st_mode & 0o777 == 0o600


def test_a_path_that_the_engine_cannot_read_is_named(tmp_path: Path) -> None:
    place = tmp_path / "m"
    place.mkdir()
    (place / "weights.bin").write_bytes(b"x")
    (place / "weights.bin").chmod(0o600)
    stranger = os.geteuid() + 4242
    with pytest.raises(WeightsError, match=rf"cannot be .* by uid {stranger}.*chown it to {stranger}"):
        snapshot.look(wish(place, {"path": str(place)}, owner=stranger, group=stranger), full=False)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"hub": "a/b", "revision": "main"}, "40 hex"),
        ({"hub": "a/b"}, "40 hex"),
        ({"url": "http://x/y"}, "sha256"),
        ({"url": "file:///etc/passwd", "sha256": "0" * 64}, "only http"),
        ({"url": "http://x/y", "path": "/x"}, "exactly one"),
        ({}, "exactly one"),
        ({"path": "relative"}, "absolute"),
    ],
)
def test_bad_sources_are_refused_by_name(tmp_path: Path, source: dict[str, str], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        wish(tmp_path / "m", source)
