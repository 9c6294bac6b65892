"""A small bundle on disk, and sources that need no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard.bundle.collect import Made, collect
from modelyard.bundle.sources import Collected, Source, Told

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Silent:
    """Told, and keeps only the names."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def part(self, text: str, total: int | None) -> None:
        self.parts.append(text)

    def at(self, done: int) -> None: ...

    def moved(self, count: int) -> None: ...


@dataclass
class Weights:
    """Weights out of a mapping of files; counts how often they were asked for."""

    name: str
    files: Mapping[str, bytes]
    asked: int = 0
    fail: Callable[[Path], None] | None = None
    kind: str = "weights"
    source: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"weights/{self.name}"

    @property
    def wish(self) -> Mapping[str, Any]:
        return {"weights": self.name, "files": sorted(self.files)}

    def expected(self) -> int | None:
        return None

    def collect(self, scratch: Path, told: Told) -> Collected:
        self.asked += 1
        told.part(self.name, None)
        content = scratch / "content"
        for name, data in self.files.items():
            place = content / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        if self.fail is not None:
            self.fail(scratch)
        details = {"source": self.source or {"path": f"/srv/{self.name}"}, "models": [self.name]}
        return Collected(content, details)


def make(directory: Path, sources: Sequence[Source], without: Sequence[str] = ()) -> Made:
    return collect(directory, sources, without=without, version="1", now=lambda: MOMENT, told=Silent())
