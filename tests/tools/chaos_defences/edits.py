"""What a row of the table is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``old``, which stands once in ``file`` (below the package), by ``new``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Defence:
    """What is switched off so that ``scenario`` must fail."""

    scenario: str
    what: str
    edits: tuple[Edit, ...]


def off(scenario: str, what: str, *edits: Edit) -> Defence:
    """One row."""
    return Defence(scenario, what, edits)
