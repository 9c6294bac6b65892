"""Under which names a host may have an image: pulled by its digest, or loaded from an archive without a registry."""

from __future__ import annotations

import re

_PINNED = re.compile(r"(?P<name>[^@]+)@sha256:(?P<digest>[0-9a-f]{64})")


def names_of(reference: str) -> tuple[str, ...]:
    """The reference, and for a pinned one the tag that ``modelyard bundle`` gives it.

    An archive cannot carry an image's digest, only tags: without this a host that has loaded a pinned image would not
    find it. The other half is ``loaded_as`` of ``modelyard.bundle.images``.
    """
    match = _PINNED.fullmatch(reference)
    if match is None:
        return (reference,)
    head, colon, tag = match["name"].rpartition(":")
    repository = head if colon and "/" not in tag else match["name"]
    return (reference, f"{repository}:modelyard-{match['digest']}")
