"""HTTP and XML-RPC over a Unix socket, with the standard library only."""

from __future__ import annotations

import http.client
import os
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP connection to the server behind a socket file."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Open the socket. Raises ``OSError``."""
        # A socket's path may have 107 bytes at most; through its directory's descriptor any depth works.
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout_s)
            sock.connect(f"/proc/self/fd/{directory}/{self._path.name}")
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(directory)
        self.sock = sock


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_s = timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = UnixHTTPConnection(self._path, self._timeout_s)
        self._connection = (host, connection)  # what close() closes
        return connection


def xmlrpc_over_unix(path: Path, timeout_s: float) -> xmlrpc.client.ServerProxy:
    """A proxy for the XML-RPC server behind a socket file; a call gives up after ``timeout_s`` seconds.

    It is a context manager that closes the connection.
    """
    return xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path, timeout_s))


def get(path: Path, target: str, timeout_s: float, limit: int = -1) -> tuple[int, bytes]:
    """Status and body of a GET from the server behind a socket file, at most ``limit`` bytes of it.

    Raises ``OSError`` and ``http.client.HTTPException``.
    """
    connection = UnixHTTPConnection(path, timeout_s)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read(limit) if limit >= 0 else response.read()
    finally:
        connection.close()
