# ruff: noqa: E501 - a case is a line
"""From what was seen to findings: each fault has its own sentence, a well host has none, the unknown is never well."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.action.doctor import lines
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor import gpus
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.findings import compose
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import KINDS

from modelyard.inventory import host_settings

GIB = 1024**3
NOW = 1767225600.0  # 2026-01-01T00:00:00Z


def settings(**given: Any) -> dict[str, Any]:
    return host_settings(
        given, name="h", ansible_host="10.0.0.1", local=False, inventory_dir="/i", python="/p"
    )


SETTINGS = settings(fleet_accelerator="nvidia", fleet_gpus=2)
SPEC = {"start_period_s": 600, "url": "http://10.0.0.1:8100"}
WISHED = {
    "replica": "h.m.0", "model": "m", "host": "h", "port": 8100, "gpus": ["0"], "wished": True, "observed": "up",
    "runtime": "docker", "hash": "a", "spec": SPEC,
}  # fmt: skip
DISK = {
    "path": "/var/lib/modelyard",
    "at": "/var/lib/modelyard",
    "state": "up",
    "reason": "",
    "filesystem": "1",
    "total": 1000 * GIB,
    "free": 500 * GIB,
    "inodes": 1000,
    "inodes_free": 900,
}
GPU = {"vendor": "nvidia", "index": 0, "uuid": "GPU-0", "state": "up", "mig": {"instances": []}}
WELL: dict[str, Any] = {
    "plan": {
        "hosts": {"h": {"state": "up", "blocked_gpus": {}, "replicas": [WISHED], "stops": []}},
        "assignments": [WISHED],
        "changes": [{"action": "keep", "replica": "h.m.0", "host": "h", "reason": "up"}],
        "registry": {"models": {}},
        "problems": [],
    },
    "settings": {"h": SETTINGS},
    "facts": {"h": {"replicas": [{"replica": "h.m.0", "model": "m", "state": "up", "status": "running", "hash": "a", "container_id": "c", "started_at": "2025-12-31T23:00:00Z"}], "foreign": [], "docker": "up"}},
    "compared": {"h": {"replicas": [{"replica": "h.m.0", "differences": []}]}},
    "proxies": {},
    "health": {"h": {
        "began": NOW - 1, "ended": NOW, "uptime_s": 9000.0,
        "disks": [DISK],
        "memory": {"state": "up", "reason": "", "total": 64 * GIB, "available": 32 * GIB, "swap_total": 8 * GIB, "swap_free": 8 * GIB},
        "load": {"state": "up", "reason": "", "averages": [1.0, 1.0, 1.0], "cores": 16},
        "clock": {"state": "up", "reason": "", "source": "chronyc", "synchronised": True, "offset_s": 0.1, "within_s": 0.2},
        "engine": {"state": "up", "reason": "", "version": "28.3", "root": "/var/lib/docker", "storage": "overlay2", "cdi_directories": ["/etc/cdi"]},
        "cdi": {"state": "up", "reason": "", "specs": [{"file": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "devices": ["0", "1", "all"], "missing": [], "reason": ""}], "toolkit": {"state": "up", "version": "1.18.0", "reason": ""}},
        "ports": {"state": "up", "reason": "", "listeners": [{"port": 8100, "process": {"pid": 7, "name": "docker-proxy"}, "replica": "h.m.0"}]},
    }},
    "gpu_facts": {"h": {"state": "up", "findings": [], "gpus": [GPU, {**GPU, "index": 1, "uuid": "GPU-1"}], "vendors": {"nvidia": {"present": True}, "amd": {"present": False}}}},
    "probes": {"h": {"replicas": [{"replica": "h.m.0", "live": True, "ready": True, "ok": True, "text": "Hello", "generation_s": 0.4, "error": None}]}},
    "asked": ["h"],
    "generate": True,
}  # fmt: skip


def seen(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The well host with some values replaced; a path is written with slashes."""
    copied = copy.deepcopy(WELL)
    for path, value in changes:
        keys = [int(key) if key.isdigit() else key for key in path.split("/")]
        place: Any = copied
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    return copied


