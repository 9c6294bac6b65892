"""Which release `previous` is, from wherever one stands."""

from __future__ import annotations

import pytest

from modelyard.errors import ConfigError
from modelyard.releases import FAILED, PUT_BACK, Release, Store, named, previous
from tests.unit.releases.made import release


def made(number: int, version: int, rollback_of: int | None = None, outcome: str = "applied") -> Release:
    return release(number, args={"version": version}, rollback_of=rollback_of, outcome=outcome)


def store(*releases: Release) -> Store:
    return Store("m", releases)


THREE = (made(1, 1), made(2, 2), made(3, 3))
BACK = (*THREE, made(4, 2, 2))


@pytest.mark.parametrize(
    ("releases", "held", "expected"),
    [
        (THREE, None, 2),
        # held, whether or not it was applied yet: on backwards, never forth again
        (THREE, 2, 1),
        (BACK, 2, 1),
        (BACK, None, 1),
        # the wish was changed after going back: what ran before it is what one went back to
        ((*BACK, made(5, 5)), None, 2),
        ((*BACK, made(5, 1, 1), made(6, 3)), None, 1),
        # the same configuration again, on more hosts for example, is nothing to go back to
        ((made(1, 1), made(2, 2), made(3, 2)), None, 1),
        # reverted in the inventory: what ran before that
        ((made(1, 1), made(2, 2), made(3, 1)), None, 2),
        # an attempt that failed is left for what ran before it
        ((made(1, 1), made(2, 2), made(3, 3, outcome=PUT_BACK)), None, 2),
        ((made(1, 1), made(2, 2, outcome=FAILED), made(3, 3)), None, 1),
    ],
)
def test_previous(releases: tuple[Release, ...], held: int | None, expected: int) -> None:
    assert previous(store(*releases), held).number == expected


@pytest.mark.parametrize(
    ("releases", "held", "said"),
    [
        ((), None, "No release of m is recorded"),
        ((made(1, 1),), None, "nothing before release 1"),
        (BACK, 1, "nothing before release 1"),
        ((made(1, 1), made(2, 1)), None, "nothing before release 2"),
    ],
)
def test_there_is_no_previous_one(releases: tuple[Release, ...], held: int | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        previous(store(*releases), held)


def test_named() -> None:
    whole = store(*BACK, made(5, 5, outcome=FAILED))
    assert named(whole, 1).number == 1
    assert named(whole, 4).number == 2, "a release that went back is what it went back to"
    with pytest.raises(ConfigError, match=r"no release 9 of m\. Recorded as applied: 1, 2, 3, 4"):
        named(whole, 9)
    with pytest.raises(ConfigError, match="Release 5 of m was not applied"):
        named(whole, 5)
