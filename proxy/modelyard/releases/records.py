"""One release: everything of a model that decides how its replicas are launched, and how applying it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

APPLIED, PUT_BACK, FAILED = "applied", "put_back", "failed"
OUTCOMES = (APPLIED, PUT_BACK, FAILED)

# What stays with a release but does not make another one: how it is judged, not how it runs.
_NOT_HASHED = ("golden",)


@dataclass(frozen=True, slots=True)
class Release:
    """One applied (or attempted) change of a model.

    ``launch`` is as :func:`launch_of` makes it. ``images`` says by host its ``accelerator``, the image ``wished``, and
    where that is known the ``digest`` (a reference by digest) and ``image_id``. ``at`` is UTC, ISO 8601. ``commits``
    holds for ``inventory`` and ``project`` their ``commit`` and whether the work tree was ``dirty``; None without Git.
    ``rollback_of`` is the number of the release that this one went back to.
    """

    number: int
    model: str
    at: str
    who: str
    outcome: str
    launch: Mapping[str, Any]
    images: Mapping[str, Mapping[str, Any]]
    config: str
    replicas: int
    hosts: tuple[str, ...]
    commits: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    rollback_of: int | None = None
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As plain data, the id filled in."""
        data = asdict(self) | {"hosts": list(self.hosts)}
        return data | {"id": self.id or _digest({**data, "id": ""})[:12]}

    def image_of(self, host: str, accelerator: str, named: Mapping[str, str] | None = None) -> str | None:
        """The image for a host: by digest where that is known, else by the id that it has there; for a new host that of
        another one of its kind.

        By the name that was wished where that name still stands for the same image, as ``named`` (``repository:tag`` ->
        id on that host) says: then nothing has to be started anew for being called otherwise.
        """
        own = self.images.get(host)
        if own is not None:
            wished, known = own.get("wished"), own.get("image_id")
            if wished and known and (named or {}).get(_familiar(str(wished))) == known:
                return str(wished)
            return own.get("digest") or own.get("image_id") or own.get("wished")
        alike = [one for one in self.images.values() if one.get("accelerator") == accelerator]
        found = alike[0] if alike else {}
        return found.get("digest") or found.get("wished")


def _familiar(reference: str) -> str:
    """An image's name as ``docker image ls`` shows it: the hub is not named, the tag always is."""
    short = reference.removeprefix("docker.io/").removeprefix("library/")
    return short if ":" in short.rpartition("/")[2] else f"{short}:latest"


def from_dict(data: Any) -> Release:
    """A release from plain data; ValueError, KeyError or TypeError when it is none."""
    values = {one.name: data[one.name] for one in fields(Release)}
    release = Release(**{**values, "hosts": tuple(values["hosts"])})
    if not isinstance(release.number, int) or release.number < 1:
        raise ValueError(f"its number is {release.number!r}")
    if release.outcome not in OUTCOMES:
        raise ValueError(f"the outcome of release {release.number} is {release.outcome!r}")
    for part in (release.launch, release.images, release.commits):
        if not isinstance(part, Mapping):
            raise TypeError(f"release {release.number} has a part that is no mapping")
    return release


def launch_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's own entry (defaults filled in) says of how its replicas are launched; no routing, no placement.

    Values of ``env`` as ``sha256:`` and 12 digits: a change shows, the value does not.
    """
    return {
        "engine": model["engine"],
        "runtime": model.get("runtime"),
        "args": dict(model.get("args") or {}),
        "env": {name: redacted(str(value)) for name, value in sorted((model.get("env") or {}).items())},
        "source": dict(model["source"]) if model.get("source") else None,
        "gpus": model["placement"]["gpus"],
        "resources": dict(model.get("resources") or {}),
        "smoke": dict(model.get("smoke") or {}),
        "golden": dict(model.get("golden") or {}),
        "task": model.get("task"),
    }


def redacted(value: str) -> str:
    """A secret so that only a change of it shows, as in launch specs."""
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"


def launch_hash(launch: Mapping[str, Any]) -> str:
    """sha256 over how replicas are launched."""
    return _digest({key: value for key, value in launch.items() if key not in _NOT_HASHED})


def config_hash(launch: Mapping[str, Any], images: Mapping[str, Mapping[str, Any]]) -> str:
    """sha256 over launch and wished images: neither routing nor the hosts' names change it."""
    kinds = sorted({(str(one.get("accelerator")), str(one.get("wished"))) for one in images.values()})
    return _digest({"launch": launch_hash(launch), "images": kinds})


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
