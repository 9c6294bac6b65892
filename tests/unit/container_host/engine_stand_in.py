"""An engine's API behind a Unix socket, as far as a container host is looked at and given images."""

from __future__ import annotations

import json
import socketserver
import tarfile
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


class StandIn:
    """Answers what :mod:`container_host` asks; ``loads`` are the archives it was given."""

    def __init__(self, running: list[dict[str, Any]], images: dict[str, str], takes: bool = True) -> None:
        self.running, self.images, self.takes = running, images, takes
        self.loads: list[bytes] = []
        self._directory = tempfile.TemporaryDirectory(prefix="m")
        self.socket = Path(self._directory.name) / "docker.sock"

    def __enter__(self) -> StandIn:
        stage = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path)
                if path.path == "/info":
                    self._answer(200, {"ServerVersion": "25.0", "LiveRestoreEnabled": True, "Swarm": {}})
                elif path.path == "/containers/json":
                    self._answer(200, stage.running)
                else:
                    name = unquote(path.path).removeprefix("/images/").removesuffix("/json")
                    known = name in stage.images
                    self._answer(200 if known else 404, {"Id": stage.images.get(name)})

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                stage.loads.append(content)
                if not stage.takes:
                    self._answer(200, {"errorDetail": {"message": "no space left on device"}})
                    return
                with tarfile.open(fileobj=BytesIO(content)) as archive:
                    manifest = archive.extractfile("manifest.json")
                    assert manifest is not None
                    for entry in json.load(manifest):
                        for tag in entry["RepoTags"]:
                            stage.images[tag] = f"sha256:{entry['Config'].partition('.')[0]}"
                self._answer(200, {"stream": "Loaded image"})

            def _answer(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def address_string(self) -> str:
                return "local"

        self._server = socketserver.ThreadingUnixStreamServer(str(self.socket), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._directory.cleanup()
