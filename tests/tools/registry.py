"""A registry of container images that holds what one ``docker save`` has written, and only gives it out.

It speaks the part of the distribution API that a pull needs. Binds an ephemeral port of 127.0.0.1, which engines of this
machine trust without TLS.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"


class Registry(ThreadingHTTPServer):
    """Blobs by digest; ``digest`` is that of the image's manifest."""

    daemon_threads = True

    def __init__(self, archive: Path, scratch: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[str, Path] = {}
        with tarfile.open(archive) as saved:
            saved.extractall(scratch, filter="data")
        (image,) = json.loads((scratch / "manifest.json").read_text())
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(scratch / image["Config"], CONFIG),
            "layers": [self._blob(scratch / layer, LAYER) for layer in image["Layers"]],
        }
        place = scratch / "of-the-registry.json"
        place.write_text(json.dumps(manifest))
        self.digest = str(self._blob(place, MANIFEST)["digest"])
        self.asked: list[str] = []

    def _blob(self, path: Path, kind: str) -> dict[str, Any]:
        with path.open("rb") as content:
            digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
        self.blobs[digest] = path
        return {"mediaType": kind, "size": path.stat().st_size, "digest": digest}

    @property
    def address(self) -> str:
        """Host and port, as they stand in references."""
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Registry

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        self.server.asked.append(self.path)
        if self.path == "/v2/":
            self._send(200, "application/json", "", b"{}", body)
            return
        kind, digest = self.path.split("/")[-2:]
        if kind == "manifests" and not digest.startswith("sha256:"):
            digest = self.server.digest
        found = self.server.blobs.get(digest)
        if kind not in ("manifests", "blobs") or found is None:
            self._send(404, "application/json", "", b'{"errors": []}', body)
            return
        media = MANIFEST if kind == "manifests" else "application/octet-stream"
        self._send(200, media, digest, found.read_bytes(), body)

    def _send(self, status: int, kind: str, digest: str, content: bytes, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if digest:
            self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Not to the test's output."""


@contextmanager
def registry(archive: Path, scratch: Path) -> Iterator[Registry]:
    """A registry of an archive, unpacked into ``scratch``, that runs until the block ends."""
    server = Registry(archive, scratch)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
