from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.errors import BadRequestError
from modelyard.gateway.dialects.forms import FieldValue, FormScanner

BOUNDARY = "x--b0undary"


def part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def scanned(data: bytes, cuts: list[int]) -> tuple[list[bytes | FieldValue], FormScanner]:
    scanner = FormScanner(BOUNDARY, "model")
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    out = [item for a, b in itertools.pairwise(places) for item in scanner.feed(data[a:b])]
    return out, scanner


def joined(items: list[bytes | FieldValue]) -> bytes:
    return b"".join(item.raw if isinstance(item, FieldValue) else item for item in items)


CONTENT = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"\r\n", b"--", BOUNDARY.encode(), b"\r", b"x"]), max_size=9).map(b"".join),
).filter(lambda content: f"\r\n--{BOUNDARY}".encode() not in content)


@given(
    before=CONTENT,
    file=CONTENT,
    model=CONTENT,
    order=st.permutations(range(3)),
    preamble=st.sampled_from([b"", b"\r\n", b"hello\r\n"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
)
def test_however_a_form_is_cut_it_passes_whole_and_its_field_is_found(
    before: bytes, file: bytes, model: bytes, order: list[int], preamble: bytes, cuts: list[int]
) -> None:
    parts = [part("language", before), part("file", file, filename="a.wav"), part("model", model)]
    data = preamble + b"".join(parts[place] for place in order) + END
    out, scanner = scanned(data, cuts)
    assert joined(out) == data
    assert [item.raw for item in out if isinstance(item, FieldValue)] == [model]
    assert scanner.file_begun
    assert scanner.over


def test_the_field_before_the_file_is_told_before_the_file_begins() -> None:
    out, scanner = scanned(part("model", b"whisper") + f"--{BOUNDARY}\r\n".encode(), [])
    assert FieldValue(b"whisper") in out
    assert not scanner.file_begun


def test_a_file_that_is_called_model_is_a_file() -> None:
    out, scanner = scanned(part("model", b"x", filename="a.wav") + END, [])
    assert not [item for item in out if isinstance(item, FieldValue)]
    assert scanner.file_begun


def test_a_form_that_is_cut_short_is_not_over() -> None:
    data = part("file", b"abc", filename="a") + END
    assert not scanned(data[:-4], [])[1].over


def test_what_would_be_held_is_bounded() -> None:
    with pytest.raises(BadRequestError, match="longer than 1024 bytes"):
        scanned(part("model", b"m" * 5000) + END, [])
    with pytest.raises(BadRequestError, match="headers of a part"):
        scanned(f"--{BOUNDARY}\r\n".encode() + b"X: " + b"y" * 20_000, [])


@pytest.mark.parametrize(
    "header",
    [
        'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"',
        'Content-Disposition: form-data; name="x"; name="model"',
        "Content-Disposition: form-data; name=x; NAME*=utf-8''model",
        'Content-Disposition: form-data; name="model"; filename="a"; filename="b"',
        'Content-Disposition: form-data; name="mod\\el"',
        'Content-Disposition: form-data;\r\n name="model"',
        'Content-Disposition: form-data; name="x"\nContent-Disposition: form-data; name="model"',
    ],
)
def test_a_part_that_readers_may_name_otherwise_is_refused(header: str) -> None:
    data = part("file", b"sound", filename="a.wav") + f"--{BOUNDARY}\r\n{header}\r\n\r\nv\r\n".encode() + END
    with pytest.raises(BadRequestError):
        scanned(data, [])


@given(cuts=st.lists(st.integers(0, 10_000), max_size=40), state=st.sampled_from(["file", "model"]))
def test_a_line_that_begins_like_a_boundary_is_content(cuts: list[int], state: str) -> None:
    content = f"a\r\n--{BOUNDARY}X\r\n--{BOUNDARY}-\r\nb".encode()
    data = part(state, content, filename="a" if state == "file" else None) + part("model", b"last") + END
    out, scanner = scanned(data, cuts)
    assert joined(out) == data
    values = [item.raw for item in out if isinstance(item, FieldValue)]
    assert values == ([content, b"last"] if state == "model" else [b"last"])
    assert scanner.over


@pytest.mark.parametrize("padding", [b" ", b"\t  "])
def test_a_boundary_may_be_padded(padding: bytes) -> None:
    head = f"--{BOUNDARY}".encode()
    data = (part("model", b"v") + END).replace(head + b"\r\n", head + padding + b"\r\n")
    out, _ = scanned(data, [])
    assert [item.raw for item in out if isinstance(item, FieldValue)] == [b"v"]
