"""One transaction: what package managers print, what is refused, what check mode says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.transaction import apt, dnf, text
from ansible_collections.modelyard.fleet.plugins.modules.package_transaction import SPEC, change

APT = """NOTE: This is only a simulation!
Reading package lists...
Remv nvidia-headless-570-server-open [570.195.03-0ubuntu0.24.04.1]
Remv libnvidia-compute-570-server:amd64 [570.195.03-0ubuntu0.24.04.1]
Inst libnvidia-compute-580-server (580.95.05-0ubuntu0.24.04.1 Ubuntu:24.04/noble-updates [amd64])
Inst nvidia-modprobe [570.1-1] (580.1-1 Ubuntu:24.04/noble [amd64]) []
Conf libnvidia-compute-580-server (580.95.05-0ubuntu0.24.04.1 Ubuntu:24.04/noble-updates [amd64])
Purg old-thing [1]
"""
DNF = """Last metadata expiration check: 0:00:01 ago on Fri Nov 27 10:00:00 2026.
Dependencies resolved.
================================================================================
 Package                   Arch    Version               Repository         Size
================================================================================
Installing:
 kmod-nvidia-open-dkms     noarch  3:580.95.05-1.el9     cuda-rhel9-x86_64  12 M
Installing dependencies:
 nvidia-kmod-common-with-a-name-that-is-long
                           noarch  3:580.95.05-1.el9     cuda-rhel9-x86_64  70 M
Upgrading:
 nvidia-driver-cuda        x86_64  3:580.95.05-1.el9     cuda-rhel9-x86_64 533 k
Removing:
 kmod-nvidia-latest-dkms   x86_64  3:570.195.03-1.el9    @cuda-rhel9-x86_64 48 M
Removing dependent packages:
 site-tool                 x86_64  1-1                   @System             1 k

Transaction Summary
================================================================================
Install  2 Packages
Operation aborted.
"""


class Manager:
    """A package manager in memory; ``steps`` is what the next transaction would do, None for an unknown package."""

    def __init__(self, installed: dict[str, str], steps: text.Steps | None, stream: str = "") -> None:
        self.packages, self.steps, self.now, self.did = dict(installed), steps, stream, list[str]()
        self.on_hold: set[str] = set()

    def installed(self) -> dict[str, str]:
        return dict(self.packages)

    def refresh(self) -> None:
        self.did.append("refresh")

    def simulate(self, install: Sequence[str], remove: Sequence[str]) -> text.Steps | None:
        return self.steps

    def commit(self, install: Sequence[str], remove: Sequence[str]) -> None:
        self.did.append("commit")
        self.packages = text.after(self.packages, self.steps or text.Steps())

    def held(self) -> list[str]:
        return sorted(self.on_hold)

    def hold(self, names: Sequence[str]) -> None:
        self.did.append("hold")
        self.on_hold |= set(names)

    def release(self, names: Sequence[str]) -> None:
        self.did.append("release")
        self.on_hold -= set(names)

    def stream(self, name: str) -> str:
        return self.now

    def enable(self, stream: str) -> None:
        self.did.append(f"enable {stream}")
        self.now = stream


def wish(**more: Any) -> dict[str, Any]:
    return {**{name: option.get("default") for name, option in SPEC.items()}, "manager": "apt", **more}


def test_what_apt_would_do() -> None:
    steps = text.parse_apt(APT)
    assert steps.lines() == [
        "- libnvidia-compute-570-server 570.195.03-0ubuntu0.24.04.1",
        "+ libnvidia-compute-580-server 580.95.05-0ubuntu0.24.04.1",
        "- nvidia-headless-570-server-open 570.195.03-0ubuntu0.24.04.1",
        "~ nvidia-modprobe 570.1-1 -> 580.1-1",
        "- old-thing 1",
    ]
    assert text.uninvited(steps, ["libnvidia-compute-570-server", "nvidia-headless-570-server-open"]) == [
        "old-thing"
    ]


def test_what_dnf_would_do() -> None:
    steps = text.parse_dnf(DNF)
    assert set(steps.install) == {"kmod-nvidia-open-dkms", "nvidia-kmod-common-with-a-name-that-is-long"}
    assert steps.upgrade == {"nvidia-driver-cuda": ("", "3:580.95.05-1.el9")}
    assert text.uninvited(steps, ["kmod-nvidia-latest-dkms"]) == ["site-tool"]


STEPS = text.Steps(install={"driver-580": "580"}, remove={"driver-570": "570"})


def test_one_transaction_then_the_hold() -> None:
    there = Manager({"driver-570": "570", "other": "1"}, STEPS)
    done = change(
        there,
        wish(install=["driver-580"], remove=["driver-570", "driver-560"], hold=["driver-[0-9]+"]),
        False,
    )
    assert there.did == ["refresh", "commit", "hold"]
    assert (done["changed"], done["held"], done["packages"]) == (
        True,
        ["driver-580"],
        {"driver-580": "580", "other": "1"},
    )


def test_check_mode_says_the_same_and_touches_nothing() -> None:
    there = Manager({"driver-570": "570"}, STEPS)
    done = change(there, wish(install=["driver-580"], remove=["driver-570"], hold=["driver-.*"]), True)
    assert (there.did, there.packages) == ([], {"driver-570": "570"})
    assert (done["changed"], done["simulated"], done["lines"]) == (
        True,
        True,
        ["- driver-570 570", "+ driver-580 580"],
    )
    assert done["held"] == ["driver-580"]


def test_check_mode_before_the_repository_is_there() -> None:
    done = change(
        Manager({"driver-570": "570"}, None), wish(install=["driver-580"], remove=["driver-570"]), True
    )
    assert (done["simulated"], done["lines"]) == (False, ["- driver-570 570", "+ driver-580 (not known yet)"])
    with pytest.raises(apt.TransactionError, match="Not in any repository of this host: one of driver-580"):
        change(Manager({}, None), wish(install=["driver-580"]), False)


def test_nothing_to_do_asks_nobody() -> None:
    there = Manager({"driver-580": "580"}, STEPS)
    there.on_hold = {"driver-580"}
    assert change(there, wish(remove=["driver-570"], hold=["driver-.*"]), False)["changed"] is False
    assert there.did == []


def test_a_removal_that_nobody_asked_for_is_refused() -> None:
    there = Manager(
        {"driver-570": "570", "tool": "1"},
        text.Steps(install={"driver-580": "1"}, remove={"driver-570": "", "tool": "1"}),
    )
    with pytest.raises(apt.TransactionError, match="Nothing was changed: tool would be removed too"):
        change(there, wish(install=["driver-580"], remove=["driver-570"]), False)
    assert "commit" not in there.did
    assert change(there, wish(install=["driver-580"], remove=["driver-570"], allow_remove=["tool"]), False)[
        "changed"
    ]


def test_a_hold_ends_when_it_is_not_wished() -> None:
    there = Manager({"driver-580": "580", "other": "1"}, STEPS)
    there.on_hold = {"driver-580", "other"}
    assert change(there, wish(hold=["driver-.*"], held=False), False)["released"] == ["driver-580"]
    assert there.on_hold == {"other"}


def test_a_stream_is_enabled_before_the_packages_are_looked_for() -> None:
    there = Manager({"driver-570": "570"}, STEPS, "nvidia-driver:570-open")
    asked = wish(
        manager="dnf",
        install=["driver-580"],
        remove=["driver-570"],
        stream="nvidia-driver:580-open",
        hold=["driver-.*"],
    )
    there.on_hold = {"driver-570"}
    assert change(there, asked, True)["simulated"] is False
    done = change(there, asked, False)
    assert there.did == ["refresh", "enable nvidia-driver:580-open", "commit", "release", "hold"]
    assert (there.on_hold, done["held"]) == ({"driver-580"}, ["driver-580"])


class Shell:
    """Commands and what they answer, by the first words."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers, self.asked = answers, list[str]()

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(command))
        if "shell" in command:
            with open(command[-1], encoding="utf-8") as script:  # noqa: PTH123
                self.asked.append(script.read())
        return self.answers.get(command[0].replace("-", "_"), (0, "", ""))


