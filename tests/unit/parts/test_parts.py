"""What the test parts decide before Docker is asked: names, settings, who is still alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hosts.owner import Owner
from tests.parts import building, machine
from tests.parts.errors import PartError
from tests.parts.fingerprint import fingerprint, image_tag


def test_a_fingerprint_follows_content_name_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("one")
    seen = {fingerprint(tmp_path)}
    file.write_text("two")
    seen.add(fingerprint(tmp_path))
    file.chmod(0o755)
    seen.add(fingerprint(tmp_path))
    file.rename(tmp_path / "b")
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 4


def test_a_fingerprint_keeps_pieces_apart_and_ignores_compiled_files(tmp_path: Path) -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    before = fingerprint(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("x")
    assert fingerprint(tmp_path) == before
    assert image_tag("base", "x").startswith("modelyard-test/base:")


def test_a_part_comes_after_all_that_it_needs() -> None:
    for part in building.PARTS.values():
        order = [each.name for each in building.ordered([part.name])]
        assert order[-1] == part.name
        assert len(order) == len(set(order))
        for name in order:
            assert all(order.index(need) < order.index(name) for need in building.PARTS[name].needs)


def test_apt_settings_are_how_mirrors_are_reached_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = 'Acquire::http::Proxy "http://p:1";\nAcquire::Check-Date "false";\nAcquire::Languages "none";\n'
    tool = tmp_path / "apt-config"
    tool.write_text(f"#!/bin/sh\nprintf '%s' '{dump}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert machine.apt_settings().splitlines() == dump.splitlines()[:2]
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.apt_settings() == ""


def test_pip_settings_of_the_environment_win_over_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "mirror"
    for directory in (wheels, index / "simple"):
        directory.mkdir(parents=True)
    settings, limits = tmp_path / "pip.conf", tmp_path / "constraints.txt"
    limits.write_text("six<2\n")
    settings.write_text(
        f"[global]\nfind-links = /nowhere\nconstraint = {limits}\n"
        f"extra-index-url = {(index / 'simple').as_uri()}\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    assert machine.find_links() == [wheels]
    assert set(machine.mounts_for_pip()) >= {wheels, index, limits}


@pytest.mark.parametrize(
    ("location", "path"),
    [("/a/b", Path("/a/b")), ("file:///a/b%20c", Path("/a/b c")), ("https://host.invalid/simple", None)],
)
def test_only_local_locations_have_a_path(location: str, path: Path | None) -> None:
    assert machine.local_path(location) == path


def test_another_release_uses_mmdebstraps_own_default() -> None:
    assert machine.debian_sources("no-such-release") == []


def test_an_owner_is_dead_when_its_process_is() -> None:
    alive = Owner.current()
    assert not alive.is_dead()
    assert Owner.parse(str(alive)) == alive
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        copied = Owner(alive.namespace, other.pid, alive.started + 10**9)
        assert copied.is_dead(), "a process id that another process got since"
    assert Owner(alive.namespace, other.pid, alive.started).is_dead()


def test_an_owner_that_cannot_be_seen_from_here_may_live() -> None:
    alive = Owner.current()
    assert not Owner(alive.namespace + 1, 1, 1).is_dead()
    assert Owner.parse("somebody") is None


def test_without_an_engine_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(PartError, match="docker"):
        building.ensure(["base"], lambda line: None)
