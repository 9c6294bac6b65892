"""A look at an engine, and images out of files."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import archive, look
from ansible_collections.modelyard.fleet.plugins.modules import image_archive

from tests.unit.container_host.engine_stand_in import StandIn

DIGEST = "ab" * 32
TAG = "registry.example.org/team/vllm:1.0"


def test_an_engine_that_answers_says_which_models_run() -> None:
    labels = {"modelyard.fleet": "any"}
    there = [
        {"Names": ["/modelyard-b"], "Id": "b" * 64, "Labels": labels},
        {"Names": ["/modelyard-a"], "Id": "a" * 64, "Labels": labels},
        {"Names": ["/by-hand"], "Id": "c" * 64, "Labels": {}},
        {"Names": ["/somebody"], "Id": "d" * 64, "Labels": None},
    ]
    with StandIn(there, {}) as engine:
        state, running = look.engine("docker", engine.socket, 5)
        assert look.engine("docker", engine.socket, 5, ["by-hand"])[1] == ["by-hand", *running]
        assert look.engine("docker", engine.socket, 5, ["d" * 12])[1] == [*running, "somebody"]
    assert (state["state"], state["version"], state["swarm"]) == ("up", "25.0", False)
    assert state["live_restore"]
    assert running == ["modelyard-a", "modelyard-b"]


@pytest.mark.parametrize(
    ("keepers", "daemon", "state"),
    [(0, None, "absent"), (0, "/x", "down"), (2, "/x", "unknown"), (1, None, "unknown")],
)
def test_an_engine_that_does_not_answer_is_unknown_while_containers_may_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keepers: int, daemon: str | None, state: str
) -> None:
    monkeypatch.setattr(look, "_keepers", lambda name: keepers)
    monkeypatch.setattr(look, "which", lambda name: daemon)
    found, running = look.engine("docker", tmp_path / "docker.sock", 5)
    assert (found["state"], running) == (state, [])
    assert found["problem"]


def saved(path: Path, tags: list[str] | None = None, layout: bool = False) -> Path:
    """An archive as `docker save` writes it: the older form, or the one that is an OCI layout too."""
    config = f"blobs/sha256/{DIGEST}" if layout else f"{DIGEST}.json"
    documents: dict[str, Any] = {
        "manifest.json": [{"Config": config, "RepoTags": [TAG] if tags is None else tags}]
    }
    if layout:
        documents["index.json"] = {"manifests": [{"digest": "sha256:" + "cd" * 32, "annotations": {}}]}
    with tarfile.open(path, "w") as tar:
        for name, document in documents.items():
            content = json.dumps(document).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def bring(engine: StandIn, path: Path, check: bool = False) -> dict[str, Any]:
    return image_archive.bring({"state": "loaded", "path": str(path), "socket": str(engine.socket)}, check)


def test_an_image_is_loaded_once(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.tar")
    with StandIn([], {}) as engine:
        foreseen = bring(engine, path, check=True)
        assert engine.loads == []
        first, second = bring(engine, path), bring(engine, path)
        assert engine.loads == [path.read_bytes()]
    assert foreseen == first
    assert (first["changed"], first["missing"], second["changed"]) == (True, [TAG], False)


def test_another_image_under_the_same_name_is_replaced(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.tar")
    with StandIn([], {TAG: "sha256:" + "00" * 32}) as engine:
        assert bring(engine, path)["changed"]
        assert engine.images[TAG] == f"sha256:{DIGEST}"


@pytest.mark.parametrize("known_as", ["ab", "cd"], ids=["configuration", "manifest"])
def test_an_image_is_known_by_its_configuration_or_its_manifest(tmp_path: Path, known_as: str) -> None:
    path = saved(tmp_path / "images.tar", layout=True)
    with StandIn([], {TAG: "sha256:" + known_as * 32}) as engine:
        assert not bring(engine, path)["changed"]


def test_an_image_without_a_name_is_asked_for_by_its_id(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.tar", tags=[])
    with StandIn([], {f"sha256:{DIGEST}": f"sha256:{DIGEST}"}) as engine:
        assert not bring(engine, path)["changed"]


def test_an_engine_that_does_not_take_it_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.tar")
    with StandIn([], {}, takes=False) as engine, pytest.raises(archive.ArchiveError, match="no space left"):
        bring(engine, path)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_what_is_no_archive_of_images_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.tar"
    if content is None:
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo("other.txt"))
    else:
        path.write_bytes(content)
    with pytest.raises(archive.ArchiveError, match=r"images\.tar"):
        archive.images(path)


def test_a_check_on_a_host_without_an_engine_foresees_all_of_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.tar")
    params = {"state": "loaded", "path": str(path), "socket": str(tmp_path / "docker.sock")}
    assert image_archive.bring(params, True)["missing"] == [TAG]
    with pytest.raises(FileNotFoundError):
        image_archive.bring(params, False)
