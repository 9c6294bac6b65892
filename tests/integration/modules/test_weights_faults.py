"""Weights when things go wrong: killed runs, truncated files, flipped bytes, a full disk, wrong owners, no network.

The module runs as Ansible runs it on a host, in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import weights_staging
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import MANIFEST

from tests.tools.run_module import COLLECTIONS

from .conftest import SERVER, Weights

MODULE = "ansible_collections.modelyard.fleet.plugins.modules.model_snapshot"
REVISION = "0123456789abcdef0123456789abcdef01234567"
MIB = 1 << 20
BIG = random.Random(3).randbytes(6 * MIB)
WATCH = """
import sys
def seen(event, args):
    name = event == "socket.getaddrinfo" and any(letter.isalpha() for letter in str(args[0]))
    if name or event in ("socket.connect", "socket.sendto", "subprocess.Popen"):
        open({log!r}, "a").write(f"{{event}} {{args!r}}\\n")
sys.addaudithook(seen)
"""


def arguments(params: dict[str, Any]) -> str:
    return json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": False, **params}})


def run(params: dict[str, Any], **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", MODULE],
        input=arguments(params),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=COLLECTIONS,
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def start(params: dict[str, Any]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=COLLECTIONS,
    )
    assert process.stdin is not None
    process.stdin.write(arguments(params))
    process.stdin.close()
    return process


def item(place: Path, source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "source": source, "destination": str(place)} | more


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Weights]:
    """A hub that gives three MiB in a second, and the model ``org/big``."""
    root = tmp_path / "served"
    model = root / "org" / "big"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(BIG)
    command = [sys.executable, str(SERVER), str(root), "/dev/stdout", "--rate", str(3 * MIB)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield Weights(root, f"http://127.0.0.1:{process.stdout.readline().strip()}")
        finally:
            process.kill()


def whole(place: Path, finder: str, size: int = MIB) -> dict[str, Any]:
    """A model that is in place, taken from a directory."""
    source = place.with_name("source")
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(BIG[:size])
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}
    wanted = item(place, {finder: str(source), "checksums": sums})
    assert run({"snapshots": [wanted]}).get("failed") is None
    return wanted


def gate(wanted: dict[str, Any], verify: str = "changed") -> dict[str, Any]:
    """What the last look before a launch says."""
    return run({"snapshots": [wanted], "fetch": False, "mend": False, "verify": verify})


def test_killed_downloads_go_on_and_nothing_looks_whole_before_it_is(slow: Weights, tmp_path: Path) -> None:
    place = tmp_path / "w" / "m"
    wanted = item(place, {"hub": "org/big", "revision": REVISION})
    params = {"snapshots": [wanted], "hub_endpoint": slow.url}
    source = random.Random()
    kills = 0
    for at in sorted(source.uniform(0.02, 0.9) for _ in range(4)):
        process = start(params)
        end = time.monotonic() + 60
        while (
            weights_staging.bytes_below(weights_staging.staging_of(place)) < at * len(BIG)
            and process.poll() is None
        ):
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert not place.exists()
        assert gate(wanted)["failed"]
        assert "is not there yet" in gate(wanted)["msg"]
    assert kills == 4
    done = run(params)
    assert not done.get("failed"), done
    assert (place / "model.safetensors").read_bytes() == BIG
    assert "failed" not in gate(wanted, "full")
    # resumed, not begun anew: the last bytes of a killed run are lost at most
    starts = [
        one["range"]
        for one in slow.requests()
        if one["path"].endswith("safetensors") and one["method"] == "GET"
    ]
    assert any(starts), starts
    assert [path.name for path in place.parent.iterdir()] == ["m"]


def test_a_second_run_waits_for_the_first_and_downloads_nothing(slow: Weights, tmp_path: Path) -> None:
    place = tmp_path / "w" / "m"
    params = {
        "snapshots": [item(place, {"hub": "org/big", "revision": REVISION})],
        "hub_endpoint": slow.url,
    }
    first = start(params)
    end = time.monotonic() + 60
    while not weights_staging.bytes_below(weights_staging.staging_of(place)) > MIB:
        assert time.monotonic() < end
        time.sleep(0.01)
    second = run(params)
    assert not second.get("failed"), second
    assert first.wait() == 0
    gets = [one for one in slow.requests() if one["path"].endswith("safetensors") and one["method"] == "GET"]
    assert len(gets) == 1


@pytest.mark.parametrize("keep_times", [False, True], ids=["plain", "with the old times"])
def test_a_flipped_byte_is_found_and_only_what_may_have_changed_is_read(
    tmp_path: Path, keep_times: bool
) -> None:
    place = tmp_path / "m"
    wanted = whole(place, "copy")
    look = gate(wanted)
    assert look["snapshots"][0]["hashed"] == 0
    file = place / "model.safetensors"
    before = file.stat()
    with file.open("r+b") as handle:
        handle.seek(1000)
        handle.write(bytes([BIG[1000] ^ 1]))
    if keep_times:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = gate(wanted)
    assert found["failed"]
    assert "model.safetensors has another content than was downloaded" in found["msg"]
    assert "No engine is started on it" in found["msg"]
    # mended: the damaged file alone, and the seal counts again
    mended = run({"snapshots": [wanted], "verify": "changed"})
    assert mended["snapshots"][0]["action"] == "fetch"
    assert file.read_bytes() == BIG[:MIB]
    assert gate(wanted)["snapshots"][0]["hashed"] == 0


def test_a_file_that_was_touched_is_read_once_more_and_trusted_again(tmp_path: Path) -> None:
    place = tmp_path / "m"
    wanted = whole(place, "copy")
    (place / "model.safetensors").touch()
    assert gate(wanted)["snapshots"][0]["hashed"] == MIB
    assert gate(wanted)["snapshots"][0]["hashed"] == 0
    assert gate(wanted, "full")["snapshots"][0]["hashed"] == MIB + 2


def test_truncated_missing_and_incomplete_are_named(tmp_path: Path) -> None:
    place = tmp_path / "m"
    wanted = whole(place, "copy")
    os.truncate(place / "model.safetensors", 17)
    assert f"model.safetensors has 17 bytes instead of {MIB}" in gate(wanted)["msg"]
    (place / "model.safetensors").unlink()
    assert "model.safetensors is missing" in gate(wanted)["msg"]
    (place / MANIFEST).write_text("{")
    assert "has no usable manifest" in gate(wanted)["msg"]
    shutil.rmtree(place)
    assert "is not there yet" in gate(wanted)["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_wrong_owner_is_named_and_put_right_without_another_hashing(tmp_path: Path) -> None:
    place = tmp_path / "m"
    wanted = whole(place, "copy") | {"owner": 1000, "group": 1000}
    found = gate(wanted)
    assert (
        f"{place} has 3 files of another owner than 1000:1000" in found["msg"]
        or "files of another owner" in found["msg"]
    )
    assert "No engine is started" in found["msg"]
    assert run({"snapshots": [wanted]})["snapshots"][0]["action"] == "own"
    assert (place / "config.json").stat().st_uid == 1000
    assert gate(wanted)["snapshots"][0]["hashed"] == 0


def test_custom_weights_must_be_the_engines_own(tmp_path: Path) -> None:
    place = tmp_path / "volume_m" / "model_weights" / "mine"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"x")
    me = os.geteuid()
    wanted = item(place, {"custom": "mine"}, owner=me + 1, group=me + 1)
    found = gate(wanted)
    assert f"belongs to uid {me} and not to {me + 1}, which the engine runs as" in found["msg"]
    assert f"chown -R {me + 1}:{me + 1} {place}" in found["msg"]
    assert run({"snapshots": [wanted]})["failed"]  # never put right by itself
    assert (place / "model.safetensors").stat().st_uid == me
    assert not gate(wanted | {"owner": me, "group": -1}).get("failed")
    missing = gate(item(place / "none", {"custom": "none"}, owner=me))
    assert "does not exist on this host (source.custom is never fetched)" in missing["msg"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB; where none can be mounted, nothing can be shown."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(slow: Weights, small_disk: Path) -> None:
    wanted = item(small_disk / "m", {"hub": "org/big", "revision": REVISION})
    found = run({"snapshots": [wanted], "hub_endpoint": slow.url})
    assert "org/big needs 6.0 MiB" in found["msg"]
    assert "are missing" in found["msg"]
    assert not [one for one in slow.requests() if "resolve" in one["path"]]
    assert not (small_disk / "m").exists()


@pytest.mark.parametrize("kind", ["hub", "url"])
def test_a_disk_that_becomes_full_on_the_way_is_told_and_the_rest_kept(
    slow: Weights, small_disk: Path, kind: str
) -> None:
    """The space is there at first, and somebody else takes it during the download."""
    (slow.root / "org" / "big" / "model.safetensors").write_bytes(BIG[: 3 * MIB])
    source = {"hub": "org/big", "revision": REVISION}
    if kind == "url":
        # the file of the hub, at the hub's pace
        url = f"{slow.url}/org/big/resolve/{REVISION}/model.safetensors"
        source = {"url": url, "sha256": hashlib.sha256(BIG[: 3 * MIB]).hexdigest()}
    place = small_disk / "m"
    params = {"snapshots": [item(place, source)], "hub_endpoint": slow.url, "timeout_s": 5}
    log = small_disk.with_name("log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=COLLECTIONS,
        )
    assert process.stdin is not None
    process.stdin.write(arguments(params))
    process.stdin.close()
    end = time.monotonic() + 60
    while weights_staging.bytes_below(weights_staging.staging_of(place)) < MIB:
        assert time.monotonic() < end
        time.sleep(0.01)
    with (small_disk / "others").open("wb") as others:
        free = shutil.disk_usage(small_disk).free
        others.write(b"\0" * max(0, free - 4096))
    assert process.wait() != 0
    said = json.loads(log.read_text())["msg"]
    assert "No space left on device" in said, said
    assert "kept" in said
    assert not place.exists()
    (small_disk / "others").unlink()
    assert not run(params).get("failed")
    assert not gate(item(place, source), "full").get("failed")


def test_offline_makes_no_connection(slow: Weights, tmp_path: Path) -> None:
    """Watched from inside the interpreter: no connection, no name looked up, no other program started."""
    hook, log = tmp_path / "hook", tmp_path / "seen"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WATCH.format(log=str(log)))
    place = tmp_path / "w" / "m"
    wanted = item(place, {"hub": "org/big", "revision": REVISION})
    params = {"snapshots": [wanted], "hub_endpoint": slow.url, "offline": True}
    found = run(params, PYTHONPATH=str(hook))
    assert "model_weights_offline forbids to download" in found["msg"]
    assert not log.exists()
    assert slow.requests() == []
    # the watch does see what a run with a network does
    assert not run(params | {"offline": False}, PYTHONPATH=str(hook)).get("failed")
    assert "socket.connect" in log.read_text()
    log.unlink()
    # what is there is checked and used
    assert run(params | {"verify": "full"}, PYTHONPATH=str(hook))["snapshots"][0]["action"] == "keep"
    assert not log.exists()


def test_a_killed_copy_from_another_host_goes_on(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    wanted = whole(theirs, "copy", len(BIG))
    place = tmp_path / "mine"
    mine = wanted | {"destination": str(place)}
    there = {"host": "gpu01", "directory": str(theirs), "rate": 4.0 * MIB, "bytes": len(BIG)}
    process = start({"snapshots": [mine], "peer": there})
    content = weights_staging.staging_of(place) / "content" / "model.safetensors"
    end = time.monotonic() + 60
    while not (content.exists() and content.stat().st_size > MIB // 2):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert "is not there yet" in gate(mine)["msg"]
    had = content.stat().st_size
    assert not run({"snapshots": [mine], "peer": there | {"rate": 0}}).get("failed")
    assert 0 < had < len(BIG)
    assert (place / "model.safetensors").read_bytes() == BIG
    assert not gate(mine, "full").get("failed")
