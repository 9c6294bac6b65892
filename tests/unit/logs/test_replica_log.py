"""A replica's log, look by look: nothing twice, nothing lost, whatever happens to the log in between."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.replica_log import (
    LogError,
    container_log,
    process_log,
)

FLEET, REPLICA = "f", "h.m.0"


def texts(piece: Any) -> list[str]:
    return [line["line"] for line in piece.lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / REPLICA
    place.mkdir()
    return place


def write(folder: Path, text: str) -> None:
    with (folder / "output.log").open("a", encoding="utf-8") as file:
        file.write(text)


def test_the_end_of_a_log_and_what_comes_after_it(folder: Path) -> None:
    with pytest.raises(LogError, match="no log yet"):
        process_log(folder, 5, {}, True)
    write(folder, "one\ntwo\nthree\npart")
    assert texts(process_log(folder, 2, {}, True)) == ["three", "part"]
    first = process_log(folder, 2, {}, False)
    assert texts(first) == ["two", "three"]
    write(folder, "ial\nfour\nunfin")
    second = process_log(folder, 2, first.cursor, False)
    assert texts(second) == ["partial", "four"]
    third = process_log(folder, 2, second.cursor, False)
    assert (texts(third), third.more) == ([], False)
    write(folder, "ished\n")
    assert texts(process_log(folder, 2, third.cursor, False)) == ["unfinished"]


def test_no_lines_to_begin_with(folder: Path) -> None:
    write(folder, "old\n")
    first = process_log(folder, 0, {}, False)
    write(folder, "new\n")
    assert (texts(first), texts(process_log(folder, 0, first.cursor, False))) == ([], ["new"])


def test_a_log_that_was_put_aside_is_read_to_its_end(folder: Path) -> None:
    write(folder, "one\n")
    first = process_log(folder, 9, {}, False)
    write(folder, "last words\n")
    (folder / "output.log").rename(folder / "output.log.1")
    write(folder, "a new file\n")
    second = process_log(folder, 9, first.cursor, False)
    assert texts(second) == ["last words", "a new file"]
    assert texts(process_log(folder, 9, second.cursor, False)) == []
    # who begins now gets the lines before the new file too
    assert texts(process_log(folder, 2, {}, True)) == ["last words", "a new file"]


def test_a_log_that_was_emptied_begins_anew(folder: Path) -> None:
    write(folder, "a long first line\n")
    first = process_log(folder, 9, {}, False)
    (folder / "output.log").write_text("short\n", encoding="utf-8")
    assert texts(process_log(folder, 9, first.cursor, False)) == ["short"]


def test_many_lines_from_a_large_log(folder: Path) -> None:
    write(folder, "".join(f"line {number}\n" for number in range(50_000)))
    found = texts(process_log(folder, 20_000, {}, True))
    assert (len(found), found[0], found[-1]) == (20_000, "line 30000", "line 49999")


def test_of_a_line_that_was_overwritten_the_last_state_is_shown(folder: Path) -> None:
    write(folder, "10%\r50%\r100%\r\n\xff\n")
    assert texts(process_log(folder, 9, {}, True)) == ["100%", "\xff"]


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """As much of a container engine as a log needs: ``containers`` by name, each an id and timed lines."""

    daemon_threads = True
    containers: dict[str, tuple[str, list[tuple[str, str]]]]
    asked: list[dict[str, str]]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/containers/json":
            names = self.server.containers.items()
            body = json.dumps([{"Id": one[0], "Names": [f"/{name}"]} for name, one in names]).encode()
        else:
            self.server.asked.append(query)
            identity = url.path.split("/")[2]
            lines = next(one[1] for one in self.server.containers.values() if one[0] == identity)
            body = b"".join(self.frame(*line) for line in self.wanted(lines, query))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def wanted(lines: list[tuple[str, str]], query: dict[str, str]) -> list[tuple[str, str]]:
        if "since" in query:
            fraction = query["since"].partition(".")[2]
            lines = [line for line in lines if line[0] >= fraction]
        return lines[-int(query["tail"]) :] if "tail" in query else lines

    @staticmethod
    def frame(moment: str, text: str) -> bytes:
        payload = f"1970-01-01T00:00:00.{moment}Z {text}\n".encode()
        return b"\x01\0\0\0" + len(payload).to_bytes(4, "big") + payload

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(str(tmp_path / "docker.sock"), Handler) as server:
        server.containers, server.asked = {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def at(number: int) -> str:
    return f"{number:09d}"


def test_a_container_is_read_by_time_and_no_line_comes_twice(engine: Engine) -> None:
    socket = Path(str(engine.server_address))
    with pytest.raises(LogError, match="no container"):
        container_log(socket, FLEET, REPLICA, 9, None, {})
    lines = [(at(1), "one"), (at(2), "two"), (at(2), "also two")]
    engine.containers = {"f-h.m.0": ("new", lines), "f-h.m.0.previous": ("old", [(at(1), "no")])}
    first = container_log(socket, FLEET, REPLICA, 2, None, {})
    assert texts(first) == ["two", "also two"]
    assert first.lines[0]["time"] == "1970-01-01T00:00:00.000000002Z"
    assert texts(container_log(socket, FLEET, REPLICA, 2, None, first.cursor)) == []
    lines += [(at(2), "two again"), (at(3), "three")]
    second = container_log(socket, FLEET, REPLICA, 2, None, first.cursor)
    assert texts(second) == ["two again", "three"]
    assert engine.asked[-1]["since"] == f"0.{at(2)}"
    # replaced: the new one is read from its beginning; gone: nothing new
    engine.containers = {"f-h.m.0": ("newer", [(at(9), "hello")])}
    third = container_log(socket, FLEET, REPLICA, 0, None, second.cursor)
    assert texts(third) == ["hello"]
    engine.containers = {}
    assert container_log(socket, FLEET, REPLICA, 0, None, third.cursor).cursor == third.cursor


def test_a_container_that_has_said_nothing_yet(engine: Engine) -> None:
    socket = Path(str(engine.server_address))
    lines: list[tuple[str, str]] = []
    engine.containers = {"f-h.m.0": ("new", lines)}
    first = container_log(socket, FLEET, REPLICA, 5, 600.0, {})
    assert (texts(first), engine.asked[-1]["tail"], float(engine.asked[-1]["since"]) > 0) == ([], "5", True)
    lines.append((at(999_999_999), "one"))
    assert texts(container_log(socket, FLEET, REPLICA, 5, None, first.cursor)) == ["one"]


def test_an_engine_that_does_not_answer_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="does not answer"):
        container_log(tmp_path / "nothing.sock", FLEET, REPLICA, 5, None, {})
