from __future__ import annotations

import pytest
from multidict import CIMultiDict

from modelyard.gateway.homes import Home, IdWatch, ResponseHomes

HOME = Home("m", "h.m.0")


class Said:
    """An answer in pieces."""

    status = 200
    headers: CIMultiDict[str] = CIMultiDict()

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces, b""]

    async def chunk(self) -> bytes:
        return self._pieces.pop(0)


def test_the_oldest_is_forgotten_and_nothing_is_kept_for_ever() -> None:
    now = [0.0]
    homes = ResponseHomes(lambda: now[0], capacity=2, age_s=10)
    homes.remember("a", HOME)
    homes.remember("b", HOME)
    assert homes.find("a") == HOME
    homes.remember("c", HOME)
    assert (homes.find("a"), homes.find("b"), len(homes)) == (HOME, None, 2)
    now[0] = 11.0
    assert homes.find("a") is None
    assert len(homes) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [b'{"id":"resp_1","object":"response"}'],
        [b'{"id": "re', b'sp_1", "x": "', b'\\"id\\":\\"resp_2"}'],
        [
            b"event: response.created\n",
            b'data: {"type":"response.created","response":{"id":"resp_1"',
            b"}}\n\n",
        ],
    ],
)
async def test_the_id_is_read_off_the_bytes_that_pass(pieces: list[bytes]) -> None:
    found: list[str] = []
    first, *rest = pieces
    watch = IdWatch(Said(*rest), first, found.append)
    passed = first
    while data := await watch.chunk():
        passed += data
    assert passed == b"".join(pieces)
    assert found == ["resp_1"]


async def test_only_the_beginning_is_looked_at() -> None:
    found: list[str] = []
    watch = IdWatch(Said(b'{"id":"resp_1"}'), b" " * 20_000, found.append)
    assert await watch.chunk() == b'{"id":"resp_1"}'
    assert found == []
