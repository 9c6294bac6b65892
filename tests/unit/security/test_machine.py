"""Reading a host: modes, keys, listening sockets, Docker's own settings, upgrades. Nothing secret comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.security import machine
from ansible_collections.modelyard.fleet.plugins.module_utils.security.secrets import key_weakness

from modelyard.gateway.admin_key import weakness

KEY = "9f2c51d07be84aa3a1c6e0d2f4b87c15"
TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 0B0200C0:1FA4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1\n"
    "   1: 00000000:0947 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1\n"
    "   2: 0B0200C0:1FA4 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 13 1\n"
)
TCP6 = (
    "  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 00000000000000000000000000000000:1FA5 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 14 1\n"
    "   1: B80D0120000000000000000001000000:1FA6 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 15 1\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with one dockerd that has the socket 12 open."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(TCP)
    (tmp_path / "net" / "tcp6").write_text(TCP6)
    (tmp_path / "7" / "fd").mkdir(parents=True)
    (tmp_path / "7" / "comm").write_text("dockerd\n")
    (tmp_path / "7" / "cmdline").write_bytes(b"/usr/bin/dockerd\0-H\0fd://\0")
    return tmp_path


def daemon(proc: Path, words: bytes = b"", config: Any = None) -> dict[str, Any]:
    root = proc / "root"
    (root / "etc" / "docker").mkdir(parents=True, exist_ok=True)
    if config is not None:
        (root / "etc" / "docker" / "daemon.json").write_text(json.dumps(config))
    if words:
        (proc / "7" / "cmdline").write_bytes(b"/usr/bin/dockerd\0" + words)
    problems: machine.Problems = []
    found = machine.daemon(proc, root, problems, expected=True)
    assert problems == []
    return found


def test_what_listens_where(proc: Path) -> None:
    assert machine.listening(proc) == [
        ("0.0.0.0", 2375), ("192.0.2.11", 8100), ("2001:db8::1", 8102), ("::", 8101),
    ]  # fmt: skip


def test_how_docker_listens(proc: Path) -> None:
    assert daemon(proc) == {"addresses": [], "verifies": False, "options": []}
    assert daemon(proc, b"-H\0tcp://0.0.0.0:2375\0")["addresses"] == ["tcp://0.0.0.0:2375"]
    assert daemon(proc, b"--host=tcp://[::1]:2375\0--tlsverify\0") == {
        "addresses": ["tcp://[::1]:2375"], "verifies": True, "options": [],
    }  # fmt: skip
    config = {
        "hosts": ["unix:///run/docker.sock", "tcp://10.0.0.1:2376"],
        "tlsverify": True,
        "no-new-privileges": True,
    }
    assert daemon(proc, b"-H\0fd://\0", config) == {
        "addresses": ["tcp://10.0.0.1:2376"], "verifies": True, "options": ["no-new-privileges"],
    }  # fmt: skip


def test_a_socket_that_systemd_opened_for_docker(proc: Path) -> None:
    (proc / "7" / "fd" / "3").symlink_to("socket:[12]")
    (proc / "7" / "fd" / "4").symlink_to("socket:[11]")  # no port of the API
    assert daemon(proc)["addresses"] == ["tcp://0.0.0.0:2375"]


def test_a_daemon_that_cannot_be_seen_is_a_problem_where_there_is_one(tmp_path: Path) -> None:
    problems: machine.Problems = []
    machine.daemon(tmp_path, tmp_path, problems, expected=False)
    assert problems == []
    machine.daemon(tmp_path, tmp_path, problems, expected=True)
    assert [one["code"] for one in problems] == ["docker-api-open"]


def test_files_with_secrets_and_their_modes(tmp_path: Path) -> None:
    launch = tmp_path / "process" / "h.m.0" / "launch.json"
    launch.parent.mkdir(parents=True)
    launch.write_text(json.dumps({"command": ["x", "--api-key", KEY], "environment": {}}))
    launch.chmod(0o644)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    problems: machine.Problems = []
    found = machine.secret_files(tmp_path, [tmp_path / "none.env"], [token], problems)
    assert [(one["path"], one["mode"], one["wanted"]) for one in found] == [
        (str(launch), "0644", "0600"), (str(token), "0600", "0600"),
    ]  # fmt: skip
    assert machine.programs(tmp_path, problems) == [{"name": "h.m.0", "secret_arguments": ["--api-key"]}]
    assert problems == []
    launch.write_text("{")
    assert machine.programs(tmp_path, problems) == []
    assert [one["code"] for one in problems] == ["secret-in-arguments"]


@pytest.mark.parametrize("name", ["proxy.env", "launch.json"])
@pytest.mark.parametrize(("key", "weak"), [(KEY, ""), ("changeme", "is shorter than 24 characters")])
def test_the_management_key(tmp_path: Path, name: str, key: str, weak: str) -> None:
    file = tmp_path / "admin key"
    file.write_text(f"{key}\n")
    file.chmod(0o604)
    settings = tmp_path / name
    if name.endswith(".json"):
        settings.write_text(json.dumps({"command": [], "environment": {machine.KEY_FILE: str(file)}}))
    else:
        settings.write_text(f'# settings\nPORT="8000"\n{machine.KEY_FILE}="{file}"\n')
    problems: machine.Problems = []
    assert machine.admin_key([tmp_path / "missing", settings], problems) == {
        "path": str(file), "mode": "0604", "weakness": weak,
    }  # fmt: skip
    file.unlink()
    assert machine.admin_key([settings], problems) is None
    assert [one["code"] for one in problems] == ["admin-key-weak"]


@pytest.mark.parametrize(
    "key", [KEY, "", "short", "a" * 40, "changeme-changeme-changeme", "two words " * 4, "ü" * 30]
)
def test_the_proxy_judges_keys_in_the_same_way(key: str) -> None:
    assert key_weakness(key) == (weakness(key) or "")


ON = 'APT::Periodic::Unattended-Upgrade "1";\n'
ALLOWED = 'Unattended-Upgrade::Allowed-Origins:: "Docker:${distro_codename}";\n'
KEPT = 'Unattended-Upgrade::Package-Blacklist:: "docker";\nUnattended-Upgrade::Package-Blacklist:: "(";\n'
PACKAGES = "install installed docker.io\nhold installed containerd\ninstall installed docker-ce\nunknown not-installed x\n"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (ON, ["docker.io"]),
        (ON + ALLOWED, ["docker-ce", "docker.io"]),
        (ON + KEPT, []),
        ("", []),
        ('APT::Periodic::Unattended-Upgrade "0";\n', []),
    ],
)
def test_what_unattended_upgrades_may_take(settings: str, names: list[str]) -> None:
    assert machine.upgradable(settings, PACKAGES) == names


def test_dnf_automatic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "run", lambda argv, _: (0 if argv[-1] == "docker-ce" else 1, "", ""))
    wants = tmp_path / "etc" / "systemd" / "system" / "timers.target.wants"
    wants.mkdir(parents=True)
    (tmp_path / "etc" / "dnf").mkdir()
    problems: machine.Problems = []
    assert machine.upgrades(tmp_path, problems) is None
    (wants / "dnf-automatic.timer").touch()
    assert machine.upgrades(tmp_path, problems) is None
    (tmp_path / "etc" / "dnf" / "automatic.conf").write_text("[commands]\napply_updates = yes\n")
    assert machine.upgrades(tmp_path, problems) == {"how": "dnf-automatic", "names": ["docker-ce"]}
    (tmp_path / "etc" / "dnf" / "dnf.conf").write_text("[main]\nexcludepkgs=docker* kernel*\n")
    assert machine.upgrades(tmp_path, problems) is None
    assert problems == []


def test_a_host_on_which_the_rules_were_never_applied(tmp_path: Path) -> None:
    problems: machine.Problems = []
    assert machine.firewall(tmp_path / "modelyard.nft", problems) == "none"
    assert problems == []
