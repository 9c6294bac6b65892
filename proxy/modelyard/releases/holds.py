"""A model held at an earlier release: until its wish in the inventory becomes another one than was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from modelyard.releases.records import Release, launch_hash, redacted

# What a release brings of its own into a model's entry; everything else stays as the inventory has it.
_TAKEN = ("engine", "runtime", "args", "source", "resources", "smoke", "golden", "task")


@dataclass(frozen=True, slots=True)
class Wished:
    """What the inventory asks of one model: how to launch it, and by host its accelerator and image."""

    launch: Mapping[str, Any]
    images: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Hold:
    """``release`` is the number; ``rejected`` the hash of the inventory's launch then, ``images`` its images by host."""

    release: int
    rejected: str
    images: Mapping[str, str]
    since: str
    who: str

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def from_dict(data: Any) -> Hold:
    """A hold from plain data; ValueError, KeyError or TypeError when it is none."""
    hold = Hold(**{one.name: data[one.name] for one in fields(Hold)})
    if not isinstance(hold.release, int) or not isinstance(hold.images, Mapping):
        raise TypeError("a hold is not as it should be")
    return hold


def make_hold(release: Release, wish: Wished, since: str, who: str) -> Hold:
    """Hold a model at a release against what the inventory wishes now."""
    images = {host: str(one.get("wished")) for host, one in wish.images.items()}
    return Hold(release.number, launch_hash(wish.launch), images, since, who)


def has_ended(hold: Hold, wish: Wished) -> bool:
    """Whether the inventory has another wish than the one that was rejected.

    Routing, placement and hosts that came or went are no other wish; another image on a host is.
    """
    now = {host: str(one.get("wished")) for host, one in wish.images.items()}
    return launch_hash(wish.launch) != hold.rejected or any(
        now[host] != image for host, image in hold.images.items() if host in now
    )


def is_wished(release: Release, wish: Wished) -> bool:
    """Whether a release is just what the inventory wishes anyway."""
    same = (
        release.images.get(host, {}).get("wished") == one.get("wished") for host, one in wish.images.items()
    )
    return launch_hash(release.launch) == launch_hash(wish.launch) and all(same)


def apply_hold(
    model: Mapping[str, Any],
    release: Release,
    accelerators: Mapping[str, str],
    named: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The model's entry as the release had it, and what could not be kept of it.

    ``accelerators`` are those of the hosts that it may run on, ``named`` what names of images stand for on each. Values
    of ``env`` are the inventory's of today, for the release knows their digests only.
    """
    launch = release.launch
    held = {key: value for key, value in model.items() if key not in (*_TAKEN, "image", "env")}
    held.update({key: launch[key] for key in _TAKEN if launch.get(key) is not None})
    held["placement"] = {**(model.get("placement") or {}), "gpus": launch["gpus"]}
    images = {
        host: release.image_of(host, kind, (named or {}).get(host)) for host, kind in accelerators.items()
    }
    held["images"] = {host: image for host, image in images.items() if image}
    given = {name: str(value) for name, value in (model.get("env") or {}).items()}
    held["env"] = {name: given[name] for name in launch["env"] if name in given}
    notes = []
    for name, digest in launch["env"].items():
        if name not in given:
            notes.append(f"env {name} is no longer in the inventory, so it runs without it")
        elif redacted(given[name]) != digest:
            notes.append(f"env {name} has another value than it had then")
    if not release.images:
        return held, notes
    for host in sorted(set(accelerators) - set(held["images"])):
        notes.append(f"it had no image for {host} ({accelerators[host]}): that of the inventory is used")
    tags = sorted({str(one["wished"]) for one in release.images.values() if _by_tag(one)})
    notes += [
        f"the digest of {image} was not recorded: what that name stands for may have changed"
        for image in tags
    ]
    return held, notes


def _by_tag(image: Mapping[str, Any]) -> bool:
    known = image.get("digest") or image.get("image_id")
    return bool(image.get("wished")) and not known and "@sha256:" not in str(image["wished"])
