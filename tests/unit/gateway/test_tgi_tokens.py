from __future__ import annotations

import pytest

from modelyard.gateway.dialects.tgi.tokens import joined, placed


def spans(text: str, *pieces: str) -> list[tuple[str, int, int]]:
    found = placed(text, range(len(pieces)), pieces)
    assert [item["id"] for item in found] == list(range(len(pieces)))
    return [(item["text"], item["start"], item["stop"]) for item in found]


def test_byte_level_pieces() -> None:
    assert spans("Hel wor\n", "Hel", "Ġwor", "Ċ") == [("Hel", 0, 3), (" wor", 3, 7), ("\n", 7, 8)]


def test_pieces_of_one_character_share_it() -> None:
    # é is two bytes, 你 three
    assert spans("é你", "Ã", "©", "ä", "½", "ł") == [
        ("é", 0, 1), ("é", 0, 1), ("你", 1, 2), ("你", 1, 2), ("你", 1, 2),
    ]  # fmt: skip


def test_sentence_pieces() -> None:
    assert spans("Hi é\n", "<s>", "▁Hi", "▁", "<0xC3>", "<0xA9>", "<0x0A>") == [
        ("", 0, 0), ("Hi", 0, 2), (" ", 2, 3), ("é", 3, 4), ("é", 3, 4), ("\n", 4, 5),
    ]  # fmt: skip


def test_plain_pieces() -> None:
    assert spans("é c", "é", " c") == [("é", 0, 1), (" c", 1, 3)]


def test_what_is_not_in_the_text_takes_no_room() -> None:
    assert spans("ab", "<bos>", "x", "ab", "y") == [("", 0, 0), ("", 0, 0), ("ab", 0, 2), ("", 2, 2)]


def test_an_empty_text() -> None:
    assert spans("", "<s>") == [("", 0, 0)]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["<|user|>", "Ċ", "h", "i", "Ġt"], "<|user|>\nhi t"),
        (["▁Hi", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"], " Hi😀"),
        (["a", " b"], "a b"),
        ([], ""),
    ],
)
def test_joined(pieces: list[str], text: str) -> None:
    assert joined(pieces) == text
