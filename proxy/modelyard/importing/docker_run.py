"""A ``docker run`` (or ``podman run``) command line as a container."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.importing.box import Box, Gpus, in_bytes, pairs

# Options without a value; every other one that is not joined by `=` takes the next word.
_BARE = {
    "--rm", "--init", "--detach", "-d", "--interactive", "-i", "--tty", "-t", "-it", "--privileged", "--read-only",
    "--no-healthcheck", "--publish-all", "-P", "--oom-kill-disable", "--sig-proxy", "--quiet", "-q",
}  # fmt: skip


def is_docker_run(words: Sequence[str]) -> bool:
    """Whether a command line starts a container."""
    return len(words) > 2 and words[0].rpartition("/")[2] in ("docker", "podman") and words[1] == "run"


def from_words(words: Sequence[str], origin: str, name: str) -> Box | None:
    """The container that the command would start; None when it names no image."""
    rest = list(words[2:])
    given: dict[str, list[str]] = {}
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        option, sign, value = word.partition("=")
        if option in _BARE:
            continue
        if not sign and not option.startswith("--") and len(option) > 2:
            option, value, sign = option[:2], option[2:], "="  # -p8000:8000
        if not sign:
            if not rest:
                return None
            value = rest.pop(0)
        given.setdefault(option, []).append(value)
    if not rest:
        return None
    image, *command = rest
    entrypoint = given.get("--entrypoint", [])[-1:]
    mounts = {}
    for volume in (*given.get("-v", ()), *given.get("--volume", ())):
        source, _, target = volume.partition(":")
        if source.startswith("/"):
            mounts[target.partition(":")[0]] = source
    return Box(
        origin=origin,
        name=name,
        image=image,
        words=[*entrypoint, *command],
        env=pairs([*given.get("-e", ()), *given.get("--env", ())]),
        mounts=mounts,
        gpus=_gpus(given.get("--gpus", [])[-1:], given.get("--device", [])),
        shm_bytes=in_bytes(next(iter(given.get("--shm-size", ())), None)),
        memory_bytes=in_bytes(next(iter((*given.get("-m", ()), *given.get("--memory", ()))), None)),
    )


def _gpus(asked: Sequence[str], devices: Sequence[str]) -> Gpus:
    named = [device.rpartition("=")[2] for device in devices if device.startswith("nvidia.com/gpu=")]
    if named:
        return Gpus(-1, () if "all" in named else tuple(named), "nvidia")
    if any(device.startswith(("/dev/kfd", "/dev/dri")) for device in devices):
        return Gpus(-1, (), "rocm")
    for text in asked:
        value = text.strip("'\"")
        if value.isdigit():
            return Gpus(int(value), (), "nvidia")
        ids = value.partition("device=")[2]
        return Gpus(-1, tuple(filter(None, ids.split(","))), "nvidia")
    return Gpus()