def test_apt_is_given_everything_at_once() -> None:
    shell = Shell(apt_get=(0, APT, ""))
    assert apt.Apt(shell).simulate(["new"], ["old"])
    assert shell.asked[0].endswith("--simulate install new old-")
    assert "--allow-change-held-packages" in shell.asked[0]


def test_what_apt_complains_of_is_told() -> None:
    err = "E: Unable to correct problems, you have held broken packages.\n"
    out = " nvidia-utils : Depends: libnvidia-compute (= 2) but 1 is to be installed\n"
    with pytest.raises(
        apt.TransactionError, match=r"Depends: libnvidia-compute \(= 2\).*held broken packages"
    ):
        apt.Apt(Shell(apt_get=(100, out, err))).simulate(["nvidia-utils"], [])
    assert apt.Apt(Shell(apt_get=(100, "", "E: Unable to locate package x"))).simulate(["x"], []) is None


def test_dnf_gets_one_script() -> None:
    shell = Shell(rpm=(0, "moved\t1-1\nold\t1-1\n", ""), dnf=(1, DNF, "Operation aborted."))
    assert dnf.Dnf(shell).simulate(["new", "moved"], ["old"])
    assert shell.asked[-1] == "remove old\ninstall new\ndistro-sync moved\nrun\n"


def test_locks_of_dnf_are_names() -> None:
    listing = "nvidia-driver-cuda-3:580.95.05-1.el9.*\nkmod-nvidia-open-dkms-3:580.95.05-1.el9.*\n"
    assert dnf.Dnf(Shell(dnf=(0, listing, ""))).held() == ["kmod-nvidia-open-dkms", "nvidia-driver-cuda"]


def test_the_stream_that_is_enabled() -> None:
    assert (
        text.stream_in("[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n")
        == "580-open"
    )
    assert text.stream_in("[nvidia-driver]\nstream=580-open\nstate=disabled\n") == ""
