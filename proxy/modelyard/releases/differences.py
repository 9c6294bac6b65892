"""What differs between two releases, as flat names with the value before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.releases.records import Release


@dataclass(frozen=True, slots=True)
class Difference:
    """One field; None is absent. Values of ``env`` are digests."""

    field: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.field.startswith("env."):
            state = "added" if self.before is None else "removed" if self.after is None else "changed"
            return f"{self.field} {state}"
        return f"{self.field} {_shown(self.before)} -> {_shown(self.after)}"


def differences(old: Release, new: Release) -> list[Difference]:
    """All differences in launch, images and placement, by name."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        Difference(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(release: Release) -> Iterator[tuple[str, str]]:
    for key, value in release.launch.items():
        if key in ("args", "env", "source", "resources", "smoke", "golden") and isinstance(value, Mapping):
            for name, item in value.items():
                yield (name if key == "args" else f"{key}.{name}"), _text(item)
        elif value not in (None, {}):
            yield key, _text(value)
    images = sorted({str(one.get("digest") or one.get("wished")) for one in release.images.values()})
    if images:
        yield "image", ", ".join(images)
    yield "replicas", str(release.replicas)
    yield "hosts", ", ".join(release.hosts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shown(value: str | None) -> str:
    return "none" if value is None else value
