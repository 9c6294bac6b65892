"""Our one nftables table on this host: looked at, tried out, loaded and removed. No other table is ever named."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import which

from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run

FAMILY, TABLE = "inet", "modelyard"
TIMEOUT_S = 20

# In a network namespace of its own the rules meet nothing; what the kernel made of them is then listed.
_TRY = 'nft -f "$1" && exec nft -s list table "$2" "$3"'
_GONE = "no such file or directory"


class NftError(Exception):
    """What nftables said, as a sentence for the operator."""


def find() -> str | None:
    """The command ``nft``; None where it is not installed."""
    return which("nft", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def in_force(nft: str) -> str | None:
    """Our table as the kernel has it, without counts; None when it is not there. Raises ``NftError``."""
    code, out, err = run([nft, "-s", "list", "table", FAMILY, TABLE], TIMEOUT_S)
    if code == 0:
        return out
    if _GONE in err.lower():
        return None
    raise NftError(f"nft could not be asked for the table {FAMILY} {TABLE}: {err or f'exit status {code}'}")


def check(nft: str, path: Path) -> None:
    """Let the kernel judge a file of rules without taking them. Raises ``NftError`` with its words."""
    code, _, err = run([nft, "-c", "-f", str(path)], TIMEOUT_S)
    if code != 0:
        raise NftError(f"nft refuses the rules: {err or f'exit status {code}'}")


def normal_form(path: Path) -> str:
    """What the kernel makes of a file of rules, tried out where nobody is. Raises ``NftError``."""
    command = ["unshare", "--net", "sh", "-c", _TRY, "sh", str(path), FAMILY, TABLE]
    code, out, err = run(command, TIMEOUT_S)
    if code != 0:
        raise NftError(f"the rules cannot be tried out: {err or f'exit status {code}'}")
    return out


def load(nft: str, path: Path) -> None:
    """Take a file of rules in one step: all of them, or none and what was there stays. Raises ``NftError``."""
    code, _, err = run([nft, "-f", str(path)], TIMEOUT_S)
    if code != 0:
        raise NftError(
            f"the rules do not load, and what was in force still is: {err or f'exit status {code}'}"
        )


def remove(nft: str) -> None:
    """Take our table away. Raises ``NftError``."""
    code, _, err = run([nft, "delete", "table", FAMILY, TABLE], TIMEOUT_S)
    if code != 0 and _GONE not in err.lower():
        raise NftError(f"the table {FAMILY} {TABLE} cannot be removed: {err or f'exit status {code}'}")