def found(*changes: tuple[str, Any]) -> list[dict[str, Any]]:
    """The findings, their shape checked."""
    report = compose(**seen(*changes))
    for one in report["findings"]:
        assert set(one) == {"severity", "host", "kind", "code", "subject", "text"}
        assert one["kind"] in KINDS
        assert one["text"][0] == one["text"][0].upper() or one["text"].startswith(one["subject"])
        assert one["text"].rstrip('"').endswith((".", "!")), one["text"]
        assert ".." not in one["text"].replace("...", ""), one["text"]
    return list(report["findings"])


def test_a_well_host_has_no_finding() -> None:
    report = compose(**WELL)
    assert report["findings"] == []
    (host,) = report["hosts"]
    assert (host["verdict"], host["told"]) == ("well", "1 of 1 replica generated")
    assert report["generations"] == [
        {
            "replica": "h.m.0",
            "host": "h",
            "state": "up",
            "ready": True,
            "generated": True,
            "seconds": 0.4,
            "error": None,
        }
    ]


H, R, S = "health/h", "facts/h/replicas/0", "settings/h"
PROBE = "probes/h/replicas/0"
TAKEN = [{"port": 8100, "process": {"pid": 9, "name": "nginx"}, "replica": None}]
UNSEEN = [{"port": 8100, "process": None, "replica": None}]
GONE = {
    "state": "absent",
    "reason": "docker is not there",
    "version": None,
    "root": None,
    "cdi_directories": [],
}
CASES: dict[str, tuple[list[tuple[str, Any]], str, str, str]] = {
    # what is changed, severity, code and a part of the sentence
    "disk full": ([(f"{H}/disks/0/free", GIB)], "critical", "disk_full", "1.0 GiB of 1000.0 GiB are free for /var/lib/modelyard: as good as nothing"),
    "disk low": ([(f"{H}/disks/0/free", 80 * GIB)], "warning", "disk_low", "80.0 GiB of 1000.0 GiB are free for /var/lib/modelyard"),
    "disk unknown": ([(f"{H}/disks/0", {"path": "/srv", "state": "unknown", "reason": "stat of /srv did not answer within 20 s"})], "unknown", "disk_unknown", "It is not known how full /srv is: stat of /srv did not"),
    "no inodes": ([(f"{H}/disks/0/inodes_free", 1)], "critical", "inodes_full", "1 of 1000 inodes"),
    "few inodes": ([(f"{H}/disks/0/inodes_free", 50)], "warning", "inodes_low", "50 of 1000 inodes"),
    "memory full": ([(f"{H}/memory/available", GIB // 2)], "critical", "memory_full", "512.0 MiB of 64.0 GiB memory"),
    "memory low": ([(f"{H}/memory/available", 2 * GIB)], "warning", "memory_low", "set resources.memory"),
    "memory unknown": ([(f"{H}/memory", {"state": "unknown", "reason": "why"})], "unknown", "memory_unknown", "not known: why"),
    "swap": ([(f"{H}/memory/swap_free", GIB)], "warning", "swap_used", "7.0 GiB of 8.0 GiB swap"),
    "load": ([(f"{H}/load/averages", [1.0, 1.0, 99.0])], "warning", "load_high", "99 processes have waited for 16 cores"),
    "load unknown": ([(f"{H}/load", {"state": "unknown", "reason": "why"})], "unknown", "load_unknown", "not known: why"),
    "clock far": ([(f"{H}/clock/offset_s", -90.0)], "critical", "clock_wrong", "90.0 s behind the controller's"),
    "clock off": ([(f"{H}/clock/offset_s", 5.0)], "warning", "clock_off", "5.0 s ahead of the controller's (within 0.2 s)"),
    "clock not measured": ([(f"{H}/clock/offset_s", None)], "unknown", "clock_unknown", "it was not measured"),
    "clock not to be measured": ([(f"{H}/clock/within_s", 90.0)], "unknown", "clock_unknown", "took so long to answer"),
    "clock free": ([(f"{H}/clock/synchronised", False)], "warning", "clock_unsynchronised", "Nothing keeps the clock right (chronyc says so)"),
    "clock of nobody knows": ([(f"{H}/clock/synchronised", None), (f"{H}/clock/reason", "why")], "unknown", "clock_sync_unknown", "not known: why"),
    "no engine": ([(f"{H}/engine", GONE)], "critical", "engine_absent", "Install Docker Engine"),
    "engine down": ([(f"{H}/engine", GONE | {"state": "down", "reason": "refused"})], "critical", "engine_down", "does not run: refused"),
    "engine hangs": ([(f"{H}/engine", GONE | {"state": "silent", "reason": "docker did not answer within 20 s"})], "critical", "engine_silent", "hangs: docker did not answer"),
    "engine unknown": ([(f"{H}/engine", GONE | {"state": "unknown", "reason": "permission denied"})], "unknown", "engine_unknown", "permission denied"),
    "engine without CDI": ([(f"{H}/engine/cdi_directories", [])], "critical", "cdi_off", "Docker 28.3 does not read CDI"),
    "no toolkit": ([(f"{H}/cdi/toolkit", {"state": "absent", "reason": "nvidia-ctk is not there"})], "critical", "toolkit_absent", "Install nvidia-container-toolkit"),
    "toolkit unknown": ([(f"{H}/cdi/toolkit", {"state": "unknown", "reason": "it said nothing"})], "unknown", "toolkit_unknown", "it said nothing"),
    "a GPU without a CDI name": ([(f"{H}/cdi/specs/0/devices", ["0"])], "critical", "cdi_device_missing", "No CDI specification names GPU 1, so no container can be given it. Run systemctl restart nvidia-cdi-refresh"),
    "no CDI specification": ([(f"{H}/cdi/specs", [])], "critical", "cdi_device_missing", "names GPUs 0, 1, so no container can be given them"),
    "CDI of another driver": ([(f"{H}/cdi/specs/0/missing", ["/usr/lib/libcuda.so.550"])], "warning", "cdi_stale", "names /usr/lib/libcuda.so.550, which is not there: it was made for another driver"),
    "CDI of other GPUs": ([(f"{H}/cdi/specs/0/missing", ["/dev/nvidia7"])], "critical", "cdi_stale", "/dev/nvidia7"),
    "CDI not understood": ([(f"{H}/cdi/specs/0/reason", "it cannot be read: why")], "unknown", "cdi_unreadable", "Make it anew"),
    "CDI not seen": ([(f"{H}/cdi", {"state": "unknown", "reason": "/etc/cdi: Permission denied", "specs": [], "toolkit": WELL["health"]["h"]["cdi"]["toolkit"]})], "unknown", "cdi_unknown", "Permission denied"),
    "a stranger at a port": ([(f"{H}/ports/listeners", TAKEN)], "critical", "port_taken", "Port 8100 of h.m.0 is taken by nginx (process 9)"),
    "somebody at a port": ([(f"{H}/ports/listeners", UNSEEN)], "unknown", "port_unknown", "Whether it is h.m.0 that listens on its port 8100 cannot be seen"),
    "a stranger at a free port": ([(f"{H}/ports/listeners/0/port", 8150), (f"{H}/ports/listeners/0/replica", None)], "note", "port_held", "Port 8150 of fleet_ports is held by docker-proxy"),
    "ports unknown": ([(f"{H}/ports", {"state": "unknown", "reason": "why", "listeners": []})], "unknown", "ports_unknown", "not known: why"),
    "nothing known of the host": ([(H, {"msg": "No module named x\nmore"})], "unknown", "health_unknown", "Nothing is known of disks, memory, clock and ports: No module named x. See"),
    "a sick GPU": ([("gpu_facts/h/findings", [{"code": "xid_79", "severity": "critical", "gpu": "0000:01:00.0", "text": "GPU 0 is lost."}])], "critical", "xid_79", "GPU 0 is lost."),
    "GPUs not asked": ([("gpu_facts/h", {"msg": "it broke"})], "unknown", "gpus_unknown", "Nothing is known of the GPUs: it broke."),
    "GPUs of another vendor": ([("gpu_facts/h/vendors/nvidia/present", False)], "critical", "gpu_vendor", "There is no NVIDIA GPU, and fleet_accelerator is nvidia"),
    "a named GPU is missing": ([(S, SETTINGS | {"fleet_gpus": [0, "GPU-7"]}), (f"{H}/cdi/specs/0/devices", ["0", "GPU-7"])], "critical", "gpu_missing", "GPU GPU-7 of fleet_gpus does not answer, or is not there"),
    "nobody knows of a named GPU": ([(S, SETTINGS | {"fleet_gpus": [0, 7]}), (f"{H}/cdi/specs/0/devices", ["0", "7"]), ("gpu_facts/h/state", "unknown")], "unknown", "gpu_count_unknown", "nobody can tell"),
    "replica missing": ([("facts/h/replicas", []), (f"{H}/ports/listeners", [])], "critical", "replica_missing", "h.m.0 is wished and not there. Run deploy"),
    "replica down": ([(f"{R}/state", "down"), (f"{H}/ports/listeners", [])], "critical", "replica_down", "h.m.0 has stopped. Its log says why: modelyard logs h.m.0"),
    "replica unknown": ([(f"{R}/state", "unknown"), (f"{R}/status", "paused"), ("plan/changes/0/action", "unknown")], "unknown", "replica_unknown", "is not known: paused"),
    "replica not asked": ([("probes/h", {"msg": "it broke"})], "unknown", "replica_unasked", "could not be asked"),
    "replica silent": ([(f"{PROBE}/ready", False), (f"{PROBE}/live", False), (f"{PROBE}/ok", False), (f"{PROBE}/error", "/health: refused")], "critical", "replica_silent", "runs and does not answer: /health: refused. Its log says why"),
    "replica loading": ([(f"{PROBE}/ready", False), (f"{PROBE}/ok", False), (f"{PROBE}/error", "/health: answered 503"), (f"{R}/started_at", "2025-12-31T23:59:00.123456789Z")], "warning", "replica_loading", "is loading its model: /health: answered 503. Wait"),
    "replica loading, its port not open yet": ([(f"{PROBE}/ready", False), (f"{PROBE}/live", False), (f"{PROBE}/ok", False), (f"{PROBE}/error", "/health: [Errno 111] Connection refused"), (f"{R}/started_at", "2025-12-31T23:59:00Z")], "warning", "replica_loading", "Connection refused. Wait"),
    "replica that ended while loading": ([(f"{PROBE}/ready", False), (f"{PROBE}/ok", False), (f"{PROBE}/ended", True), (f"{PROBE}/error", "it ended with status 1"), (f"{R}/started_at", "2025-12-31T23:59:00Z")], "critical", "replica_silent", "does not answer: it ended with status 1"),
    "replica that should have loaded": ([(f"{PROBE}/ready", False), (f"{PROBE}/ok", False), (f"{PROBE}/error", "/health: answered 503")], "critical", "replica_silent", "answered 503"),
    "no generation": ([(f"{PROBE}/ok", False), (f"{PROBE}/text", None), (f"{PROBE}/error", "/v1/chat/completions answered 500")], "critical", "generation_failed", "says that it is ready and does not generate: /v1/chat/completions answered 500"),
    "speech": ([(f"{PROBE}/text", None)], "note", "generation_unasked", "hears or speaks"),
    "outlived its supervisor": ([(f"{R}/lost", "it has outlived its supervisor")], "warning", "replica_lost", "it has outlived its supervisor. Run deploy"),
    "another image": (
        [("compared/h/replicas/0/differences", [{"kind": "image", "field": "image", "wanted": "a@sha256:1", "found": "a@sha256:2", "seen_in": "container"}])],
        "warning", "image_differs", "h.m.0 runs with another image than declared: a@sha256:2 in place of a@sha256:1. Deploy mends it."),
    "weights gone": ([("compared/h/weights", [{"model": "m", "destination": "/w", "field": "path", "wanted": "/w", "found": None}])], "critical", "weights_differs", "Weights of m in /w: path is nothing, declared is /w. Look."),
    "weights unknown": ([("compared/h/problems", ["weights of m: not to be read"])], "unknown", "replica_uncompared", "weights of m: not to be read"),
    "other differences": (
        [("compared/h/replicas/0/differences", [{"kind": "arguments", "field": "x", "wanted": "1", "found": "2", "seen_in": "container"}])],
        "note", "drift", "1 more difference from what is declared: see modelyard drift."),
    "a wish that cannot be met": ([("plan/problems", ["m asks for 8 GPUs."])], "warning", "wish_unmet", "A wish cannot be met: m asks for 8 GPUs."),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_its_own_sentence_and_is_the_only_one(case: str) -> None:
    changes, severity, code, text = CASES[case]
    (one,) = found(*changes)
    assert (one["severity"], one["code"]) == (severity, code)
    assert text in one["text"]


def test_no_two_faults_have_one_sentence() -> None:
    sentences = [re.sub(r"\d+", "0", found(*changes)[0]["text"]) for changes, *_ in CASES.values()]
    again = {one for one in sentences if sentences.count(one) > 1}
    assert all("answered 0" in one or "took so long" in one for one in again), again


def test_a_host_that_does_not_answer_is_unknown_with_all_that_is_on_it() -> None:
    silent = {"unreachable": True, "msg": "Connection timed out"}
    changes = [
        ("facts/h", silent),
        ("plan/hosts/h/state", "unknown"),
        ("health/h", {}),
        ("gpu_facts/h", {}),
        ("probes/h", {}),
        ("compared/h", {}),
    ]
    (one,) = found(*changes)
    assert (one["severity"], one["code"]) == ("unknown", "host_unknown")
    assert one["text"] == "It does not answer: Connection timed out (not seen: h.m.0). Nothing is done to it."
    assert compose(**seen(*changes))["hosts"][0]["verdict"] == "unknown"


def test_a_host_whose_runtime_is_silent_is_looked_at_all_the_same() -> None:
    codes = [
        one["code"]
        for one in found(("plan/hosts/h/state", "unknown"), (f"{H}/disks/0/free", 0), ("probes/h", {}))
    ]
    assert codes == ["disk_full", "host_unknown"]


def test_a_host_that_computes_on_processors_is_not_asked_for_gpus() -> None:
    cpu = settings(fleet_accelerator="cpu")
    assert (
        found(
            (S, cpu),
            ("gpu_facts/h", {}),
            (f"{H}/cdi", {"state": "unknown", "reason": "x", "specs": [], "toolkit": {}}),
        )
        == []
    )


def test_processes_need_no_container_engine() -> None:
    process = settings(fleet_accelerator="nvidia", fleet_gpus=2, fleet_runtime="process")
    assert found((S, process), (f"{H}/engine", GONE), ("plan/hosts/h/replicas/0/runtime", "process")) == []


def test_device_requests_need_no_cdi() -> None:
    old = settings(fleet_accelerator="nvidia", fleet_gpus=2, fleet_gpu_mode="device_request")
    assert found((S, old), (f"{H}/cdi/specs", []), (f"{H}/engine/cdi_directories", [])) == []


def test_limits_are_the_inventorys() -> None:
    strict = settings(
        fleet_accelerator="nvidia",
        fleet_gpus=2,
        fleet_doctor_limits={"disk_low_percent": 60, "disk_low_gib": 9999},
    )
    assert strict["fleet_doctor_limits"]["clock_off_s"] == 2
    (one,) = found((S, strict))
    assert one["code"] == "disk_low"


def test_a_large_disk_with_much_room_is_not_low() -> None:
    assert found((f"{H}/disks/0/total", 100_000 * GIB), (f"{H}/disks/0/free", 200 * GIB)) == []


def test_directories_of_one_file_system_are_told_once() -> None:
    disks = [DISK | {"path": path, "free": GIB} for path in ("/var/lib/modelyard", "/tmp")]
    (one,) = found((f"{H}/disks", disks))
    assert "are free for /var/lib/modelyard, /tmp:" in one["text"]


def test_without_generations_readiness_is_what_counts() -> None:
    report = compose(**seen((f"{PROBE}/text", None), ("generate", False)))
    assert report["findings"] == []
    assert report["hosts"][0]["told"] == "1 of 1 replica ready"
    assert report["generations"][0]["generated"] is None


def test_a_proxy_that_is_down_is_critical() -> None:
    registry = {"generation": 7, "models": {}}
    (one,) = found(("proxies", {"h": {"live": False, "registry": registry}}))
    assert (one["severity"], one["kind"], one["text"]) == (
        "critical",
        "proxy",
        "The proxy is down. Site mends it.",
    )
    (one,) = found(
        ("proxies", {"h": {"live": True, "registry": registry, "generation": 6, "in_step": False}})
    )
    assert one["text"].startswith(
        "The proxy serves by generation 6, and its file has 7. Look: it refuses its file;"
    )


def test_verdicts_and_the_order_of_hosts_and_findings() -> None:
    given = seen((f"{H}/disks/0/free", 80 * GIB), (f"{H}/memory/available", 0))
    for name, disk in (("a", DISK), ("b", DISK | {"free": 80 * GIB}), ("c", DISK | {"state": "unknown"})):
        given["settings"][name] = settings()
        given["health"][name] = WELL["health"]["h"] | {"disks": [disk]}
    given["asked"] = ["a", "b", "c", "h"]
    report = compose(**given)
    assert [(one["name"], one["verdict"]) for one in report["hosts"]] == [
        ("h", "ill"),
        ("c", "unknown"),
        ("b", "look"),
        ("a", "well"),
    ]
    assert [(one["host"], one["code"]) for one in report["findings"]] == [
        ("h", "memory_full"), ("h", "disk_low"), ("c", "disk_unknown"), ("b", "disk_low"),
    ]  # fmt: skip
    assert report["hosts"][0]["told"] == "1 critical, 1 warning, 1 of 1 replica generated"
    assert report["counts"] == {"critical": 1, "unknown": 1, "warning": 2, "note": 0}


@pytest.mark.parametrize(
    ("given", "count"),
    [({"fleet_gpus": 8}, 8), ({"fleet_gpus": 0}, None), ({"fleet_gpus": [1, "GPU-x"]}, None)],
)
def test_what_is_expected_of_gpus_is_what_is_declared(given: dict[str, Any], count: int | None) -> None:
    assert gpus.expected(settings(**given)) == {"count": count, "driver": None}
    assert gpus.expected(settings(fleet_gpu_driver="580"))["driver"] == "580"


def test_what_the_playbook_prints() -> None:
    report = compose(**seen((f"{H}/memory/available", 0))) | {"notes": ["somebody is at it"]}
    shown = lines(report)
    assert [(line, colour) for line, colour in shown if line] == [
        ("h", "bright blue"),
        (f"  critical  memory  {report['findings'][0]['text']}", "red"),
        ("h: ill (1 critical, 1 of 1 replica generated)", "red"),
        ("Note: somebody is at it", "bright yellow"),
    ]
    assert lines(compose(**WELL) | {"notes": []}) == [
        ("", None),
        ("h: well (1 of 1 replica generated)", "green"),
    ]
