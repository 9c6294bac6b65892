"""What is looked at on a host: parsers, and the module run for real before tools that answer, fail and hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.clock import offset
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.hosts import (
    cdi,
    clock,
    disks,
    engine,
    listeners,
    system,
)
from ansible_collections.modelyard.fleet.plugins.modules.host_health import port_numbers

COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
MODULE = "ansible_collections.modelyard.fleet.plugins.modules.host_health"
MIB = 1024**2


def tool(root: Path, name: str, *lines: str) -> None:
    """An executable of a host."""
    (root / "bin").mkdir(exist_ok=True)
    file = root / "bin" / name
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    file.chmod(0o755)


def run_module(root: Path, check: bool = False, **params: Any) -> dict[str, Any]:
    """The module as Ansible runs it, with the tools of ``root/bin`` and the system's ``stat``."""
    tool(root, "stat", 'exec /usr/bin/stat "$@"')
    given = {"path": [str(root / "bin")], **params, "_ansible_check_mode": check}
    done = subprocess.run(
        [sys.executable, "-m", MODULE],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
        capture_output=True,
        text=True,
        check=False,
        cwd=COLLECTIONS,
    )
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_everything_in_one_call(tmp_path: Path) -> None:
    info = {"ServerVersion": "28.3", "DockerRootDir": str(tmp_path), "CDISpecDirs": [str(tmp_path / "cdi")]}
    tool(tmp_path, "docker", f"echo '{json.dumps(info)}'")
    tool(tmp_path, "timedatectl", "echo NTPSynchronized=yes")
    tool(tmp_path, "nvidia-ctk", "echo NVIDIA Container Toolkit CLI version 1.18.0")
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi" / "nvidia.yaml").write_text(SPEC.replace("/dev/nvidia0", "/dev/null"), "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        replica = {"replica": "h.m.0", "port": port, "pid": os.getpid()}
        facts = run_module(
            tmp_path,
            directories=["/tmp", str(tmp_path / "not" / "yet")],
            replicas=[replica],
            ports=f"{port}-{port}",
        )
    assert (facts["changed"], facts["engine"]["state"], facts["engine"]["version"]) == (False, "up", "28.3")
    assert facts["clock"]["synchronised"] is True
    assert {disk["path"]: disk["at"] for disk in facts["disks"]} == {
        "/tmp": "/tmp", str(tmp_path): str(tmp_path), str(tmp_path / "not" / "yet"): str(tmp_path),
    }  # fmt: skip
    assert all(disk["state"] == "up" and 0 < disk["free"] <= disk["total"] for disk in facts["disks"])
    assert 0 < facts["memory"]["available"] <= facts["memory"]["total"]
    assert facts["load"]["cores"] == os.cpu_count()
    assert facts["uptime_s"] > 0
    assert facts["began"] <= facts["ended"]
    assert facts["cdi"]["toolkit"]["version"] == "1.18.0"
    (spec,) = facts["cdi"]["specs"]
    assert (spec["kind"], spec["devices"]) == ("nvidia.com/gpu", ["0", "all"])
    assert spec["missing"] == ["/dev/nvidiactl", "/usr/lib/libcuda.so.550.54.15"]
    (listener,) = facts["ports"]["listeners"]
    assert (listener["port"], listener["replica"], listener["process"]["pid"]) == (port, "h.m.0", os.getpid())


def test_check_mode_sees_the_same(tmp_path: Path) -> None:
    moving = ("began", "ended", "uptime_s", "memory", "load", "disks", "invocation", "clock")
    seen, foreseen = run_module(tmp_path), run_module(tmp_path, check=True)
    assert {**seen, **dict.fromkeys(moving)} == {**foreseen, **dict.fromkeys(moving)}


