"""The smallest engine that a container can run with nothing but Python: health, models, chat."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Answers chat with the user, the environment's GREETING and whether its root is writable."""

    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path in ("/health", "/v1/models"):
            self._answer(200, {"data": [{"id": "tiny"}]})
        else:
            self._answer(404, {"error": "not here"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != "/v1/chat/completions":
            self._answer(404, {"error": "not here"})
            return
        writable = os.access("/usr", os.W_OK)
        text = f"uid {os.getuid()} says {os.environ.get('GREETING', 'nothing')}, root writable: {writable}"
        self._answer(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
