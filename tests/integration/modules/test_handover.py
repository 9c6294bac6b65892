"""Weights that come from the controller: copied, checked, put in place, and then as if they had been fetched."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import handover, snapshot
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import WeightsError, read_manifest

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "deep/model.safetensors": b"weights" * 1000}
HUB = {"hub": "org/tiny", "revision": REVISION}


def handed(place: Path, source: dict[str, str] | None = None, **more: Any) -> handover.Handed:
    files = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in more.pop("contents", FILES).items()
    ]
    item = {"model": "tiny", "source": source or HUB, "destination": str(place), "owner": -1, "group": -1,
            "files": files, "single": False, "from": "/b"}  # fmt: skip
    return handover.parse(item | more)


def copy(one: handover.Handed, contents: dict[str, bytes]) -> None:
    for path in handover.to_copy(one):
        (one.content / path).write_bytes(contents[path])


def test_what_was_handed_over_looks_as_if_it_had_been_fetched(tmp_path: Path) -> None:
    one = handed(tmp_path / "w" / "tiny")
    assert handover.lacking(one) == "is not there yet"
    handover.prepare(one, 0)
    assert handover.to_copy(one) == list(FILES)
    copy(one, FILES)
    handover.place(one)
    assert handover.lacking(one) is None
    found = snapshot.look(one.snapshot, full=True)
    assert (found.fetch, found.own) == (None, 0)
    manifest = read_manifest(tmp_path / "w" / "tiny")
    assert manifest is not None
    assert manifest.source == HUB
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["tiny"]


def test_a_copy_that_was_cut_off_goes_on_and_is_never_put_in_place(tmp_path: Path) -> None:
    one = handed(tmp_path / "tiny")
    handover.prepare(one, 0)
    (one.content / "config.json").write_bytes(b"{}")
    (one.content / "deep" / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(WeightsError, match="did not arrive whole"):
        handover.place(one)
    assert not (tmp_path / "tiny").exists()
    assert handover.to_copy(one) == ["deep/model.safetensors"]
    copy(one, FILES)
    handover.place(one)
    assert handover.lacking(one) is None


def test_a_file_of_the_right_size_and_another_content_is_not_put_in_place(tmp_path: Path) -> None:
    one = handed(tmp_path / "tiny")
    handover.prepare(one, 0)
    copy(one, FILES)
    (one.content / "config.json").write_bytes(b"[]")
    with pytest.raises(WeightsError, match=r"config\.json did not arrive whole"):
        handover.place(one)


def test_another_revision_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    first = handed(tmp_path / "tiny")
    handover.prepare(first, 0)
    copy(first, FILES)
    handover.place(first)
    contents = {"config.json": b'{"new": 1}'}
    second = handed(tmp_path / "tiny", HUB | {"revision": "f" * 40}, contents=contents)
    assert handover.lacking(second) == "holds another source or revision"
    handover.prepare(second, 0)
    copy(second, contents)
    handover.place(second)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [
        ".modelyard-manifest.json",
        "config.json",
    ]


def test_a_path_is_filled_once_and_never_changed(tmp_path: Path) -> None:
    place = tmp_path / "models" / "tiny"
    one = handed(place, {"path": str(place)})
    handover.prepare(one, 0)
    copy(one, FILES)
    handover.place(one)
    assert (place / "config.json").read_bytes() == b"{}"
    assert not (place / ".modelyard-manifest.json").exists()
    (place / "config.json").write_bytes(b"mine")
    assert handover.lacking(one) is None
    assert snapshot.look(one.snapshot, full=False).fetch is None


def test_a_path_may_be_one_file(tmp_path: Path) -> None:
    place = tmp_path / "models" / "tiny.gguf"
    contents = {"other-name.gguf": b"gguf"}
    one = handed(place, {"path": str(place)}, contents=contents, single=True)
    handover.prepare(one, 0)
    copy(one, contents)
    handover.place(one)
    assert place.read_bytes() == b"gguf"
    assert [path.name for path in place.parent.iterdir()] == ["tiny.gguf"]


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ""])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(WeightsError, match="outside its directory"):
        handed(tmp_path / "tiny", contents={path: b"x"})


def test_links_in_the_staging_directory_are_refused(tmp_path: Path) -> None:
    one = handed(tmp_path / "tiny")
    handover.prepare(one, 0)
    shutil.rmtree(one.content / "deep")
    (tmp_path / "outside").mkdir()
    (one.content / "deep").symlink_to(tmp_path / "outside")
    for act in (lambda: handover.prepare(one, 0), lambda: handover.place(one)):
        with pytest.raises(WeightsError, match="symbolic links"):
            act()
    assert list((tmp_path / "outside").iterdir()) == []


def test_somebody_elses_files_are_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("x")
    with pytest.raises(WeightsError, match="not put there by this role"):
        handover.lacking(handed(tmp_path / "tiny"))
