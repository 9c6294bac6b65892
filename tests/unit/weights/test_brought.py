"""A file is brought until it is right: once, or once more from the start where somebody else had begun it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import brought


@pytest.mark.parametrize(
    ("begun", "arrives", "brings", "wrong"),
    [
        (None, [b"right"], 1, ""),
        (b"ri", [b"ght"], 1, ""),
        # the beginning was another file's
        (b"xx", [b"ght", b"right"], 2, ""),
        (b"xx", [b"ght", b"wrong"], 2, "is wrong"),
        (None, [b"wrong"], 1, "is wrong"),
        # nothing came, and nothing is there to be removed
        (None, [b""], 1, "is wrong"),
    ],
)
def test_how_often_a_file_is_brought(
    tmp_path: Path, begun: bytes | None, arrives: list[bytes], brings: int, wrong: str
) -> None:
    target = tmp_path / "file"
    if begun is not None:
        target.write_bytes(begun)
    coming = iter(arrives)
    seen = []

    def bring() -> None:
        piece = next(coming)
        seen.append(piece)
        if piece:
            with target.open("ab") as handle:
                handle.write(piece)

    def fault() -> str:
        return "" if target.exists() and target.read_bytes() == b"right" else "is wrong"

    assert brought(target, bring, fault) == wrong
    assert len(seen) == brings
    assert target.exists() == (not wrong)


def test_what_fails_on_the_way_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "file"

    def bring() -> None:
        target.write_bytes(b"ri")
        raise OSError("the line was cut")

    with pytest.raises(OSError, match="the line was cut"):
        brought(target, bring, lambda: "")
    assert target.read_bytes() == b"ri"
