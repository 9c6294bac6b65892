"""Give the files of directories of weights to another host: the forced command of a key that can do nothing else.

    python3 THIS_FILE BYTES_PER_SECOND DIRECTORY...

A client first writes the number of a directory and gets a line of JSON with its manifest. Then for each line
``NUMBER OFFSET`` it gets a line with a count of bytes, and these bytes: the rest of the manifest's file with that number.
A client names no paths, so it can read nothing but what the manifests list. This file stands alone, since it is copied
to hosts by itself; it needs Python 3.7.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

MANIFEST = ".modelyard-manifest.json"
BLOCK = 1 << 18


def send(
    directories: Sequence[str],
    rate: float,
    requests: BinaryIO,
    output: BinaryIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Answer each request; ``rate`` is in bytes per second, 0 for as fast as it goes. Raises ``ValueError``."""
    root = Path(directories[_number(requests.readline())]).resolve()
    manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    output.write(json.dumps(manifest).encode() + b"\n")
    output.flush()
    begun, sent = clock(), 0
    for line in requests:
        number, offset = (_number(word) for word in line.split())
        path = (root / manifest["files"][number]["path"]).resolve()
        if root not in path.parents:
            raise ValueError("a file lies outside of its directory")
        with path.open("rb") as handle:
            left = max(0, os.fstat(handle.fileno()).st_size - offset)
            handle.seek(offset)
            output.write(b"%d\n" % left)
            while left:
                block = handle.read(min(BLOCK, left))
                if not block:
                    raise ValueError("a file became shorter while it was read")
                output.write(block)
                left -= len(block)
                sent += len(block)
                ahead = begun + sent / rate - clock() if rate else 0
                if ahead > 0:
                    output.flush()
                    sleep(ahead)
        output.flush()


def _number(word: bytes) -> int:
    number = int(word)
    if number < 0:
        raise ValueError("a number below zero")
    return number


if __name__ == "__main__":
    try:
        send(sys.argv[2:], float(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    except (OSError, ValueError, KeyError, IndexError) as problem:
        sys.exit(f"the weights cannot be sent: {problem}")
