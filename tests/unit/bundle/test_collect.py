"""Making a bundle: kept, gone on with, mended, and never half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.bundle.collect import collect, known
from modelyard.bundle.manifest import WORK, BundleError, load
from modelyard.bundle.verify import faults
from tests.unit.bundle.made import MOMENT, Silent, Weights, make

ROOT = Path(__file__).parents[3]


def kinds(directory: Path) -> list[tuple[str, str]]:
    return [(fault.kind, fault.path) for fault in faults(directory, load(directory))]


def two() -> tuple[Weights, Weights]:
    return Weights("one", {"a": b"aaa", "deep/b": b"b"}), Weights("two", {"c": b"c"})


def test_a_bundle_is_whole_and_made_once(tmp_path: Path) -> None:
    one, second = two()
    made = make(tmp_path / "b", [one, second])
    assert made.fresh == {"weights/one", "weights/two"}
    assert kinds(tmp_path / "b") == []
    before = (tmp_path / "b" / "manifest.json").stat().st_mtime_ns
    again = make(tmp_path / "b", [one, second])
    assert (again.fresh, one.asked, second.asked) == (frozenset(), 1, 1)
    assert (tmp_path / "b" / "manifest.json").stat().st_mtime_ns == before


def test_every_fault_is_named(tmp_path: Path) -> None:
    place = tmp_path / "b"
    make(place, [Weights("w", {name: name.encode() for name in "abcdef"})])
    (place / "weights/w/a").write_bytes(b"x")
    (place / "weights/w/b").write_bytes(b"longer")
    (place / "weights/w/c").unlink()
    (place / "weights/w/d").unlink()
    (place / "weights/w/d").symlink_to("/etc/hostname")
    (place / "weights/w/new").write_bytes(b"x")
    (place / "other").symlink_to("/etc")
    assert sorted(kinds(place)) == [
        ("altered", "weights/w/a"), ("altered", "weights/w/b"), ("altered", "weights/w/d"), ("extra", "other"),
        ("extra", "weights/w/new"), ("missing", "weights/w/c"),
    ]  # fmt: skip


def test_a_directory_that_became_a_link_is_altered(tmp_path: Path) -> None:
    place = tmp_path / "b"
    make(place, [Weights("w", {"a": b"a"})])
    (place / "weights" / "w").rename(tmp_path / "outside")
    (place / "weights" / "w").symlink_to(tmp_path / "outside")
    assert ("altered", "weights/w/a") in kinds(place)


def test_what_fails_leaves_what_the_next_run_finishes(tmp_path: Path) -> None:
    one, second = two()

    def broken(scratch: Path) -> None:
        raise BundleError("no network")

    second.fail = broken
    with pytest.raises(BundleError, match="no network"):
        make(tmp_path / "b", [one, second])
    with pytest.raises(BundleError, match="is not complete"):
        load(tmp_path / "b")
    second.fail = None
    made = make(tmp_path / "b", [one, second])
    assert (one.asked, second.asked, made.fresh) == (1, 2, {"weights/two"})
    assert kinds(tmp_path / "b") == []
    assert not (tmp_path / "b" / WORK).exists()


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_is_incomplete_and_is_finished(tmp_path: Path, seed: int) -> None:
    """SIGKILL while it works, at moments that differ."""
    program = (
        "import sys, time, pathlib\n"
        "from tests.unit.bundle.made import Weights, make\n"
        "def slow(scratch): print('at', flush=True); time.sleep(0.05)\n"
        "files = {'a': bytes(200000), 'b': b'b'}\n"
        "make(pathlib.Path(sys.argv[1]), [Weights(f'w{n}', files, fail=slow) for n in range(40)])\n"
    )
    place = tmp_path / "b"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/proxy:{ROOT}"}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(place)], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(2 + seed * 3):
            process.stdout.readline()
        time.sleep(0.01 * seed)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(BundleError, match="is not complete"):
        load(place)
    done = known(place)
    sources = [Weights(f"w{number}", {"a": bytes(200000), "b": b"b"}) for number in range(40)]
    made = make(place, sources)
    assert kinds(place) == []
    assert done is not None
    assert 0 < len(done.parts) < 40
    # at most the part that was between its note and its place is asked for once more
    assert 40 - len(made.fresh) >= len(done.parts) - 1


def test_a_changed_wish_changes_only_its_part(tmp_path: Path) -> None:
    one, second = two()
    make(tmp_path / "b", [one, second])
    third = Weights("three", {"d": b"d"})
    made = make(tmp_path / "b", [one, third])
    assert (made.fresh, one.asked) == ({"weights/three"}, 1)
    assert not (tmp_path / "b" / "weights" / "two").exists()
    assert kinds(tmp_path / "b") == []


def test_damage_is_mended(tmp_path: Path) -> None:
    one, second = two()
    make(tmp_path / "b", [one, second])
    (tmp_path / "b/weights/one/a").write_bytes(b"xxx")
    (tmp_path / "b/weights/two/stray").write_bytes(b"xxx")
    made = make(tmp_path / "b", [one, second])
    assert made.fresh == {"weights/one"}
    assert kinds(tmp_path / "b") == []


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(BundleError, match=r"thesis\.txt"):
        make(tmp_path, [Weights("w", {"a": b"a"})])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_runs_keep_out_of_each_others_way(tmp_path: Path) -> None:
    def while_it_runs(scratch: Path) -> None:
        with pytest.raises(BundleError, match="Another run"):
            make(tmp_path / "b", [Weights("w", {"a": b"a"})])

    make(tmp_path / "b", [Weights("w", {"a": b"a"}, fail=while_it_runs)])
    assert kinds(tmp_path / "b") == []


def test_a_journal_from_elsewhere_is_judged_like_a_manifest(tmp_path: Path) -> None:
    place = tmp_path / "b"
    make(place, [Weights("w", {"a": b"a"})])
    text = (place / "manifest.json").read_text().replace("weights/w/a", "weights/w/../../../x")
    (place / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        collect(place, [], without=[], version="1", now=lambda: MOMENT, told=Silent())
