"""What a scenario is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stage import Stage


class Surprise(Exception):  # noqa: N818 - it is no error of the suite's: it is what the suite looks for
    """Something that must be true was not; the text says what was seen instead."""


def expect(condition: object, otherwise: str) -> None:
    """Raise ``Surprise(otherwise)`` unless ``condition`` is true."""
    if not condition:
        raise Surprise(otherwise)


Play = Callable[["Stage"], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault and what must be true of the proxy before it.

    ``play`` acts it out and returns what happened in a few words, or raises ``Surprise``. ``settings`` are
    flags of ``modelyard serve`` without their dashes. ``own_proxy`` asks for one that no other scenario uses.
    """

    name: str
    group: str
    fault: str
    expected: str
    play: Play
    settings: Mapping[str, str] = field(default_factory=dict)
    own_proxy: bool = False
    limit_s: float = 30.0
