"""Settings of a daemon: merged, never overwritten; reloaded, restarted or refused."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import daemon_json
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.run_module import COLLECTIONS

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)
PASSWORD = "hunter2-of-the-proxy"


def holds(settings: Any, wished: Any) -> bool:
    """Whether all that is wished stands in the settings."""
    if isinstance(wished, dict) and isinstance(settings, dict):
        return all(key in settings and holds(settings[key], value) for key, value in wished.items())
    return bool(settings == wished)


@given(SETTINGS, SETTINGS, SETTINGS)
def test_what_is_wished_stands_there_and_a_second_run_changes_nothing(
    found: dict[str, Any], wished: dict[str, Any], before: dict[str, Any]
) -> None:
    once = daemon_json.merged(found, wished, before)
    assert holds(once, wished)
    assert daemon_json.merged(once, wished, wished) == once


@given(SETTINGS, SETTINGS)
def test_what_others_wrote_stays(found: dict[str, Any], wished: dict[str, Any]) -> None:
    merged = daemon_json.merged(found, wished, {})
    assert all(merged[key] == value for key, value in found.items() if key not in wished)
    assert list(merged)[: len(found)] == list(found), "in the order in which it stood"


@given(SETTINGS, SETTINGS)
def test_what_was_ours_alone_goes_with_the_wish(found: dict[str, Any], wished: dict[str, Any]) -> None:
    others = {key: value for key, value in found.items() if key not in wished}
    assert daemon_json.merged(daemon_json.merged(others, wished, {}), {}, wished) == others


def test_objects_are_merged_key_by_key_and_lists_replaced() -> None:
    found = {
        "log-opts": {"tag": "{{.Name}}", "max-size": "1g"},
        "dns": ["10.0.0.1"],
        "registry-mirrors": ["a"],
    }
    wished = {"log-opts": {"max-size": "50m"}, "registry-mirrors": ["b"]}
    assert daemon_json.merged(found, wished, {}) == {
        "log-opts": {"tag": "{{.Name}}", "max-size": "50m"},
        "dns": ["10.0.0.1"],
        "registry-mirrors": ["b"],
    }


@pytest.mark.parametrize(
    ("found", "wanted", "needs"),
    [
        ({}, {}, "none"),
        ({"bip": "1"}, {"bip": "1"}, "none"),
        ({}, {"live-restore": True}, "reload"),
        ({"registry-mirrors": ["a"]}, {"registry-mirrors": ["b"], "debug": True}, "reload"),
        ({}, {"live-restore": True, "log-driver": "local"}, "restart"),
        ({}, {"features": {"cdi": True}}, "reload"),
        ({}, {"features": {"containerd-snapshotter": True}}, "restart"),
    ],
)
def test_what_a_daemon_needs_to_follow(found: dict[str, Any], wanted: dict[str, Any], needs: str) -> None:
    assert daemon_json.needs(found, wanted) == needs


@pytest.mark.parametrize(
    ("found", "wanted", "lost"),
    [
        ({}, {"live-restore": True, "log-driver": "local"}, []),
        ({}, {"log-driver": "local"}, ["live-restore"]),
        ({}, {"live-restore": True, "data-root": "/var/lib/docker"}, []),
        ({}, {"live-restore": True, "data-root": "/srv/docker"}, ["data-root"]),
        ({"bip": "a"}, {"bip": "b", "live-restore": True}, ["bip"]),
        ({}, {"live-restore": True, "features": {"containerd-snapshotter": True}}, ["features"]),
        ({"live-restore": True}, {}, []),
    ],
)
def test_what_containers_do_not_survive(
    found: dict[str, Any], wanted: dict[str, Any], lost: list[str]
) -> None:
    assert daemon_json.not_survived(found, wanted) == lost


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"a": 1,}', "// no\n{}"])
def test_what_is_not_an_object_of_json_is_refused_by_name(text: str) -> None:
    with pytest.raises(daemon_json.SettingsError, match=r"/etc/docker/daemon\.json .*nothing was changed"):
        daemon_json.parse(text, "/etc/docker/daemon.json")


@pytest.mark.parametrize("text", ["", " \n", "{}"])
def test_an_empty_file_has_no_settings(text: str) -> None:
    assert daemon_json.parse(text, "x") == {}


def run(directory: Path, check: bool = False, path: str = "", **params: Any) -> dict[str, Any]:
    """The module's result, as Ansible has it; no password is in it."""
    params |= {"path": str(directory / "daemon.json"), "pending": str(directory / "pending")}
    arguments = {"ANSIBLE_MODULE_ARGS": {**params, "_ansible_check_mode": check, "_ansible_diff": True}}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.modelyard.fleet.plugins.modules.daemon_settings"],
        input=json.dumps(arguments), capture_output=True, text=True, check=False, cwd=COLLECTIONS,
        env={"PATH": f"{path}:/usr/bin:/bin" if path else "/nowhere"},
    )  # fmt: skip
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def test_a_check_foresees_what_is_done_and_touches_nothing(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"dns": ["10.0.0.1"]}')
    file.chmod(0o640)
    wish = {"live-restore": True}
    foreseen = run(tmp_path, check=True, settings=wish)
    assert [path.name for path in tmp_path.iterdir()] == ["daemon.json"]
    done = run(tmp_path, settings=wish)
    same = ("changed", "needs", "keys", "not_survived", "diff")
    assert [foreseen[key] for key in same] == [done[key] for key in same]
    assert (done["changed"], done["needs"], done["keys"]) == (True, "reload", ["live-restore"])
    assert json.loads(file.read_text()) == {"dns": ["10.0.0.1"], "live-restore": True}
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_run_that_was_cut_off_is_made_up_for(tmp_path: Path) -> None:
    run(tmp_path, settings={"live-restore": True, "bip": "198.18.0.1/24"})
    # nobody has restarted the daemon: the file is right, and the need is still there, also for the gate
    again = run(tmp_path, settings={"live-restore": True, "bip": "198.18.0.1/24"})
    assert (again["changed"], again["needs"], again["keys"]) == (True, "restart", [])
    assert again["not_survived"] == ["bip"]
    run(tmp_path, state="in_force")
    last = run(tmp_path, settings={"live-restore": True, "bip": "198.18.0.1/24"})
    assert (last["changed"], last["needs"]) == (False, "none")


