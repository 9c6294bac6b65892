"""A stand-in for what weights are fetched from: files with ranges and faults, and the hub's endpoints.

    /files/NAME                        a file of the directory, ranges supported
    /tree/PATH                         the same for files in folders
    /cut/BYTES/NAME                    the same, but each answer ends after so many bytes, without a word
    /plain/NAME                        the same, but ranges are ignored
    /api/models/OWNER/NAME/tree/REV    the hub's listing of DIRECTORY/OWNER/NAME
    /OWNER/NAME/resolve/REV/PATH       the hub's files
    /sent                              bytes of the hub's files that were sent so far, by name
    /requests                          what was asked so far: method, path, range, authorization given or not

Binds an ephemeral port of 127.0.0.1 (or of --listen) and writes it to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

LARGE = 1000
"""Files from this size on are listed as large ones (with a SHA-256), as the hub does with LFS."""

LOG: web.AppKey[list[dict[str, Any]]] = web.AppKey("log", list)
ROOT: web.AppKey[Path] = web.AppKey("root", Path)
TOKEN: web.AppKey[str] = web.AppKey("token", str)
RATE: web.AppKey[float] = web.AppKey("rate", float)
SENT: web.AppKey[dict[str, int]] = web.AppKey("sent", dict)
DIGESTS: web.AppKey[dict[tuple[str, int, int], str]] = web.AppKey("digests", dict)


@web.middleware
async def _note(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path not in ("/requests", "/sent"):
        request.app[LOG].append(
            {
                "method": request.method,
                "path": request.path,
                "range": request.headers.get("Range"),
                "authorized": request.headers.get("Authorization") == f"Bearer {request.app[TOKEN]}",
            }
        )
    answer: web.StreamResponse = await handler(request)
    return answer


def _file(request: web.Request, *parts: str) -> Path:
    root = request.app[ROOT].resolve()
    path = root.joinpath(*parts).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise web.HTTPNotFound
    return path


async def _files(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(_file(request, request.match_info["name"]))


async def _plain(request: web.Request) -> web.StreamResponse:
    return web.Response(body=_file(request, request.match_info["name"]).read_bytes())


async def _cut(request: web.Request) -> web.StreamResponse:
    data = _file(request, request.match_info["name"]).read_bytes()
    start = request.http_range.start or 0
    limit = int(request.match_info["bytes"])
    headers = {"Content-Length": str(len(data) - start)}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    await response.write(data[start : start + limit])
    if start + limit < len(data):
        assert request.transport is not None
        request.transport.close()  # flushes what was written, then the line is dead
    return response


def _blob(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's own name of a file


def _sha256(request: web.Request, path: Path) -> str:
    """The digest of a large file, made anew when the file changes."""
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    known = request.app[DIGESTS]
    if key not in known:
        known[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return known[key]


def _repository(request: web.Request) -> Path:
    root = request.app[ROOT].resolve()
    path = (root / request.match_info["owner"] / request.match_info["name"]).resolve()
    if request.match_info["owner"] == "private" and (
        request.headers.get("Authorization") != f"Bearer {request.app[TOKEN]}"
    ):
        raise web.HTTPUnauthorized
    if not path.is_relative_to(root) or not path.is_dir():
        raise web.HTTPNotFound
    return path


async def _tree(request: web.Request) -> web.StreamResponse:
    repository = _repository(request)
    listing: list[dict[str, Any]] = []
    for path in sorted(repository.rglob("*")):
        name = path.relative_to(repository).as_posix()
        if path.is_dir():
            listing.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
            continue
        size = path.stat().st_size
        entry = {"type": "file", "path": name, "oid": _blob(path), "size": size}
        if size >= LARGE:
            digest = _sha256(request, path)
            entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
        listing.append(entry)
    return web.json_response(listing)


async def _resolve(request: web.Request) -> web.StreamResponse:
    repository = _repository(request)
    path = _file(request, str(repository), request.match_info["path"])
    large = path.stat().st_size >= LARGE
    etag = _sha256(request, path) if large else _blob(path)
    headers = {"X-Repo-Commit": request.match_info["revision"], "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    size, start = path.stat().st_size, request.http_range.start or 0
    headers["Content-Length"] = str(size - start)
    if start:
        headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    rate = request.app[RATE]
    with path.open("rb") as handle:
        handle.seek(start)
        while block := handle.read(1 << 18):
            await response.write(block)
            request.app[SENT][path.name] = request.app[SENT].get(path.name, 0) + len(block)
            if rate:
                await asyncio.sleep(len(block) / rate)
    return response


async def _sent(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.app[SENT])


async def _requests(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.app[LOG])


def make_app(root: Path, token: str, rate: float = 0) -> web.Application:
    """The server's application over the files below ``root``; models of the owner ``private`` need the token.

    The hub's files come at ``rate`` bytes per second; 0 is as fast as it goes.
    """
    app = web.Application(middlewares=[_note])
    app[ROOT] = root
    app[TOKEN] = token
    app[LOG] = []
    app[RATE], app[SENT], app[DIGESTS] = rate, {}, {}
    app.router.add_get("/sent", _sent)
    app.router.add_get("/requests", _requests)
    app.router.add_get("/files/{name}", _files)
    app.router.add_get("/tree/{name:.+}", _files)
    app.router.add_get("/plain/{name}", _plain)
    app.router.add_get("/cut/{bytes}/{name}", _cut)
    app.router.add_get("/api/models/{owner}/{name}/tree/{revision}", _tree)
    app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", _resolve)
    return app


async def _serve(root: Path, token: str, rate: float, listen: str, announce: Callable[[int], object]) -> None:
    runner = web.AppRunner(make_app(root, token, rate))
    await runner.setup()
    site = web.TCPSite(runner, listen, 0)
    await site.start()
    announce(runner.addresses[0][1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("port_file", type=Path)
    parser.add_argument("--token", default="test-token")
    parser.add_argument("--rate", type=float, default=0, help="bytes per second of each of the hub's files")
    parser.add_argument("--listen", default="127.0.0.1")
    chosen = parser.parse_args()
    announce = chosen.port_file
    asyncio.run(
        _serve(
            chosen.root,
            chosen.token,
            chosen.rate,
            chosen.listen,
            lambda port: announce.write_text(f"{port}\n"),
        )
    )
