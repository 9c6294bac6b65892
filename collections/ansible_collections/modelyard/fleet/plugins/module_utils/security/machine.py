"""What of a host matters for security: its Docker daemon, files, listening ports, rules and upgrades. Reads only.

A problem (``code`` and ``why``) takes the place of everything that could not be found out.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import stat
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import nft
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run
from ansible_collections.modelyard.fleet.plugins.module_utils.security.secrets import (
    key_weakness,
    secret_arguments,
)

Problems = list[dict[str, str]]

KEY_FILE = "MODELYARD_ADMIN_KEY_FILE"
_LISTEN = "0A"
_API_PORTS = (2375, 2376)
_TIMEOUT_S = 20


def problem(code: str, why: object) -> dict[str, str]:
    """Something that could not be found out."""
    return {"code": code, "why": str(why)}


# --- files ---------------------------------------------------------------------------------------


def mode_of(path: Path) -> str | None:
    """The permission bits of a file, such as ``0600``; None when there is none. Raises ``OSError``."""
    try:
        return f"{stat.S_IMODE(path.stat().st_mode):04o}"
    except FileNotFoundError:
        return None


def secret_files(
    home: Path, settings: Sequence[Path], secrets: Sequence[Path], problems: Problems
) -> list[dict[str, str]]:
    """Files of the fleet that hold secrets: ``path``, ``mode``, what it ``holds`` and the mode that is ``wanted``."""
    wanted: dict[Path, tuple[str, str]] = {}
    try:
        for folder in (home, home / "proxy"):
            for path in sorted(folder.glob("process/*/launch.json")):
                wanted[path] = ("command and environment of a program", "0600")
    except OSError as error:
        problems.append(problem("secret-file-open", error))
    # a service of the system reads its settings through its group
    wanted |= {
        path: ("the proxy's settings", "0600" if path.suffix == ".json" else "0640") for path in settings
    }
    wanted |= dict.fromkeys(secrets, ("a token or key", "0600"))
    found = []
    for path, (holds, mode) in sorted(wanted.items()):
        try:
            seen = mode_of(path)
        except OSError as error:
            problems.append(problem("secret-file-open", error))
            continue
        if seen is not None:
            found.append({"path": str(path), "mode": seen, "holds": holds, "wanted": mode})
    return found


def settings_of(path: Path) -> dict[str, str]:
    """The variables in a proxy's settings: a file for systemd, or a program's launch.json. Raises ``OSError``."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        found = json.loads(text).get("environment")
        return dict(found) if isinstance(found, dict) else {}
    variables = {}
    for line in text.splitlines():
        name, is_pair, value = line.partition("=")
        if is_pair and not line.lstrip().startswith("#"):
            variables[name.strip()] = "".join(shlex.split(value))
    return variables


def admin_key(settings: Sequence[Path], problems: Problems) -> dict[str, str] | None:
    """The proxy's management key: ``path``, ``mode`` and its ``weakness``; None where there is none."""
    for path in settings:
        try:
            key_file = settings_of(path).get(KEY_FILE)
            if not key_file:
                continue
            mode = mode_of(Path(key_file))
            if mode is None:
                problems.append(problem("admin-key-weak", f"{key_file} is not there"))
                continue
            text = Path(key_file).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(problem("admin-key-weak", error))
            continue
        return {"path": key_file, "mode": mode, "weakness": key_weakness(text)}
    return None


