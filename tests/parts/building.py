"""Which parts there are, what each needs, and building what is missing, once at a time per machine."""

from __future__ import annotations

import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts import (
    bare_image,
    echo_image,
    edge_packages,
    engine_packages,
    host_image,
    machine,
    rootfs,
    sleeper_image,
    store,
    tiny_model,
    vllm_image,
    wheelhouse,
)
from tests.parts.docker import has_image, require_engine


@dataclass(frozen=True)
class Part:
    """One thing to build: a name, what it is called where it is kept, and what must be there first."""

    name: str
    where: Callable[[], str]
    is_built: Callable[[], bool]
    build: Callable[[], None]
    needs: tuple[str, ...] = ()


def _image(name: str, tag: Callable[[], str], build: Callable[[], None], *needs: str) -> Part:
    return Part(name, tag, lambda: has_image(tag()), build, needs)


PARTS = {
    part.name: part
    for part in (
        _image("base", lambda: rootfs.BASE.tag, rootfs.BASE.build),
        _image("plain", lambda: rootfs.PLAIN.tag, rootfs.PLAIN.build),
        _image("host-os", lambda: rootfs.HOST_OS.tag, rootfs.HOST_OS.build),
        _image("vllm", vllm_image.tag, vllm_image.build_image, "base"),
        _image("host", host_image.tag, host_image.build_image, "host-os"),
        _image("bare", bare_image.tag, bare_image.build_image, "host"),
        *(
            Part(debs.name, lambda debs=debs: str(debs.directory()), debs.is_built, debs.build, ("bare",))  # type: ignore[misc]
            for debs in (edge_packages.DEBS, engine_packages.DEBS)
        ),
        _image("sleeper", sleeper_image.tag, sleeper_image.build_image, "base"),
        Part("store", store.seed, store.is_built, store.build_store, ("base", "vllm", "host")),
        Part(
            "model",
            lambda: str(tiny_model.directory()),
            tiny_model.is_built,
            tiny_model.build_model,
            ("vllm",),
        ),
        Part(
            "wheels",
            lambda: str(wheelhouse.directory()),
            wheelhouse.is_built,
            wheelhouse.build_wheelhouse,
        ),
        _image("echo", echo_image.tag, echo_image.build_image, "base", "wheels"),
    )
}


def ensure(names: list[str], say: Callable[[str], None]) -> None:
    """Build those of `names`, and what they need, that are not there yet.

    `say` is given one line of progress at a time. Another process that builds on this machine is waited for.
    Raises :class:`tests.parts.errors.PartError` when no engine answers or a part fails.
    """
    require_engine()
    with alone(say):
        for part in ordered(names):
            if part.is_built():
                say(f"  {part.name:8} ready   {part.where()}")
                continue
            say(f"  {part.name:8} building")
            began = time.monotonic()
            part.build()
            say(f"  {part.name:8} built   {part.where()} in {time.monotonic() - began:.0f} s")


def ordered(names: list[str]) -> Iterator[Part]:
    """Yield the parts `names` and what they need, each once, needs first."""
    seen: set[str] = set()

    def visit(name: str) -> Iterator[Part]:
        if name in seen:
            return
        seen.add(name)
        for need in PARTS[name].needs:
            yield from visit(need)
        yield PARTS[name]

    for name in names:
        yield from visit(name)


@contextmanager
def alone(say: Callable[[str], None]) -> Iterator[None]:
    """Do something that no two processes of this machine may do at once: wait until the others have done it."""
    directory = machine.cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    with Path(directory, "build.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("  waiting for another process that builds parts, or removes what is left")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say_on_stderr(line: str) -> None:
    """Print a line of progress at once."""
    print(line, file=sys.stderr, flush=True)
