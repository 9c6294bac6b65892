#!/usr/bin/env python3
"""A GPU host without GPUs: packages that are called as the driver's are, and a driver that follows what is installed.

    lab.py publish VERSION...   build packages of these driver versions into the repository below /opt/lab/repository
    lab.py extra                build what gets in the way of a driver
    lab.py boot                 what is installed is what is loaded
    lab.py sync                 the stand-in tools say what is so
    lab.py daemons              print whether they run, and what unattended-upgrades leaves alone
    lab.py look                 print how many transactions apt has made, and the driver's packages

The packages hold next to nothing; their names, versions, dependencies and conflicts are those of Ubuntu 24.04. Is called as
``modprobe``, ``modinfo`` and ``nvidia-mig-parted`` too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

LAB = Path("/opt/lab")
STATE = LAB / "state"
PROC = LAB / "proc" / "driver" / "nvidia" / "version"
TOOLS = Path("/usr/local/bin")
SUFFIX = "-0ubuntu0.24.04.1"


def main() -> int:
    """Exit status."""
    name, words = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "modinfo":
        return modinfo()
    if name == "nvidia-mig-parted":
        return mig_parted(words)
    if name == "modprobe" or words == ["boot"]:
        return boot()
    if words == ["sync"]:
        return sync()
    if words == ["look"]:
        return look()
    if words == ["daemons"]:
        subprocess.run(["systemctl", "is-active", "nvidia-persistenced", "nvidia-fabricmanager"], check=False)
        subprocess.run(["apt-config", "dump", "Unattended-Upgrade::Package-Blacklist"], check=True)
        return 0
    specs = extra() if words == ["extra"] else [one for version in words[1:] for one in driver(version)]
    for spec in specs:
        build(*spec)
    index()
    return 0


def driver(version: str) -> list[tuple[str, str, dict[str, str], dict[str, str]]]:
    """Packages of one version: name, version, fields, scripts and files."""
    branch, full = version.split(".")[0], version + SUFFIX
    server = f"{branch}-server"
    note = f"mkdir -p {STATE}; echo '{{}}' > {STATE}/{{}}; {LAB}/lab.py sync"
    gone = f'[ "$1" != remove ] || rm -f {STATE}/{{}}; {LAB}/lab.py sync'
    found = []
    for kind in ("", "-open"):
        found += [
            (f"nvidia-headless-{server}{kind}", full, {
                "Depends": f"nvidia-dkms-{server}{kind} (= {full}), libnvidia-compute-{server} (= {full}), "
                f"nvidia-compute-utils-{server} (= {full})",
            }, {}),
            (f"nvidia-dkms-{server}{kind}", full, {
                "Depends": f"nvidia-kernel-common-{server} (= {full})",
                "Provides": "nvidia-dkms-kernel", "Conflicts": "nvidia-dkms-kernel",
            }, {"postinst": note.format(f"{version} {kind or 'proprietary'}", f"installed-{branch}{kind}"),
                "postrm": gone.format(f"installed-{branch}{kind}")}),
        ]  # fmt: skip
    return [
        *found,
        (f"nvidia-kernel-common-{server}", full, {
            "Provides": f"nvidia-kernel-common-{server}-{version}, nvidia-kernel-common",
            "Conflicts": "nvidia-kernel-common",
        }, {}),
        (f"libnvidia-compute-{server}", full, {"Provides": "libnvidia-compute", "Conflicts": "libnvidia-compute"},
         {"postinst": note.format(version, f"userspace-{branch}"), "postrm": gone.format(f"userspace-{branch}")}),
        (f"nvidia-utils-{server}", full, {
            "Depends": f"libnvidia-compute-{server} (>= {version})",
            "Provides": "nvidia-utils", "Conflicts": "nvidia-utils",
        }, {"usr/bin/nvidia-smi": "/opt/standins/standin.py"}),
        (f"nvidia-compute-utils-{server}", full, {
            "Depends": f"libnvidia-compute-{server} (= {full})",
            "Provides": "nvidia-compute-utils", "Conflicts": "nvidia-compute-utils",
        }, {"lib/systemd/system/nvidia-persistenced.service": unit("nvidia-persistenced")}),
        (f"nvidia-fabricmanager-{branch}", full, {
            "Depends": f"nvidia-kernel-common-{server}-{version}",
            "Provides": "nvidia-fabricmanager", "Conflicts": "nvidia-fabricmanager",
        }, {"usr/bin/nv-fabricmanager": "/opt/standins/standin.py",
            "lib/systemd/system/nvidia-fabricmanager.service": unit("nvidia-fabricmanager"),
            "postinst": note.format(version, f"fabric-{branch}"), "postrm": gone.format(f"fabric-{branch}")}),
    ]  # fmt: skip


def extra() -> list[tuple[str, str, dict[str, str], dict[str, str]]]:
    """The kernel's headers, a tool that needs one branch, and a package of NVIDIA's own repository."""
    return [
        ("linux-headers-generic", "6.8.0-45.45", {}, {}),
        ("site-gpu-tool", "1", {"Depends": "libnvidia-compute-570-server"}, {}),
        ("cuda-drivers-570", "570.195.03-1ubuntu1", {}, {}),
    ]


def unit(name: str) -> str:
    """A service that does nothing."""
    return f"[Unit]\nDescription={name}\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"


def build(name: str, version: str, fields: dict[str, str], content: dict[str, str]) -> None:
    """One package."""
    root = LAB / "build" / name
    shutil.rmtree(root, ignore_errors=True)
    control = {
        "Package": name,
        "Version": version,
        "Architecture": "all",
        "Maintainer": "the lab <root@localhost>",
        **fields,
    }
    (root / "DEBIAN").mkdir(parents=True)
    text = (
        "".join(f"{key}: {value}\n" for key, value in control.items())
        + "Description: stands in for a part of a driver\n"
    )
    (root / "DEBIAN" / "control").write_text(text, encoding="utf-8")
    for path, what in content.items():
        file = root / ("DEBIAN" if path in ("postinst", "postrm") else "") / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if what.startswith("/"):
            file.symlink_to(what)
        else:
            file.write_text(
                f"#!/bin/sh\nset -e\n{what}\n" if file.parent.name == "DEBIAN" else what, encoding="utf-8"
            )
            file.chmod(0o755 if file.parent.name == "DEBIAN" else 0o644)
    pool = LAB / "repository"
    pool.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(pool / f"{name}_{version}_all.deb")],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (pool / f"{name}_{version}_all.txt").write_text(text, encoding="utf-8")


def index() -> None:
    """What apt reads."""
    pool = LAB / "repository"
    entries = []
    for deb in sorted(pool.glob("*.deb")):
        data = deb.read_bytes()
        entries.append(
            deb.with_suffix(".txt").read_text(encoding="utf-8")
            + f"Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    (pool / "Packages.gz").write_bytes(gzip.compress("\n".join(entries).encode()))


def state(name: str) -> str:
    """What a package has noted; of several branches, which only a wrong change leaves, the newest."""
    files = sorted(STATE.glob(f"{name}-*"))
    return files[-1].read_text(encoding="ascii").strip() if files else ""


def boot() -> int:
    """Load what is installed; without a module ``modprobe`` fails."""
    if not state("installed"):
        return 1
    (STATE / "loaded").write_text(state("installed"), encoding="ascii")
    if sys.argv[1:] == ["boot"]:
        (STATE / "mig").unlink(missing_ok=True)
    return sync()


def look() -> int:
    """A number, and a package and its version on each line."""
    history = Path("/var/log/apt/history.log").read_text(encoding="utf-8")
    print(sum(line.startswith("Start-Date") for line in history.splitlines()))
    form = "${db:Status-Status} ${Package} ${Version}\n"
    rows = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={form}"], check=True, capture_output=True, text=True
    )
    for row in sorted(rows.stdout.splitlines()):
        if row.startswith("installed ") and ("nvidia" in row or "cuda" in row):
            print(row.partition(" ")[2])
    return 0


def modinfo() -> int:
    """``modinfo nvidia``."""
    version, _, kind = state("installed").partition(" ")
    if not version:
        print("modinfo: ERROR: Module nvidia not found.", file=sys.stderr)
        return 1
    print(f"version:        {version}\nlicense:        {'Dual MIT/GPL' if kind == '-open' else 'NVIDIA'}")
    return 0


def mig_parted(words: list[str]) -> int:
    """``nvidia-mig-parted assert`` and ``apply``, with the tool's words."""
    given, layout = (words[words.index(option) + 1] for option in ("--config-file", "--selected-config"))
    config = json.loads(sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8"))
    if layout not in config["mig-configs"]:
        print(f'level=fatal msg="Error: no such config: {layout}"', file=sys.stderr)
        return 1
    cut = STATE / "mig"
    if words[0] == "apply":
        cut.write_text(layout, encoding="ascii")
        print("MIG configuration applied successfully")
        return 0
    if cut.exists() and cut.read_text(encoding="ascii") == layout:
        print("Selected MIG configuration currently applied")
        return 0
    print(
        'level=fatal msg="Assertion failure: selected configuration not currently applied"', file=sys.stderr
    )
    return 1


def sync() -> int:
    """Write the scenario that the stand-in tools answer by, and the kernel's file."""
    sys.path.insert(0, "/opt/standins")
    import render_nvidia

    machine = (LAB / "machine").read_text(encoding="ascii").strip()
    scenario = json.loads(Path(f"/opt/standins/scenarios/{machine}.json").read_text(encoding="utf-8"))
    loaded = STATE / "loaded"
    version, _, kind = (loaded.read_text(encoding="ascii") if loaded.exists() else "").partition(" ")
    nvidia = scenario["nvidia"]
    nvidia.update(
        module=version or None,
        open=kind == "-open",
        driver=state("userspace"),
        fabric_manager=state("fabric"),
    )
    if not version:
        nvidia["bound"] = None
    for directory in (TOOLS, Path("/usr/bin")):
        (directory / "scenario.json").write_text(json.dumps(scenario), encoding="utf-8")
    PROC.parent.mkdir(parents=True, exist_ok=True)
    PROC.unlink(missing_ok=True)
    if version:
        PROC.write_text(render_nvidia.kernel_module(nvidia), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
