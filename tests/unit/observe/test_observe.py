"""What is seen on a host: containers, GPUs, ports; and what counts as unknown."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.observe import docker, gpus, ports, process

LABELS = {
    "modelyard.fleet": "modelyard",
    "modelyard.replica": "gpu01.m.0",
    "modelyard.model": "m",
    "modelyard.engine": "vllm",
    "modelyard.hash": "abc",
    "modelyard.spec": json.dumps({"engine": "vllm", "gpus": ["1"], "publish": {"port": 8101}}),
}


def container(name: str, status: str = "running", **more: Any) -> dict[str, Any]:
    labels, host = more.pop("labels", {}), more.pop("host", {})
    return {
        "Id": f"id-{name}",
        "Name": f"/{name}",
        "Config": {"Labels": labels, "Image": "image:1", "Env": more.pop("env", [])},
        "State": {"Status": status, "StartedAt": "2026-01-01T00:00:00Z"},
        "HostConfig": host,
        "NetworkSettings": {},
    }


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An otherwise empty directory of programs, first and only one on PATH besides the shell's own."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("cat", "sleep"):
        (directory / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(directory))
    return directory


def program(directory: Path, name: str, script: str) -> None:
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def fake_docker(directory: Path, containers: list[dict[str, Any]], *, vanished: bool = False) -> None:
    (directory / "inspect.json").write_text(json.dumps(containers), encoding="utf-8")
    ids = " ".join(item["Id"] for item in containers)
    end = 'echo "Error: No such object: id-gone" >&2; exit 1' if vanished else "exit 0"
    program(
        directory,
        "docker",
        f'case "$1" in\n ps) for i in {ids}; do echo $i; done;;\n'
        f' inspect) cat "{directory}/inspect.json"; {end};;\nesac',
    )


def see_docker(timeout: int = 10) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    problems: list[str] = []
    state, ours, foreign, _ = docker.containers("modelyard", timeout, problems)
    return state, ours, foreign, problems


def test_no_docker_is_absent(programs: Path) -> None:
    assert see_docker() == ("absent", [], [], [])


def test_a_daemon_that_refuses_is_unknown_and_says_why(programs: Path) -> None:
    program(programs, "docker", "echo 'permission denied' >&2; exit 1")
    state, ours, foreign, problems = see_docker()
    assert (state, ours, foreign) == ("unknown", [], [])
    assert problems == ["docker ps: permission denied"]


def test_a_daemon_that_hangs_is_unknown(programs: Path) -> None:
    program(programs, "docker", "exec sleep 60")
    state, *_, problems = see_docker(timeout=1)
    assert state == "unknown"
    assert problems == ["docker ps: did not answer within 1 s"]


def test_ours_and_foreign_are_told_apart(programs: Path) -> None:
    other = {**LABELS, "modelyard.fleet": "other"}
    cdi = {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=3"]}]}
    fake_docker(
        programs,
        [
            container("ours", labels=LABELS),
            container("neighbour", labels=other, host=cdi),
            container("stopped-foreign", "exited"),
        ],
    )
    state, ours, foreign, problems = see_docker()
    assert (state, problems) == ("up", [])
    (replica,) = ours
    assert (replica["replica"], replica["state"], replica["hash"]) == ("gpu01.m.0", "up", "abc")
    assert (replica["gpus"], replica["port"], replica["spec"]["engine"]) == (["1"], 8101, "vllm")
    assert foreign == [{"name": "neighbour", "image": "image:1", "ports": [], "gpus": ["3"]}]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", "up"),
        ("exited", "down"),
        ("restarting", "down"),
        ("paused", "unknown"),
        ("removing", "unknown"),
    ],
)
def test_states(programs: Path, status: str, state: str) -> None:
    fake_docker(programs, [container("ours", status, labels=LABELS)])
    assert see_docker()[1][0]["state"] == state


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        # replaced, and the change is not confirmed yet
        ({"m": "running", "m.previous": "exited"}, ("m", "up", "m.previous", "down")),
        # cut off while it was replaced
        ({"m": "running", "m.next": "created"}, ("m", "up", None, None)),
        ({"m.previous": "exited", "m.next": "created"}, ("m.previous", "down", None, None)),
        # cut off while it was put back
        ({"m.previous": "running"}, ("m.previous", "up", None, None)),
        ({"m.previous": "running", "m": "exited"}, ("m", "down", "m.previous", "up")),
    ],
)
def test_what_is_kept_of_a_replica_is_no_second_replica(
    programs: Path, there: dict[str, str], expected: tuple[Any, ...]
) -> None:
    fake_docker(programs, [container(name, status, labels=LABELS) for name, status in there.items()])
    (replica,) = see_docker()[1]
    kept = replica["previous"] or {"name": None, "state": None}
    assert (replica["name"], replica["state"], kept["name"], kept["state"]) == expected


def test_names_of_images(programs: Path) -> None:
    rows = ("vllm/vllm-openai:v1 sha256:a", "<none>:<none> sha256:b", "reg:5000/x:2 sha256:a")
    said = "\n".join(f"echo '{row}'" for row in rows)
    program(programs, "docker", said)
    assert docker.images(10) == {"vllm/vllm-openai:v1": "sha256:a", "reg:5000/x:2": "sha256:a"}
    program(programs, "docker", f"{said}; exit 1")
    assert docker.images(10) == {}


def test_a_container_that_vanishes_meanwhile_does_not_hide_the_others(programs: Path) -> None:
    fake_docker(programs, [container("ours", labels=LABELS)], vanished=True)
    state, ours, *_ = see_docker()
    assert state == "up"
    assert len(ours) == 1


@pytest.mark.parametrize(
    ("host", "env", "expected"),
    [
        ({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}, [], ["all"]),
        ({"DeviceRequests": [{"DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]}]}, [], ["0", "1"]),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=2"], ["2"]),
        ({"Runtime": "runc"}, ["NVIDIA_VISIBLE_DEVICES=all"], []),
        ({}, [], []),
    ],
)
def test_gpus_of_foreign_containers(
    programs: Path, host: dict[str, Any], env: list[str], expected: list[str]
) -> None:
    fake_docker(programs, [container("x", host=host, env=env)])
    assert see_docker()[2][0]["gpus"] == expected


def test_a_listening_port_is_seen_on_both_families() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        assert one.getsockname()[1] in ports.listening("/proc")
    assert one.fileno() == -1


def test_listening_reads_the_kernels_table(tmp_path: Path) -> None:
    table = tmp_path / "net"
    table.mkdir()
    head = "  sl  local_address rem_address   st\n"
    (table / "tcp").write_text(head + "   0: 0100007F:1FA4 00000000:0000 0A\n   1: 0100007F:1FA5 0:0 01\n")
    (table / "tcp6").write_text(head + f"   0: {'0' * 32}:1FA6 {'0' * 32}:0000 0A\n")
    assert ports.listening(str(tmp_path)) == {0x1FA4, 0x1FA6}


def test_gpus_and_whose_processes_run_on_them(programs: Path, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    for pid, parent, group in (
        (100, 1, "/"),
        (101, 100, "/"),
        (200, 1, "/docker/id-ours"),
        (300, 1, "/user"),
    ):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "cgroup").write_text(f"0::{group}\n")
        (proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) S {parent} 0\n")
    program(
        programs,
        "nvidia-smi",
        'case "$1" in\n'
        " --query-gpu*) echo '0, GPU-a, NVIDIA H100 80GB HBM3, 81559'; echo '1, GPU-b, NVIDIA H100, 81559';;\n"
        " *) echo 'GPU-a, 101'; echo 'GPU-a, 200'; echo 'GPU-b, 300'; echo 'GPU-b, 999';;\nesac",
    )
    problems: list[str] = []
    found = gpus.devices(10, problems, gpus.Owner(str(proc), ["id-ours"], [100]))
    assert problems == []
    assert [(one["index"], one["uuid"], one["foreign_processes"]) for one in found] == [
        (0, "GPU-a", []),
        (1, "GPU-b", [300]),
    ]
    assert found[0]["name"] == "NVIDIA H100 80GB HBM3"
    assert found[0]["memory_mib"] == 81559


def test_a_broken_driver_is_told(programs: Path) -> None:
    program(programs, "nvidia-smi", "echo 'Driver/library version mismatch'; exit 18")
    problems: list[str] = []
    assert gpus.devices(10, problems, gpus.Owner("/proc", [], [])) == []
    assert problems == ["nvidia-smi: Driver/library version mismatch"]


def installed(home: Path, name: str, port: int) -> None:
    directory = home / "process" / name
    directory.mkdir(parents=True)
    spec = {"model": "m", "engine": "echo", "gpus": [], "publish": {"port": port}}
    (directory / "spec.json").write_text(json.dumps({"hash": "abc", "spec": spec}), encoding="utf-8")


def test_no_process_directory_is_absent(tmp_path: Path) -> None:
    assert process.replicas(tmp_path, 5, set(), []) == ("absent", [])


def test_without_a_supervisor_a_replica_is_down(tmp_path: Path) -> None:
    installed(tmp_path, "h.m.0", 8100)
    state, (replica,) = process.replicas(tmp_path, 5, set(), [])
    assert state == "up"
    assert (replica["state"], replica["hash"], replica["port"]) == ("down", "abc", 8100)


def test_without_a_supervisor_but_with_its_port_taken_it_is_unknown(tmp_path: Path) -> None:
    installed(tmp_path, "h.m.0", 8100)
    problems: list[str] = []
    _, (replica,) = process.replicas(tmp_path, 5, {8100}, problems)
    assert replica["state"] == "unknown"
    assert "something listens on its port 8100" in problems[0]


def test_a_supervisor_that_does_not_answer_makes_its_replicas_unknown(tmp_path: Path) -> None:
    installed(tmp_path, "h.m.0", 8100)
    (tmp_path / "supervisor").mkdir()
    problems: list[str] = []
    with socket.socket(socket.AF_UNIX) as mute:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's own path must be short
        try:
            mute.bind("supervisor/supervisor.sock")
        finally:
            os.chdir(here)
        mute.listen()
        _, (replica,) = process.replicas(tmp_path, 1, set(), problems)
    assert replica["state"] == "unknown"
    assert problems[0].startswith("supervisor at ")
    assert problems[0].endswith("timed out")
    # and one that has ended, leaving its socket behind, answers nothing but is no secret
    assert process.replicas(tmp_path, 1, set(), [])[1][0]["state"] == "down"


def test_a_spec_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    installed(tmp_path, "h.m.0", 8100)
    (tmp_path / "process" / "h.m.0" / "spec.json").write_text("{", encoding="utf-8")
    problems: list[str] = []
    _, (replica,) = process.replicas(tmp_path, 1, set(), problems)
    assert (replica["replica"], replica["model"], replica["port"]) == ("h.m.0", "m", None)
    assert "spec.json" in problems[0]


def test_a_start_that_was_cut_off_before_its_record_is_seen(tmp_path: Path) -> None:
    (tmp_path / "process" / "h.m.0").mkdir(parents=True)
    problems: list[str] = []
    _, (replica,) = process.replicas(tmp_path, 1, set(), problems)
    assert (replica["replica"], replica["model"], replica["hash"]) == ("h.m.0", "m", None)
    assert replica["state"] == "down"
    assert "spec.json" in problems[0]


def test_a_replica_that_outlived_its_supervisor_is_up_and_lost(tmp_path: Path) -> None:
    installed(tmp_path, "h.m.0", 8100)
    directory = tmp_path / "process" / "h.m.0"
    orphan = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        env={"SUPERVISED_PROGRAM": str(directory)},
    )
    try:
        (directory / "pid").write_text(str(orphan.pid), encoding="utf-8")
        problems: list[str] = []
        _, (replica,) = process.replicas(tmp_path, 1, {8100}, problems)
        assert (replica["state"], replica["pid"], replica["lost"]) == ("up", orphan.pid, process.ORPHAN)
        assert problems == []
    finally:
        orphan.communicate(b"\n")
    # its process surely ended: whoever listens on its port is somebody else
    _, (replica,) = process.replicas(tmp_path, 1, {8100}, [])
    assert (replica["state"], replica["lost"]) == ("down", "")
