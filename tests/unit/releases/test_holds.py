"""What a hold takes from its release, what stays the inventory's, and when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.releases import Wished, apply_hold, has_ended, launch_of
from modelyard.releases.holds import is_wished, make_hold
from tests.unit.releases.made import IMAGE, entry, image, release

DIGEST = "registry.example/vllm@sha256:" + "a" * 64
NOW = entry(args={"max_model_len": 8192}, source={"hub": "a/b", "revision": "2" * 40}, image="other:2")


def wished(images: dict[str, Any] | None = None, **changes: Any) -> Wished:
    return Wished(launch_of(entry(**changes)), images if images is not None else {"h1": image()})


def test_a_release_brings_image_arguments_and_weights_and_nothing_of_routing_and_placement() -> None:
    old = release(1, images={"h1": image(digest=DIGEST)}, golden={"prompt": "p"})
    now = {**NOW, "placement": {"hosts": "all", "replicas": 5, "gpus": 4}, "routing": {"aliases": ["y"]}}
    held, notes = apply_hold(now, old, {"h1": "nvidia"})
    assert held["args"] == {"max_model_len": 4096}
    assert held["source"] == {"hub": "a/b", "revision": "1" * 40}
    assert held["images"] == {"h1": DIGEST}
    assert "image" not in held
    assert held["golden"] == {"prompt": "p"}
    assert held["placement"] == {"hosts": "all", "replicas": 5, "gpus": 1}
    assert held["routing"] == {"aliases": ["y"]}
    assert held["env"] == {"TOKEN": "secret-1"}
    assert notes == []


@pytest.mark.parametrize(
    ("wished", "now", "taken"),
    [
        (
            "docker.io/vllm/vllm-openai:v1",
            {"vllm/vllm-openai:v1": "sha256:a"},
            "docker.io/vllm/vllm-openai:v1",
        ),
        ("vllm", {"vllm:latest": "sha256:a"}, "vllm"),
        ("reg:5000/vllm", {"reg:5000/vllm:latest": "sha256:a"}, "reg:5000/vllm"),
        ("vllm:1", {"vllm:1": "sha256:b"}, "sha256:a"),
        ("vllm:1", {}, "sha256:a"),
    ],
)
def test_an_image_keeps_its_name_where_that_still_stands_for_it(
    wished: str, now: dict[str, str], taken: str
) -> None:
    old = release(1, images={"h1": image(wished, image_id="sha256:a"), "h2": image(wished)})
    held, _ = apply_hold(NOW, old, {"h1": "nvidia", "h2": "nvidia"}, {"h1": now, "h2": now})
    assert held["images"] == {"h1": taken, "h2": wished}


def test_hosts_of_another_kind_get_their_own_image() -> None:
    old = release(1, images={"h1": image(digest=DIGEST), "h2": image("rocm:1@sha256:b", "rocm")})
    held, notes = apply_hold(NOW, old, {"h2": "rocm", "h3": "nvidia", "h4": "cpu"})
    assert held["images"] == {"h2": "rocm:1@sha256:b", "h3": DIGEST}
    assert notes == ["it had no image for h4 (cpu): that of the inventory is used"]


def test_what_cannot_be_kept_is_said() -> None:
    old = release(1, env={"GONE": "1", "TOKEN": "secret-1", "SAME": "s"})
    held, notes = apply_hold(
        {**NOW, "env": {"TOKEN": "secret-2", "SAME": "s", "NEW": 1}}, old, {"h1": "nvidia"}
    )
    assert held["env"] == {"TOKEN": "secret-2", "SAME": "s"}
    assert notes == [
        "env GONE is no longer in the inventory, so it runs without it",
        "env TOKEN has another value than it had then",
        f"the digest of {IMAGE} was not recorded: what that name stands for may have changed",
    ]
    assert "secret" not in str(notes)


def test_a_runtime_and_weights_that_the_release_did_not_name_are_not_those_of_now() -> None:
    held, _ = apply_hold({**NOW, "runtime": "process"}, release(1, source=None, images={}), {"h1": "nvidia"})
    assert "runtime" not in held
    assert "source" not in held


@pytest.mark.parametrize(
    ("now", "ended"),
    [
        (wished(), False),
        (wished(routing={"aliases": []}, placement={"hosts": "h9", "replicas": 9, "gpus": 1}), False),
        (wished(golden={"prompt": "another"}), False),
        (wished({}), False),
        (wished({"h1": image(), "h2": image("new:1")}), False),
        (wished(args={"max_model_len": 1}), True),
        (wished(env={"TOKEN": "rotated"}), True),
        (wished(source={"path": "/m"}), True),
        (wished({"h1": image("new:1")}), True),
        (wished(placement={"hosts": "engine_hosts", "replicas": 2, "gpus": 2}), True),
    ],
)
def test_when_a_hold_ends(now: Wished, ended: bool) -> None:
    hold = make_hold(release(1), wished(), "2026-05-04T12:00:00+00:00", "ann@here")
    assert has_ended(hold, now) is ended


def test_a_release_that_is_the_wish_needs_no_hold() -> None:
    assert is_wished(release(1), wished())
    assert not is_wished(release(1), wished({"h1": image("new:1")}))
    assert not is_wished(release(1, args={}), wished())
