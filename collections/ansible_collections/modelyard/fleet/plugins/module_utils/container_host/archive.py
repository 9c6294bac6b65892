"""Images in archives of ``docker save``: which ones an archive holds, whether the engine has them, and loading them."""

from __future__ import annotations

import http.client
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.modelyard.fleet.plugins.module_utils import unix_http

_LOADING_S = 3600.0
_ANSWER_S = 30.0


class ArchiveError(Exception):
    """The archive cannot be used, or the engine does not take it."""


@dataclass(frozen=True)
class Image:
    """One image of an archive.

    ``ids`` are the digests under which an engine may know it: of its configuration and, with the image store of
    containerd, of its manifest.
    """

    ids: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """How people call it."""
        return ", ".join(self.tags) or self.ids[0]

    @property
    def references(self) -> tuple[str, ...]:
        """What to ask the engine for: each of its names, or its id where it has none."""
        return self.tags or self.ids[:1]


def images(path: Path) -> list[Image]:
    """The images that an archive holds. Raises ``ArchiveError``."""
    documents: dict[str, Any] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name in ("manifest.json", "index.json") and member.isfile():
                    stream = archive.extractfile(member)
                    documents[member.name] = json.load(stream) if stream else None
        found = [_image(entry, documents.get("index.json") or {}) for entry in documents["manifest.json"]]
    except (OSError, tarfile.TarError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchiveError(f"{path} is no archive of images as `docker save` writes them.") from error
    if not found:
        raise ArchiveError(f"{path} holds no image.")
    return found


def _image(entry: dict[str, Any], index: dict[str, Any]) -> Image:
    # "<digest>.json" of old, "blobs/sha256/<digest>" in archives that are OCI layouts as well
    digest = Path(entry["Config"]).name.partition(".")[0]
    tags = tuple(entry.get("RepoTags") or ())
    ids = [f"sha256:{digest}"]
    for manifest in index.get("manifests") or ():
        name = (manifest.get("annotations") or {}).get("io.containerd.image.name", "")
        if len(index["manifests"]) == 1 or any(name.endswith(tag) for tag in tags):
            ids.append(manifest["digest"])
    return Image(tuple(dict.fromkeys(ids)), tags)


def missing(wanted: list[Image], socket: Path) -> list[Image]:
    """Those that the engine does not have, or has another image under the name of.

    Raises ``OSError`` and ``http.client.HTTPException`` when it does not answer.
    """
    return [image for image in wanted if not all(_has(image, one, socket) for one in image.references)]


def _has(image: Image, reference: str, socket: Path) -> bool:
    status, body = unix_http.get(socket, f"/images/{quote(reference, safe='/:@')}/json", _ANSWER_S)
    return status == 200 and json.loads(body).get("Id") in image.ids


def load(path: Path, socket: Path) -> None:
    """Give the archive to the engine. Raises ``ArchiveError`` when that does not take it, ``OSError`` as above."""
    connection = unix_http.UnixHTTPConnection(socket, _LOADING_S)
    headers = {"Content-Type": "application/x-tar", "Content-Length": str(path.stat().st_size)}
    try:
        with path.open("rb") as stream:
            connection.request("POST", "/images/load?quiet=1", body=stream, headers=headers)
            response = connection.getresponse()
            answer = response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise ArchiveError(f"{path}: the engine broke off while it loaded it ({error}).") from error
    finally:
        connection.close()
    if response.status != 200 or '"errorDetail"' in answer:
        raise ArchiveError(f"{path} was not loaded: {answer.strip()[-500:]}")
