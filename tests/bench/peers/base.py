"""What a peer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.debian import Absent

__all__ = ["Absent", "Peer", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer is to listen, what stands behind it, and a directory of its own for its files."""

    port: int
    engines: Sequence[int]
    directory: Path
    model: str = "bench"

    @property
    def urls(self) -> list[str]:
        """The engines' base URLs."""
        return [f"http://127.0.0.1:{port}" for port in self.engines]


@dataclass(frozen=True, slots=True)
class Peer:
    """``command`` writes the files that the system needs and gives its command line; it raises ``Absent``.

    ``share`` is the part of the usual load that is enough for a slow one.
    """

    name: str
    title: str
    command: Callable[[Place], list[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    share: float = 1.0
    start_limit_s: float = 30.0
