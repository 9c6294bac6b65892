"""What a manifest may say, and what is refused before anything of it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.bundle.manifest import BundleError, load, manifest_schema, parse
from modelyard.bundle.paths import slug, unsafe
from tests.unit.bundle.made import Weights, make

DIGEST = "0" * 64


def document(**changed: Any) -> dict[str, Any]:
    part = {"kind": "weights", "name": "w", "path": "weights/w", "wish": DIGEST,
            "details": {"source": {"path": "/srv/w"}, "models": ["m"]}}  # fmt: skip
    base = {"version": 1, "created": "now", "modelyard": "1", "without": [], "parts": [part],
            "files": [{"path": "weights/w/a", "size": 1, "sha256": DIGEST}]}  # fmt: skip
    return base | changed


def refused(text: str) -> str:
    with pytest.raises(BundleError) as caught:
        parse(text, "manifest.json")
    return "\n".join([caught.value.message, *caught.value.problems])


def test_a_manifest_reads_back_as_it_was_written() -> None:
    manifest = parse(json.dumps(document()), "m")
    assert parse(manifest.text(), "m") == manifest
    assert manifest.size == 1


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "weights/../../x", "weights/w/../../../x", "weights//w/a", "./weights/w/a", "weights/w/",
     "weights\\w", "weights/w/\x00", "weights/w/a\n", "", ".", ".."],
)  # fmt: skip
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    assert unsafe(path)
    told = refused(json.dumps(document(files=[{"path": path, "size": 1, "sha256": DIGEST}])))
    assert "files" in told


@pytest.mark.parametrize("path", ["a", "weights/w/a b", "weights/.gitattributes", "weights/ü/ä", "..a/b.."])
def test_what_stays_inside_is_allowed(path: str) -> None:
    assert unsafe(path) == ""


@given(st.text(min_size=1, max_size=300))
def test_any_path_that_is_allowed_stays_below_its_directory(path: str) -> None:
    if not unsafe(path):
        base = Path("/srv/bundle")
        assert Path(str(base / path)).parts[:3] == base.parts
        assert ".." not in (base / path).parts


@given(st.text(min_size=1, max_size=300))
def test_a_slug_is_one_name_and_safe(name: str) -> None:
    made = slug(name)
    assert "/" not in made
    assert made
    assert not unsafe(made)


def test_names_that_differ_only_in_odd_signs_have_other_slugs() -> None:
    assert len({slug(name) for name in ("a/b", "a-b", "a:b", "a b")}) == 4


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": 2}, "version"),
        ({"parts": []}, "belongs to no part"),
        ({"files": []}, "has no file"),
        ({"files": [{"path": "weights/w/a", "size": -1, "sha256": DIGEST}]}, "size"),
        ({"files": [{"path": "weights/w/a", "size": 1, "sha256": "0"}]}, "sha256"),
        ({"files": [{"path": "weights/w/a", "size": 1, "sha256": DIGEST}] * 2}, "listed 2 times"),
        ({"extra": 1}, "extra"),
        ({"files": [{"path": "weights/ww/a", "size": 1, "sha256": DIGEST}]}, "belongs to no part"),
    ],
)
def test_each_fault_is_told(changed: dict[str, Any], told: str) -> None:
    assert told in refused(json.dumps(document(**changed)))


def test_an_image_has_a_file_of_its_own_and_wheels_have_their_lock() -> None:
    image = {"kind": "image", "name": "i", "path": "images/i.tar", "wish": DIGEST,
             "details": {"reference": "i:1", "loaded_as": "i:1", "id": f"sha256:{DIGEST}", "digest": None,
                         "platform": "linux/amd64"}}  # fmt: skip
    inside = [{"path": "images/i.tar/x", "size": 1, "sha256": DIGEST}]
    assert "is no file" in refused(json.dumps(document(parts=[image], files=inside)))
    wheels = {"kind": "wheels", "name": "w", "path": "wheels/proxies", "wish": DIGEST,
              "details": {"lock": "../../etc/passwd", "pythons": ["3.11"], "machine": "x86_64"}}  # fmt: skip
    some = [{"path": "wheels/proxies/a.whl", "size": 1, "sha256": DIGEST}]
    assert "lock" in refused(json.dumps(document(parts=[wheels], files=some)))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', "\x00"])
def test_what_is_no_manifest_is_refused_in_words(text: str) -> None:
    assert "manifest" in refused(text)


def test_a_manifest_that_is_a_link_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "b", [Weights("w", {"a": b"a"})])
    (tmp_path / "b" / "manifest.json").rename(tmp_path / "elsewhere.json")
    (tmp_path / "b" / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="is a link"):
        load(tmp_path / "b")


def test_the_schema_describes_what_it_holds() -> None:
    schema = manifest_schema()
    assert set(schema["required"]) == set(schema["properties"])
