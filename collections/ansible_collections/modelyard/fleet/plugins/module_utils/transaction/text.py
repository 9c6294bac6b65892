"""What apt and dnf say of a transaction, and what must not happen in one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_APT = re.compile(r"^(Inst|Remv|Purg) ([^\s:]+)(?::\S+)?(?: \[([^\]]*)\])?(?: \(([^ )]+)[^)]*\))?")
_DNF_HEADS = {
    "Installing": "install",
    "Installing dependencies": "install",
    "Installing weak dependencies": "install",
    "Upgrading": "upgrade",
    "Downgrading": "upgrade",
    "Removing": "remove",
    "Removing dependent packages": "remove",
    "Removing unused dependencies": "remove",
}


@dataclass
class Steps:
    """What a transaction does. ``install`` has versions by name, ``upgrade`` pairs of them, ``remove`` versions that go."""

    install: dict[str, str] = field(default_factory=dict)
    upgrade: dict[str, tuple[str, str]] = field(default_factory=dict)
    remove: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.install or self.upgrade or self.remove)

    def lines(self) -> list[str]:
        """One line for each package, as a diff shows them."""
        return sorted(
            [f"+ {name} {version}" for name, version in self.install.items()]
            + [f"~ {name} {old} -> {new}" for name, (old, new) in self.upgrade.items()]
            + [f"- {name} {version}" for name, version in self.remove.items()],
            key=lambda line: line[2:],
        )


def parse_apt(text: str) -> Steps:
    """``apt-get --simulate``: ``Inst name [old] (new origin [arch])``, ``Remv name [old]``."""
    steps = Steps()
    for line in text.splitlines():
        match = _APT.match(line)
        if not match:
            continue
        verb, name, old, new = match.groups()
        if verb != "Inst":
            steps.remove[name] = old or ""
        elif old:
            steps.upgrade[name] = (old, new or "")
        else:
            steps.install[name] = new or ""
    return steps


def parse_dnf(text: str) -> Steps:
    """The table that dnf 4 prints before a transaction. A long name stands on a line of its own."""
    steps, part, rest = Steps(), "", ""
    for line in text.splitlines():
        head = line.rstrip().rstrip(":")
        if line.rstrip().endswith(":") and not line.startswith(" "):
            part, rest = _DNF_HEADS.get(head, ""), ""
        elif not line.strip() or line.startswith(("Transaction Summary", "=")):
            part = "" if line.startswith("Transaction Summary") else part
        elif part and line.startswith(" "):
            words = (rest + " " + line).split()
            if len(words) == 1:
                rest = words[0]
                continue
            rest = ""
            if len(words) < 4:
                continue
            name, version = words[0], words[2]
            if part == "install":
                steps.install[name] = version
            elif part == "upgrade":
                steps.upgrade[name] = ("", version)
            else:
                steps.remove[name] = version
    return steps


def uninvited(steps: Steps, remove: Iterable[str]) -> list[str]:
    """Packages that would be removed and that nobody asked to be."""
    return sorted(set(steps.remove) - set(remove))


def to_hold(patterns: Iterable[str], installed: Iterable[str]) -> list[str]:
    """Installed packages that one of the patterns fits as a whole."""
    rules = [re.compile(pattern) for pattern in patterns]
    return sorted({name for name in installed if any(rule.fullmatch(name) for rule in rules)})


def after(installed: Mapping[str, str], steps: Steps) -> dict[str, str]:
    """What is installed when the steps have been taken."""
    moved = {name: new for name, (_, new) in steps.upgrade.items()}
    return {
        name: version
        for name, version in {**installed, **steps.install, **moved}.items()
        if name not in steps.remove
    }


def stream_in(text: str) -> str:
    """The enabled stream in a file of ``/etc/dnf/modules.d``; empty where none is."""
    fields = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))
    return fields.get("stream", "") if fields.get("state") == "enabled" else ""
