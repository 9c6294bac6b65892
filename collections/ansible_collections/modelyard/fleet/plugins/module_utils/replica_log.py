"""The log of one replica, piece by piece: each look returns what came since the cursor of the look before.

Nothing stays behind on the host between two looks. A cursor is plain data that the caller hands back as it got it.
"""

from __future__ import annotations

import calendar
import http.client
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import (
    LABEL,
    PREVIOUS,
    container_name,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.postmortem import plain_log
from ansible_collections.modelyard.fleet.plugins.module_utils.unix_http import get

MOST_BYTES = 4 << 20
"""Bytes of one look; more is left to the next."""

_BLOCK = 1 << 16
_TIMEOUT_S = 20.0
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


class LogError(Exception):
    """Why there is no log to show, and what to do."""


@dataclass
class Piece:
    """What one look gave: lines as ``{"time", "line"}``, the cursor for the next, whether more waits already."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    cursor: dict[str, Any] = field(default_factory=dict)
    more: bool = False


def process_log(folder: Path, lines: int, cursor: dict[str, Any], whole: bool) -> Piece:
    """From ``output.log`` of a process. ``whole``: also a last line that is not finished yet.

    A log that was rotated since the last look is read to its end first. Raises ``LogError``, ``OSError``.
    """
    path = folder / "output.log"
    if not path.exists():
        raise LogError(f"{folder.name} has no log yet ({path})")
    if not cursor:
        found, cursor = _tail(path, lines, whole)
        earlier = path.with_name(path.name + ".1")
        if len(found) < lines and earlier.exists():
            found = _tail(earlier, lines - len(found), True)[0] + found
        return Piece([_line(None, line) for line in found], cursor)
    raw = b""
    if path.stat().st_ino != cursor["inode"]:
        raw = _rest_of_rotated(path, cursor)
        cursor = {"inode": path.stat().st_ino, "offset": 0}
    with path.open("rb") as handle:
        size = handle.seek(0, 2)
        offset = cursor["offset"] if cursor["offset"] <= size else 0  # it was emptied
        handle.seek(offset)
        new = handle.read(MOST_BYTES)
    complete = new[: new.rfind(b"\n") + 1]
    if not complete and len(new) == MOST_BYTES:
        complete = new  # a line longer than a look
    text = (raw + complete).decode("utf-8", "replace")
    found = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n") if text else []
    cursor = {"inode": cursor["inode"], "offset": offset + len(complete)}
    return Piece([_line(None, line) for line in found], cursor, more=len(new) == MOST_BYTES)


def _rest_of_rotated(path: Path, cursor: dict[str, Any]) -> bytes:
    """What was written to the log before it was put aside, as far as it is still there."""
    earlier = path.with_name(path.name + ".1")
    try:
        if earlier.stat().st_ino != cursor["inode"]:
            return b""
        with earlier.open("rb") as handle:
            handle.seek(cursor["offset"])
            rest = handle.read(MOST_BYTES)
    except OSError:
        return b""
    return rest + b"\n" if rest and not rest.endswith(b"\n") else rest


def _tail(path: Path, lines: int, whole: bool) -> tuple[list[str], dict[str, Any]]:
    """The last lines of a file, and where it ends."""
    with path.open("rb") as handle:
        inode = path.stat().st_ino
        end = handle.seek(0, 2)
        start, raw = end, b""
        while start > 0 and raw.count(b"\n") <= lines and end - start < MOST_BYTES:
            step = min(_BLOCK, start)
            start -= step
            handle.seek(start)
            raw = handle.read(step) + raw
    complete = raw[: raw.rfind(b"\n") + 1]
    shown = raw if whole else complete
    found = shown.decode("utf-8", "replace").split("\n")
    if found[-1] == "":
        found.pop()
    used = end if whole else end - (len(raw) - len(complete))
    return found[-lines:] if lines else [], {"inode": inode, "offset": used}


def container_log(
    socket: Path, fleet: str, replica: str, lines: int, since_s: float | None, cursor: dict[str, Any]
) -> Piece:
    """From the container of a replica. ``since_s``: only lines of the last so many seconds.

    A container that took the place of the one before is read from its beginning; while there is none, there is
    nothing new. Raises ``LogError``.
    """
    identity = _container(socket, fleet, replica)
    if identity is None:
        if cursor:
            return Piece(cursor=cursor)
        raise LogError(f"{replica} has no container on this host")
    asked = {"stdout": "1", "stderr": "1", "timestamps": "1"}
    begun = time.time()
    known = cursor if cursor.get("id") == identity else {}
    if known:
        asked["since"] = _as_seconds(known["at"])
    elif not cursor:
        asked["tail"] = str(lines)
        if since_s is not None:
            asked["since"] = f"{begun - since_s:.9f}"
    raw = _ask(socket, f"/containers/{quote(identity)}/logs?{urlencode(asked)}", MOST_BYTES)
    found = _timed(plain_log(raw))
    if len(raw) == MOST_BYTES and len(found) > 1:
        found.pop()  # perhaps a part only; it comes whole with the next look
    if known:
        same = sum(line["time"] == known["at"] for line in found)
        found = found[min(same, known["seen"]) :]
    at = found[-1]["time"] if found else known.get("at") or _as_time(begun)
    seen = sum(line["time"] == at for line in found) + (known["seen"] if known.get("at") == at else 0)
    return Piece(found, {"id": identity, "at": at, "seen": seen}, more=len(raw) == MOST_BYTES)


def _container(socket: Path, fleet: str, replica: str) -> str | None:
    """Id of the container that is this replica, not one kept from before."""
    labels = [f"{LABEL}.fleet={fleet}", f"{LABEL}.replica={replica}"]
    query = urlencode({"all": "true", "filters": json.dumps({"label": labels})})
    found = {
        str(name).lstrip("/"): str(item["Id"])
        for item in json.loads(_ask(socket, f"/containers/json?{query}"))
        for name in item.get("Names") or []
    }
    current = {name: identity for name, identity in found.items() if not name.endswith(PREVIOUS)}
    return current.get(container_name(fleet, replica)) or next(iter(current.values()), None)


def _ask(socket: Path, target: str, limit: int = -1) -> bytes:
    try:
        status, body = get(socket, target, _TIMEOUT_S, limit)
    except (OSError, http.client.HTTPException) as error:
        raise LogError(f"the container engine behind {socket} does not answer: {error}") from error
    if status != 200:
        told = body[:300].decode("utf-8", "replace").strip()
        raise LogError(f"the container engine answered {status}: {told}")
    return body


def _timed(text: str) -> list[dict[str, Any]]:
    """Lines that begin with the engine's time; one without belongs to the line before."""
    found: list[dict[str, Any]] = []
    for line in text.split("\n")[:-1] if text.endswith("\n") else text.split("\n"):
        moment, _, rest = line.partition(" ")
        if _TIME.fullmatch(moment):
            found.append(_line(moment, rest))
        elif line:
            found.append(_line(found[-1]["time"] if found else None, line))
    return found


def _line(moment: str | None, text: str) -> dict[str, Any]:
    # of a line that was overwritten in place (a progress bar) only the last state
    return {"time": moment, "line": text.rstrip("\r").rpartition("\r")[2]}


def _as_seconds(moment: str) -> str:
    """An engine's time as it wants it in a question: seconds since 1970 with nine digits behind the dot."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    return f"{calendar.timegm(time.strptime(whole, '%Y-%m-%dT%H:%M:%S'))}.{fraction}"


def _as_time(seconds: float) -> str:
    nanoseconds = int(seconds % 1 * 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds))) + f".{nanoseconds:09d}Z"
