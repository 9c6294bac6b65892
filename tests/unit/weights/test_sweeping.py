"""What may be removed of the weights on a host, and what never."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import sweeping
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    WeightsError,
    make_manifest,
    write_manifest,
)


def weights(directory: Path, name: str, size: int = 10) -> Path:
    place = directory / name
    place.mkdir(parents=True)
    (place / "model.bin").write_bytes(b"x" * size)
    write_manifest(place, make_manifest(place, "m", {"hub": "a/b", "revision": "c"}), -1, -1)
    return place


def names(found: list[sweeping.Row]) -> list[str]:
    return [Path(item["path"]).name for item in found]


def test_only_what_is_ours_and_nobody_wants_is_listed(tmp_path: Path) -> None:
    weights(tmp_path, "a@1")
    weights(tmp_path, "b@1")
    weights(tmp_path, "c@1.old")
    (tmp_path / ".d@1.partial").mkdir()
    (tmp_path / ".e@1.partial").mkdir()
    (tmp_path / ".f@1.removed").mkdir()
    (tmp_path / "somebody's").mkdir()
    (tmp_path / "somebody's" / "model.bin").write_bytes(b"x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a@1")
    found = sweeping.find(tmp_path, {"b@1", "e@1"}, ())
    assert names(found) == [".d@1.partial", ".f@1.removed", "a@1", "c@1.old"]
    assert found[2]["what"] == "weights of m"
    assert found[2]["bytes"] > 10


@pytest.mark.parametrize("used", ["a@1", "a@1/model.bin"])
def test_what_is_used_is_not_listed(tmp_path: Path, used: str) -> None:
    weights(tmp_path, "a@1")
    assert sweeping.find(tmp_path, (), {str(tmp_path / used)}) == []
    assert sweeping.find(tmp_path, (), (), {str(tmp_path)}) == []
    # the same beginning is not the same directory, and who is in a directory above uses nothing of it
    assert names(sweeping.find(tmp_path, (), {str(tmp_path / "a@12"), str(tmp_path), "/"})) == ["a@1"]


def test_an_open_file_and_a_word_of_a_command_line_count_as_use(tmp_path: Path) -> None:
    one, two = weights(tmp_path, "a@1"), weights(tmp_path, "b@1")
    weights(tmp_path, "c@1")
    script = "import sys; handle = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(one / "model.bin"), f"--model={two}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert names(sweeping.find(tmp_path, (), set(sweeping.open_paths()))) == ["c@1"]


def test_a_download_that_goes_on_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / ".d@1.partial").mkdir()
    with (tmp_path / ".d@1.partial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweeping.find(tmp_path, (), ()) == []
    assert names(sweeping.find(tmp_path, (), ())) == [".d@1.partial"]


def test_a_removal_leaves_nothing(tmp_path: Path) -> None:
    place = weights(tmp_path, "a@1")
    sweeping.remove(tmp_path, place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["outside/a@1", "mine", "link", "."])
def test_nothing_else_is_ever_removed(tmp_path: Path, path: str) -> None:
    weights(tmp_path / "w" / "outside", "a@1")
    (tmp_path / "w" / "mine").mkdir()
    (tmp_path / "w" / "link").symlink_to(tmp_path / "w" / "outside" / "a@1")
    with pytest.raises(WeightsError, match="nothing that may be removed"):
        sweeping.remove(tmp_path / "w", tmp_path / "w" / path)
    assert (tmp_path / "w" / "outside" / "a@1" / "model.bin").exists()


def test_the_confirming_value_is_that_of_just_this_list() -> None:
    row = {"path": "/w/a", "bytes": 2048, "what": "weights of m"}
    one = sweeping.listing({"h": [row], "g": []})
    assert one["lines"] == ["h: /w/a: weights of m, 2.0 KiB"]
    assert one["size"] == "2.0 KiB"
    assert one["token"] == sweeping.listing({"g": [], "h": [row]})["token"]
    tokens = {
        sweeping.listing(found)["token"]
        for found in (
            {"h": [row]},
            {"g": [row]},
            {"h": [row | {"bytes": 1}]},
            {"h": [row | {"path": "/w/b"}]},
        )
    }
    assert len(tokens) == 4
    assert sweeping.listing({"h": []})["token"] == ""
    assert os.sep in one["lines"][0]
