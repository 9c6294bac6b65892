"""Releases to test with."""

from __future__ import annotations

from typing import Any

from modelyard.releases import APPLIED, Release, config_hash, launch_of

IMAGE = "registry.example/vllm:1"


def entry(**changes: Any) -> dict[str, Any]:
    """A model's entry with its defaults filled in."""
    return {
        "id": "m", "engine": "vllm", "runtime": None, "task": "generate", "image": None,
        "placement": {"hosts": "engine_hosts", "replicas": 2, "gpus": 1},
        "args": {"max_model_len": 4096}, "env": {"TOKEN": "secret-1"},
        "source": {"hub": "a/b", "revision": "1" * 40}, "resources": {}, "smoke": {}, "golden": {},
        "routing": {"aliases": ["x"]},
    } | changes  # fmt: skip


def image(wished: str = IMAGE, kind: str = "nvidia", **more: Any) -> dict[str, Any]:
    return {"accelerator": kind, "wished": wished, "digest": None, "image_id": None} | more


def release(number: int, **changes: Any) -> Release:
    """A release; ``args`` and other parts of a model's entry may be given beside its own fields."""
    own = {"outcome", "images", "rollback_of", "replicas", "hosts", "note", "model"}
    launch = launch_of(entry(**{key: value for key, value in changes.items() if key not in own}))
    given = {key: value for key, value in changes.items() if key in own}
    images = given.pop("images", {"h1": image()})
    values: dict[str, Any] = {"model": "m", "outcome": APPLIED, "replicas": 2, "hosts": ("h1",)} | given
    return Release(
        number=number, at=f"2026-05-04T12:00:{number % 60:02d}+00:00", who="ann@here", launch=launch, images=images,
        config=config_hash(launch, images), commits={"inventory": {"commit": "c" * 40, "dirty": True}}, **values,
    )  # fmt: skip
