"""Locks with hashes, as pip reads them: their requirements one by one, and which of them a given Python needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement with its hashes, as it stands in the lock; ``marker`` says for whom, empty for everyone."""

    name: str
    marker: str
    text: str


def requirements(lock: str) -> Iterator[Requirement]:
    """The requirements of a lock in their order; comments are left out."""
    block: list[str] = []
    for line in [*lock.splitlines(), "end"]:
        if line[:1].isspace() or not line or line.startswith("#"):
            if line.strip().startswith("--"):
                block.append(line)
            continue
        if block:
            yield _requirement(block)
        block = [line]


def _requirement(block: list[str]) -> Requirement:
    head = block[0].rstrip("\\").strip()
    match = _NAME.match(head)
    return Requirement(
        match.group(0).lower() if match else head,
        head.partition(";")[2].strip(),
        "\n".join(block).rstrip("\\ "),
    )


def applies(marker: str, python: str, machine: str) -> bool:
    """Whether a marker holds for CPython of this version (``3.12``) on Linux."""
    if not marker:
        return True
    from packaging.markers import Marker

    # pip itself would ask the Python that it runs on
    return Marker(marker).evaluate(
        {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "platform_python_implementation": "CPython",
            "platform_machine": machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }
    )


def for_python(lock: str, python: str, machine: str) -> str:
    """The lock without what a given Python does not need, and without markers."""
    lines = []
    for one in requirements(lock):
        if applies(one.marker, python, machine):
            head, newline, rest = one.text.partition("\n")
            slash = " \\" if head.rstrip().endswith("\\") else ""
            lines.append(head.rstrip("\\").partition(";")[0].strip() + slash + newline + rest)
    return "\n".join(lines) + "\n"


def only(lock: str, names: set[str]) -> str:
    """The requirements of these names, with their hashes."""
    return "\n".join(one.text for one in requirements(lock) if one.name in names) + "\n"