def programs(home: Path, problems: Problems) -> list[dict[str, Any]]:
    """Programs of the process runtime with secrets on their command lines: names of the arguments only."""
    found = []
    for path in sorted(home.glob("process/*/launch.json")):
        try:
            launch = json.loads(path.read_text(encoding="utf-8"))
            words, environment = [str(word) for word in launch["command"]], dict(launch["environment"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(problem("secret-in-arguments", f"{path}: {error}"))
            continue
        names = secret_arguments(words, {name: str(value) for name, value in environment.items()})
        found.append({"name": path.parent.name, "secret_arguments": names})
    return found


# --- ports ---------------------------------------------------------------------------------------


def listening(proc: Path) -> list[tuple[str, int]]:
    """Address and port of every TCP socket that listens, IPv4 and IPv6, from the kernel's own table."""
    return sorted({(address, port) for address, port, _ in _sockets(proc)})


def _sockets(proc: Path) -> Iterator[tuple[str, int, str]]:
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN:
                address, _, port = fields[1].rpartition(":")
                yield _address(address), int(port, 16), fields[9]


def _address(text: str) -> str:
    """An address of the kernel's table: words of four bytes, each in the order of this machine (little-endian)."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


# --- the Docker daemon ---------------------------------------------------------------------------


def daemon(proc: Path, root: Path, problems: Problems, *, expected: bool) -> dict[str, Any]:
    """``addresses`` of Docker's API over TCP, whether it ``verifies`` clients, and ``options`` of every container.

    ``expected``: there is a daemon, so one that cannot be seen is a problem.
    """
    none: dict[str, Any] = {"addresses": [], "verifies": False, "options": []}
    pid = next(_processes(proc, "dockerd"), None)
    if pid is None:
        if expected:
            problems.append(problem("docker-api-open", "Docker answers, and no process dockerd can be seen"))
        return none
    try:
        words = (proc / pid / "cmdline").read_bytes().decode(errors="replace").split("\0")[1:]
        path = next(_values(words, ("--config-file",)), "/etc/docker/daemon.json")
        config = _document(root / path.lstrip("/"))
    except (OSError, ValueError) as error:
        problems.append(problem("docker-api-open", error))
        return none
    hosts = [*_values(words, ("-H", "--host")), *(str(one) for one in config.get("hosts") or [])]
    addresses = {one for one in hosts if one.startswith("tcp:")}
    # a socket that systemd opened for it has no name on its command line
    addresses |= {f"tcp://{at}:{port}" for at, port in listening_of(proc, pid) if port in _API_PORTS}
    verifies = any(word in ("--tlsverify", "--tlsverify=true") for word in words) or bool(
        config.get("tlsverify")
    )
    options = (
        ["no-new-privileges"] if config.get("no-new-privileges") or "--no-new-privileges" in words else []
    )
    return {"addresses": sorted(addresses), "verifies": verifies, "options": options}


def listening_of(proc: Path, pid: str) -> list[tuple[str, int]]:
    """What a process listens on, by the sockets that it has open; where these may not be seen, what anybody does."""
    own = set()
    try:
        entries = list((proc / pid / "fd").iterdir())
    except OSError:
        return listening(proc)
    for entry in entries:
        try:
            own.add(str(entry.readlink()))
        except OSError:
            continue  # closed while we looked
    return [(address, port) for address, port, inode in _sockets(proc) if f"socket:[{inode}]" in own]


def _processes(proc: Path, name: str) -> Iterator[str]:
    for entry in sorted(proc.iterdir()):
        try:
            if entry.name.isdigit() and (entry / "comm").read_text(encoding="utf-8").strip() == name:
                yield entry.name
        except OSError:
            continue  # it ended while we looked


def _values(words: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    for place, word in enumerate(words):
        flag, has_value, value = word.partition("=")
        if flag in flags:
            if has_value:
                yield value
            elif place + 1 < len(words):
                yield words[place + 1]


def _document(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


# --- the table of rules --------------------------------------------------------------------------


def firewall(rules: Path, problems: Problems) -> str:
    """Our table against its file: ``none`` (never applied), ``same``, ``missing``, ``different`` or ``unknown``."""
    try:
        if not rules.exists():
            return "none"
        command = nft.find()
        if command is None:
            raise nft.NftError("nft is not installed")
        found = nft.in_force(command)
        if found is None:
            return "missing"
        return "same" if found == nft.normal_form(rules) else "different"
    except (nft.NftError, OSError) as error:
        problems.append(problem("firewall-missing", error))
        return "unknown"


# --- upgrades ------------------------------------------------------------------------------------

_DEBIAN = ("docker.io", "docker-ce", "moby-engine", "containerd", "containerd.io")
# what Docker itself publishes is upgraded only where somebody has named that origin
_OF_DOCKER = ("docker-ce", "containerd.io")
_SETTING = re.compile(r'^(?P<name>[^ ]+) "(?P<value>.*)";$')


def upgrades(root: Path, problems: Problems) -> dict[str, Any] | None:
    """Who may upgrade which packages of the container engine unasked: ``how`` and ``names``; None when nobody."""
    if any((root / "usr/bin" / name).exists() for name in ("unattended-upgrade", "unattended-upgrades")):
        code, settings, error = run(["apt-config", "dump"], _TIMEOUT_S)
        query = ["dpkg-query", "-W", "-f", "${db:Status-Want} ${db:Status-Status} ${Package}\\n"]
        _, packages, _ = run([*query, *_DEBIAN], _TIMEOUT_S)  # fails when it does not know one of them
        if code != 0:
            problems.append(problem("engine-upgrades-itself", f"apt-config: {error}"))
            return None
        names = upgradable(settings, packages)
        return {"how": "unattended-upgrades", "names": names} if names else None
    return _dnf(root, problems)


def upgradable(settings: str, packages: str) -> list[str]:
    """The engine's packages that unattended-upgrades may take, from ``apt-config dump`` and dpkg's own list."""
    values: dict[str, list[str]] = {}
    for match in filter(None, map(_SETTING.match, settings.splitlines())):
        values.setdefault(match["name"].removesuffix("::"), []).append(match["value"])
    if values.get("APT::Periodic::Unattended-Upgrade", ["0"])[-1] in ("", "0"):
        return []
    kept = [pattern for pattern in values.get("Unattended-Upgrade::Package-Blacklist", []) if pattern]
    origins = [
        origin.lower()
        for name in ("Unattended-Upgrade::Allowed-Origins", "Unattended-Upgrade::Origins-Pattern")
        for origin in values.get(name, [])
    ]
    of_docker = any("docker" in origin or origin in ("*", "*:*", "origin=*") for origin in origins)
    installed = [
        line.split()[2] for line in packages.splitlines() if line.split()[:2] == ["install", "installed"]
    ]
    return sorted(
        package
        for package in installed
        if (package not in _OF_DOCKER or of_docker) and not any(_matches(one, package) for one in kept)
    )


def _matches(pattern: str, package: str) -> bool:
    try:
        return re.match(pattern, package) is not None
    except re.error:
        return False


def _dnf(root: Path, problems: Problems) -> dict[str, Any] | None:
    wants = root / "etc/systemd/system/timers.target.wants"
    timers = [path.name for path in wants.glob("dnf-automatic*.timer")] if wants.is_dir() else []
    if not timers:
        return None
    try:
        config = _lines(root / "etc/dnf/automatic.conf")
        excluded = " ".join(
            value
            for text in (config, _lines(root / "etc/dnf/dnf.conf"), _lines(root / "etc/yum.conf"))
            for name, value in text
            if name in ("exclude", "excludepkgs")
        )
    except OSError as error:
        problems.append(problem("engine-upgrades-itself", error))
        return None
    applies = "dnf-automatic-install.timer" in timers or any(
        name == "apply_updates" and value.lower() in ("yes", "true", "1") for name, value in config
    )
    packages = (
        [name for name in ("docker-ce", "moby-engine", "containerd.io") if _rpm(name)] if applies else []
    )
    names = [name for name in packages if not _covered(name, re.split(r"[,\s]+", excluded))]
    return {"how": "dnf-automatic", "names": names} if names else None


def _lines(path: Path) -> list[tuple[str, str]]:
    """``name = value`` lines of an ini file, sections aside."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    pairs: Iterable[tuple[str, str, str]] = (line.partition("=") for line in text.splitlines())
    return [(name.strip(), value.strip()) for name, sign, value in pairs if sign and not name.startswith("#")]


def _covered(name: str, patterns: Iterable[str]) -> bool:
    return any(pattern and fnmatch(name, pattern) for pattern in patterns)


def _rpm(name: str) -> bool:
    return run(["rpm", "-q", name], _TIMEOUT_S)[0] == 0