def test_a_machine_that_tells_nothing_is_unknown_and_not_well(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    facts = run_module(tmp_path, proc=str(tmp_path / "proc"), ports="8100-8101")
    assert [facts[key]["state"] for key in ("memory", "load", "ports")] == ["unknown"] * 3
    assert facts["uptime_s"] is None
    assert facts["engine"]["state"] == "absent"
    assert facts["cdi"]["toolkit"]["state"] == "absent"


def test_tools_that_hang_are_left_in_time(tmp_path: Path) -> None:
    for name in ("docker", "timedatectl", "chronyc", "nvidia-ctk"):
        tool(tmp_path, name, "sleep 30")
    began = time.monotonic()
    facts = run_module(tmp_path, timeout=0.5)
    assert time.monotonic() - began < 15
    assert (facts["engine"]["state"], facts["engine"]["reason"]) == (
        "silent",
        "docker did not answer within 0.5 s",
    )
    assert facts["cdi"]["toolkit"]["state"] == "unknown"


def test_a_file_system_that_hangs_holds_up_nobody_but_itself(tmp_path: Path) -> None:
    facts = run_module(tmp_path, directories=["/tmp"])
    assert facts["disks"][0]["state"] == "up"
    tool(tmp_path, "hanging", "sleep 30")
    (tmp_path / "bin" / "stat").unlink()
    (tmp_path / "bin" / "hanging").rename(tmp_path / "bin" / "stat")
    found = disks.look(Host(0.3, "/proc", "/sys", [str(tmp_path / "bin")]), ["/srv/weights", "/tmp"])
    assert [one["state"] for one in found] == ["unknown", "unknown"]
    assert found[0]["reason"] == "stat of /srv/weights did not answer within 0.3 s"


@pytest.mark.parametrize("text", ["", "8100-8199", "1-65535"])
def test_ports_that_are_some(text: str) -> None:
    assert len(port_numbers(text)) == (
        0 if not text else int(text.split("-")[1]) - int(text.split("-")[0]) + 1
    )


@pytest.mark.parametrize("text", ["x", "8100", "9-8", "0-5", "1-65536"])
def test_ports_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    result = run_module(tmp_path, ports=text)
    assert result["failed"] is True
    assert "such as 8100-8199" in result["msg"]


def test_sizes_of_a_file_system() -> None:
    assert disks.parse("ab12 4096 1000 250 100 40\n") == {
        "filesystem": "ab12", "total": 4096000, "free": 1024000, "inodes": 100, "inodes_free": 40,
    }  # fmt: skip
    btrfs = disks.parse("ab12 4096 1000 250 0 0")
    assert btrfs is not None
    assert (btrfs["inodes"], btrfs["inodes_free"]) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab 4096 1000 250 100",
        "ab 4096 x 250 100 40",
        "ab 4096 0 0 0 0",
        "ab 4096 10 20 5 5",
        "ab 1 9 9 5 6",
    ],
)
def test_figures_that_cannot_be_are_none(text: str) -> None:
    assert disks.parse(text) is None


