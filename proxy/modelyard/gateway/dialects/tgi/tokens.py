"""Where in a text its tokens stand, told from the pieces that a tokenizer names them by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# how a byte-level tokenizer writes space and newline, and how SentencePiece writes a space
_SPACE, _NEWLINE, _LOW_LINE = "\u0120", "\u010a", "\u2581"


def placed(text: str, ids: Sequence[int], pieces: Sequence[str]) -> list[dict[str, Any]]:
    """TGI's ``[{"id", "text", "start", "stop"}]``, counted in characters of ``text``.

    A piece that is not found where it should stand (a token that the tokenizer adds, or text that it
    changed) is empty and takes no room. Pieces that share one character each have all of it.
    """
    raw = text.encode("utf-8", "surrogatepass")
    # for each byte the character that it belongs to, and one past the last
    owner = [
        place
        for place, character in enumerate(text)
        for _ in range(len(character.encode("utf-8", "surrogatepass")))
    ]
    found = []
    at = 0
    for number, said in zip(ids, bytes_of(pieces), strict=False):
        if said and raw.startswith(said, at):
            begin, at = at, at + len(said)
        elif said[:1] == b" " and len(said) > 1 and raw.startswith(said[1:], at):
            # SentencePiece puts a space before the first word
            begin, at = at, at + len(said) - 1
        else:
            begin = at
        start = owner[begin] if begin < len(raw) else len(text)
        stop = owner[at - 1] + 1 if at > begin else start
        found.append({"id": number, "text": text[start:stop], "start": start, "stop": stop})
    return found


def joined(pieces: Sequence[str]) -> str:
    """The text that the pieces make together."""
    return b"".join(bytes_of(pieces)).decode("utf-8", "replace")


def bytes_of(pieces: Sequence[str]) -> list[bytes]:
    """What each piece stands for, for byte-level tokenizers (GPT-2 and after), for SentencePiece, and for
    those that name their pieces plainly.
    """
    if any(" " in piece for piece in pieces):
        return [piece.encode("utf-8", "surrogatepass") for piece in pieces]
    if any(_LOW_LINE in piece or _BYTE_PIECE.fullmatch(piece) for piece in pieces):
        return [_sentence_piece(piece) for piece in pieces]
    if any(_SPACE in piece or _NEWLINE in piece for piece in pieces) or not all(map(str.isascii, pieces)):
        return [_byte_level(piece) for piece in pieces]
    return [piece.encode() for piece in pieces]


def _sentence_piece(piece: str) -> bytes:
    one = _BYTE_PIECE.fullmatch(piece)
    if one is not None:
        return bytes([int(one[1], 16)])
    return piece.replace(_LOW_LINE, " ").encode("utf-8", "surrogatepass")


def _byte_level(piece: str) -> bytes:
    table = _byte_table()
    if all(character in table for character in piece):
        return bytes(table[character] for character in piece)
    return piece.encode("utf-8", "surrogatepass")


@cache
def _byte_table() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes: printable Latin-1 as it is, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
