"""Copy weights from another host of the site, over an SSH key that can do nothing else, or from this very machine."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ansible_collections.modelyard.fleet.plugins.module_utils import sending
from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import require_space
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    BLOCK,
    Entry,
    UnreachedError,
    WeightsError,
    sha256_of,
)


def program() -> str:
    """The text of the sending side; it stands alone."""
    loader: Any = importlib.import_module(sending.__name__).__loader__
    return str(loader.get_source(sending.__name__))


def command(peer: Mapping[str, Any]) -> list[str]:
    """What connects to a peer: its forced command over SSH, or on this machine the same program.

    ``peer`` has ``host`` (for messages), ``bytes`` and either ``directory`` with ``rate`` in bytes per second (this
    machine), or ``number`` (of the directory), ``address``, ``port``, ``user``, ``key`` and ``host_keys``.
    """
    if peer.get("directory"):
        return [sys.executable, "-c", program(), str(float(peer["rate"])), str(peer["directory"])]
    return [
        *["ssh", "-F", "/dev/null", "-i", str(peer["key"]), "-p", str(peer["port"]), "-T", "-x", "-a"],
        *["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"],
        *["-o", f"UserKnownHostsFile={_known_hosts(peer)}", "-o", "GlobalKnownHostsFile=/dev/null"],
        *["-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"],
        *[
            "-o",
            "ClearAllForwardings=yes",
            "-o",
            "PreferredAuthentications=publickey",
            "-o",
            "LogLevel=ERROR",
        ],
        *["-l", str(peer["user"]), "--", str(peer["address"]), "weights"],
    ]


def _known_hosts(peer: Mapping[str, Any]) -> Path:
    return Path(f"{peer['key']}.{peer['host']}.known")


def fetch(content: Path, source: Mapping[str, Any], peer: Mapping[str, Any], reserve: int) -> dict[str, str]:
    """Bring ``content`` to what the peer has of ``source``, going on where an earlier run stopped.

    Each file is hashed against the peer's manifest; gives their SHA-256. Raises ``WeightsError``; what arrived is kept.
    """
    host = peer["host"]
    if not peer.get("directory"):
        _known_hosts(peer).write_text("".join(f"{line}\n" for line in peer["host_keys"]), encoding="utf-8")
    try:
        process = subprocess.Popen(
            command(peer), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise UnreachedError(f"{host} cannot be asked for the weights: {error}; install ssh here") from error
    with process:
        ask, answer, complaint = process.stdin, process.stdout, process.stderr
        if ask is None or answer is None or complaint is None:
            raise WeightsError(f"{host} cannot be asked for the weights: no pipe to ssh")
        try:
            with suppress(BrokenPipeError):  # what it did not want to hear, it does not answer either
                ask.write(b"%d\n" % int(peer.get("number") or 0))
                ask.flush()
            return _take_all(content, source, host, ask, answer, reserve)
        except (_LostError, BrokenPipeError) as error:
            process.kill()
            said = complaint.read().decode(errors="replace").strip().splitlines()
            why = said[-1] if said else str(error) or "the connection was lost"
            kind = UnreachedError if isinstance(error, _SilentError) else WeightsError
            raise kind(
                f"copying from {host} failed: {why}. What arrived is kept; the next run goes on from there. If hosts "
                "of this site cannot reach each other by SSH, set fleet_weights_address, or fleet_weights_site: '' "
                "to let each fetch for itself"
            ) from error
        finally:
            process.kill()


class _LostError(Exception):
    """The other side said too little."""


class _SilentError(_LostError):
    """The other side said nothing at all."""


def _take_all(
    content: Path, source: Mapping[str, Any], host: str, ask: IO[bytes], answer: IO[bytes], reserve: int
) -> dict[str, str]:
    line = answer.readline()
    if not line.endswith(b"\n"):
        raise _SilentError
    try:
        document = json.loads(line)
        entries = [
            Entry(str(item["path"]), int(item["size"]), str(item["sha256"])) for item in document["files"]
        ]
        theirs = dict(document["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{host} has no manifest that can be understood: {error}") from error
    if theirs != dict(source):
        raise WeightsError(f"{host} holds other weights than those that are wanted: run this again")
    content.mkdir(mode=0o755, exist_ok=True)
    missing = sum(entry.size - _have(content, entry) for entry in entries)
    require_space(content, missing, reserve, f"the copy from {host}")
    for number, entry in enumerate(entries):
        path = _place(content, entry)
        for attempt in ("first", "last"):
            offset = _have(content, entry)
            if offset < entry.size or not path.exists():
                _take(path, offset, entry, number, ask, answer)
            if sha256_of(path) == entry.sha256:
                break
            path.unlink()
            if attempt == "last" or offset == 0:
                raise WeightsError(
                    f"{entry.path} of {host} has another content than its manifest says (SHA-256 differs): the copy "
                    "there was changed. Run this again: it will be found and mended there first"
                )
    return {entry.path: entry.sha256 for entry in entries}


def _place(content: Path, entry: Entry) -> Path:
    path = content / entry.path
    if ".." in Path(entry.path).parts or Path(entry.path).is_absolute():
        raise WeightsError(f"{entry.path!r} lies outside of the directory of the weights: refused")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _have(content: Path, entry: Entry) -> int:
    """Bytes of a file that are here; one that is too long counts as none."""
    path = content / entry.path
    size = path.stat().st_size if path.is_file() else 0
    if size > entry.size:
        path.unlink()
        return 0
    return size


def _take(path: Path, offset: int, entry: Entry, number: int, ask: IO[bytes], answer: IO[bytes]) -> None:
    ask.write(b"%d %d\n" % (number, offset))
    ask.flush()
    line = answer.readline()
    if not line.endswith(b"\n"):
        raise _LostError
    left = int(line)
    if left != entry.size - offset:
        raise WeightsError(
            f"{entry.path} has {left + offset} bytes on the other host instead of {entry.size}: run this again"
        )
    with path.open("ab") as handle:
        while left:
            block = answer.read(min(BLOCK, left))
            if not block:
                raise _LostError
            handle.write(block)
            left -= len(block)