def test_memory() -> None:
    text = "MemTotal: 1024 kB\nMemFree: 1 kB\nMemAvailable: 512 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
    assert system.parse_memory(text) == {"total": MIB, "available": MIB // 2, "swap_total": 0, "swap_free": 0}
    assert system.parse_memory(text.replace("MemAvailable: 512", "MemAvailable: 2048")) is None
    assert system.parse_memory("MemTotal: 1024 kB\n") is None
    assert system.parse_load("0.50 1.25 2.00 1/100 4242\n") == [0.5, 1.25, 2.0]
    assert system.parse_load("nonsense") is None


def test_who_keeps_the_clock() -> None:
    assert clock.parse_timedatectl("NTPSynchronized=yes\n") is True
    assert clock.parse_timedatectl("NTPSynchronized=no\n") is False
    assert clock.parse_timedatectl("System has not been booted with systemd") is None
    assert clock.parse_chronyc("Reference ID : x\nLeap status     : Normal\n") is True
    assert clock.parse_chronyc("Leap status     : Not synchronised\n") is False
    assert clock.parse_chronyc("506 Cannot talk to daemon") is None


@pytest.mark.parametrize(("ahead", "took"), [(0.0, 1.0), (120.0, 3.0), (-7.0, 0.2)])
def test_the_truth_lies_within_what_is_told(ahead: float, took: float) -> None:
    before, there, back = 1000.0, 0.3, 0.1
    began = before + there + ahead
    told = offset(before, before + there + took + back, began, began + took)
    assert abs(told["offset_s"] - ahead) <= told["within_s"] + 0.001
    assert told["within_s"] == pytest.approx((there + back) / 2)


@pytest.mark.parametrize(
    ("out", "err", "state"),
    [
        ('{"ServerVersion": "28.3", "DockerRootDir": "/var/lib/docker"}', "", "up"),
        (
            "{}",
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "down",
        ),
        (
            '{"ServerErrors": ["Cannot connect to the Docker daemon. Is the docker daemon running?"]}',
            "",
            "down",
        ),
        ('{"ServerErrors": ["permission denied while trying to connect to the docker API"]}', "", "unknown"),
        ("garbage", "", "unknown"),
        ("", "", "unknown"),
        ("[]", "", "unknown"),
    ],
)
def test_what_docker_says(out: str, err: str, state: str) -> None:
    found = engine.parse(out, err, "")
    assert found["state"] == state
    assert bool(found["reason"]) == (state != "up")
    assert found["cdi_directories"] == []


SPEC = """---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/elsewhere/libcuda.so.1
    hostPath: /usr/lib/libcuda.so.550.54.15
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - hostPath: /dev/nvidia0
      path: /dev/nvidia-elsewhere
  name: all
kind: nvidia.com/gpu
"""


def test_a_specification_in_yaml_and_in_json() -> None:
    wanted = {
        "kind": "nvidia.com/gpu",
        "devices": ["0", "all"],
        "paths": ["/dev/nvidiactl", "/dev/nvidia0", "/usr/lib/libcuda.so.550.54.15"],
    }
    assert cdi.parse_yaml(SPEC) == wanted
    document = json.dumps(
        {
            "kind": "nvidia.com/gpu",
            "containerEdits": {"deviceNodes": [{"path": "/dev/nvidiactl"}]},
            "devices": [
                {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
                {
                    "name": "all",
                    "containerEdits": {"mounts": [{"hostPath": "/usr/lib/libcuda.so.550.54.15"}]},
                },
            ],
        }
    )
    assert cdi.parse_json(document) == wanted


def test_lists_that_are_indented_are_read_too() -> None:
    text = "kind: amd.com/gpu\ndevices:\n  - name: '0'\n    containerEdits:\n      deviceNodes:\n        - path: /dev/kfd\n"
    assert cdi.parse_yaml(text) == {"kind": "amd.com/gpu", "devices": ["0"], "paths": ["/dev/kfd"]}


@pytest.mark.parametrize(
    "text", ["", "kind: x\n", "devices:\n- name: x\n", "\x00\x01", "[1]", "{}", '{"kind": 1}']
)
def test_a_specification_that_is_none(text: str) -> None:
    assert cdi.parse_yaml(text) is None
    assert cdi.parse_json(text) is None


def test_listening_sockets_of_the_kernels_table() -> None:
    row = "   {}: 0100007F:1FA4 00000000:0000 {} 00000000:00000000 00:00000000 00000000  1000 0 {} 1 0 100 0 0 10 0"
    text = "\n".join(["  sl  local_address", row.format(0, "0A", 777), row.format(1, "01", 778), "odd"])
    assert listeners.parse(text) == {(8100, "777")}


def test_a_stranger_and_a_replica_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = listeners.look("/proc", [port], [{"replica": "h.m.0", "port": port, "pid": 2**22 + 1}])
    (one,) = found["listeners"]
    assert (one["port"], one["replica"], one["process"]["pid"]) == (port, None, os.getpid())
