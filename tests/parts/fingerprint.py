"""Names for what is built: a short hash over everything that defines it."""

from __future__ import annotations

import hashlib
from pathlib import Path

PREFIX = "modelyard-test"


def fingerprint(*pieces: str | Path) -> str:
    """Twelve hexadecimal digits over `pieces`: texts as they are, files by name, mode and content.

    A directory stands for all files below it.
    """
    digest = hashlib.sha256()
    for piece in pieces:
        if isinstance(piece, str):
            _add(digest, b"text", piece.encode())
            continue
        files = sorted(p for p in piece.rglob("*") if p.is_file()) if piece.is_dir() else [piece]
        for file in files:
            if "__pycache__" in file.parts:
                continue
            name = file.relative_to(piece) if piece.is_dir() else Path(file.name)
            executable = "x" if file.stat().st_mode & 0o100 else "-"
            _add(digest, f"{name}:{executable}".encode(), file.read_bytes())
    return digest.hexdigest()[:12]


def image_tag(name: str, *pieces: str | Path) -> str:
    """The tag of the image `name` that `pieces` define."""
    return f"{PREFIX}/{name}:{fingerprint(name, *pieces)}"


def _add(digest: hashlib._Hash, name: bytes, content: bytes) -> None:
    # lengths keep neighbouring pieces apart
    for part in (name, content):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