def test_what_the_service_needs_is_noted_too(tmp_path: Path) -> None:
    wish = {"live-restore": True}
    run(tmp_path, settings=wish)
    run(tmp_path, state="in_force")
    asked = run(tmp_path, settings=wish, needs="restart")
    assert (asked["changed"], asked["needs"], asked["keys"]) == (True, "restart", [])
    # cut off here: nobody asks any more, and it is still due
    assert run(tmp_path, settings=wish)["needs"] == "restart"
    run(tmp_path, state="in_force")
    assert not run(tmp_path, settings=wish)["changed"]


def test_what_does_not_start_is_put_back_to_what_is_in_force(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"dns": ["10.0.0.1"]}')
    run(tmp_path, settings={"log-driver": "one"})
    run(tmp_path, settings={"log-driver": "another"})
    assert run(tmp_path, state="put_back")["changed"]
    assert file.read_text() == '{"dns": ["10.0.0.1"]}'
    assert not run(tmp_path, state="put_back")["changed"]


def test_what_was_not_there_is_gone_when_it_is_put_back(tmp_path: Path) -> None:
    run(tmp_path, settings={"log-driver": "one"})
    run(tmp_path, state="put_back")
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_is_no_longer_wished_goes_and_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"dns": ["10.0.0.1"], "log-opts": {"tag": "x"}}')
    run(
        tmp_path,
        settings={"log-opts": {"max-size": "1m"}, "registry-mirrors": ["https://mirror.example.org"]},
    )
    run(tmp_path, settings={"log-opts": {"max-size": "1m"}})
    assert json.loads(file.read_text()) == {"dns": ["10.0.0.1"], "log-opts": {"tag": "x", "max-size": "1m"}}


def test_invalid_json_is_an_error_and_the_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text('{"dns": [}')
    for check in (True, False):
        result = run(tmp_path, check=check, settings={"live-restore": True})
        assert result["failed"]
        assert "line 1, column 10" in result["msg"]
    assert file.read_text() == '{"dns": [}'
    assert [path.name for path in tmp_path.iterdir()] == ["daemon.json"]


def test_passwords_are_for_root_alone_and_never_shown(tmp_path: Path) -> None:
    wish = {"proxies": {"https-proxy": f"http://user:{PASSWORD}@proxy.example.org:3128"}}
    shown = run(tmp_path, settings=wish)["diff"]["after"]
    assert "http://***@proxy.example.org:3128" in shown
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_link_stays_one(tmp_path: Path) -> None:
    there = tmp_path / "elsewhere" / "real.json"
    there.parent.mkdir()
    there.write_text("{}")
    (tmp_path / "daemon.json").symlink_to(there)
    run(tmp_path, settings={"debug": True})
    assert (tmp_path / "daemon.json").is_symlink()
    assert json.loads(there.read_text()) == {"debug": True}


@pytest.mark.parametrize(
    ("daemon", "refused"),
    [
        ("exit 0", False),
        ("echo 'unknown flag: --validate' >&2; exit 125", False),
        ('echo "bad: $(cat "${2#*=}" | tr -d "\\n ")" >&2; exit 1', True),
    ],
    ids=["takes it", "cannot tell", "refuses it"],
)
def test_what_the_daemon_would_not_start_with_is_not_written(
    tmp_path: Path, daemon: str, refused: bool
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "dockerd").write_text(f"#!/bin/sh\n{daemon}\n")
    (tools / "dockerd").chmod(0o755)
    place = tmp_path / "etc"
    place.mkdir()
    result = run(place, path=str(tools), settings={"log-driver": "none such"})
    assert bool(result.get("failed")) is refused
    assert (place / "daemon.json").exists() is not refused
    if refused:
        assert "would not start with these settings" in result["msg"]
        assert '{"log-driver":"nonesuch"}' in result["msg"]
