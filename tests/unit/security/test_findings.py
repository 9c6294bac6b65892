"""What was seen -> weaknesses: each planted alone gives exactly its finding, a clean host none, the unknown stays so."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.security.containers import described
from ansible_collections.modelyard.fleet.plugins.module_utils.security.findings import (
    host_findings,
    neighbours,
    outside_findings,
    silent,
    to_probe,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.security.words import CODES, HOST

SECRET = "correct-horse-battery"
ENGINES = {"vllm": {"container": {"read_only": True}}, "loose": {"container": {"read_only": False}}}
ADDRESS = "192.0.2.11"
INSPECTED: dict[str, Any] = {
    "Id": "1" * 64,
    "Name": "/fleet-gpu01.m.0",
    "State": {"Status": "running"},
    "Config": {
        "User": "1000:1000",
        "Labels": {"modelyard.fleet": "fleet", "modelyard.replica": "gpu01.m.0", "modelyard.engine": "vllm"},
        "Entrypoint": ["vllm", "serve"],
        "Cmd": ["/weights", "--max-num-batched-tokens", "8192", "--tokenizer-mode", "auto"],
        "Env": [f"HF_TOKEN={SECRET}", "PATH=/usr/bin"],
    },
    "HostConfig": {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "NetworkMode": "bridge",
        "PortBindings": {"8000/tcp": [{"HostIp": ADDRESS, "HostPort": "8100"}]},
    },
    "Mounts": [{"Type": "bind", "Source": "/srv/weights", "Destination": "/weights"}],
}
CLEAN: dict[str, Any] = {
    "programs": [{"name": "gpu01.p.0", "secret_arguments": []}],
    "listening": [{"address": ADDRESS, "port": 8100}],
    "daemon": {"addresses": [], "verifies": False, "options": []},
    "docker_socket": {"path": "/var/run/docker.sock", "mode": "0660"},
    "files": [
        {"path": "/p/launch.json", "mode": "0600", "holds": "command", "wanted": "0600"},
        {"path": "/opt/proxy.env", "mode": "0640", "holds": "settings", "wanted": "0640"},
    ],
    "admin_key": {"path": "/etc/key", "mode": "0640", "weakness": ""},
    "firewall": "same",
    "upgrades": None,
    "problems": [],
}


def changed(data: Any, path: str, to: Any) -> Any:
    """A copy with the value at a dotted path replaced."""
    copied = copy.deepcopy(data)
    place = copied
    *way, last = path.split(".")
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[last] = to
    return copied


def seen(
    inspected: Any = INSPECTED, facts: Any = CLEAN, adopt: Any = (), defaults: Any = ()
) -> dict[str, Any]:
    return {**facts, "containers": [described(inspected, "fleet", adopt, "/var/run/docker.sock", defaults)]}


def found(facts: dict[str, Any], adopted: Any = None) -> list[tuple[str, str, str]]:
    findings = host_findings("gpu01", facts, ENGINES, adopted or {})
    for item in findings:
        assert item["code"] in CODES
        assert "{" not in item["what"] + item["todo"]
        assert len(item["todo"]) > 10
        assert SECRET not in str(item)
    return [(item["severity"], item["code"], item["subject"]) for item in findings]


def test_a_clean_host_has_none() -> None:
    assert found(seen()) == []
    assert SECRET not in str(seen())


@pytest.mark.parametrize(
    ("path", "to", "code"),
    [
        ("HostConfig.PortBindings.8000/tcp", [{"HostIp": "", "HostPort": "8100"}], "engine-port-everywhere"),
        ("HostConfig.PortBindings.8000/tcp", [{"HostIp": "::", "HostPort": "8100"}], "engine-port-everywhere"),
        ("HostConfig.Privileged", True, "container-privileged"),
        ("HostConfig.CapAdd", ["SYS_ADMIN"], "container-capabilities"),
        ("HostConfig.CapAdd", ["CAP_NET_RAW"], "container-capabilities"),
        ("Mounts.0.Source", "/var/run/docker.sock", "docker-socket-in-container"),
        ("HostConfig.Binds", ["/run:/host/run:ro"], "docker-socket-in-container"),
        ("HostConfig.Mounts", [{"Type": "bind", "Source": "/", "Target": "/h"}], "docker-socket-in-container"),
        ("Config.User", "", "container-root"),
        ("Config.User", "0:1000", "container-root"),
        ("Config.User", "root", "container-root"),
        ("HostConfig.ReadonlyRootfs", False, "root-writable"),
        ("HostConfig.SecurityOpt", None, "new-privileges"),
        ("HostConfig.SecurityOpt", ["no-new-privileges=false"], "new-privileges"),
        ("Config.Cmd", ["--api-key", SECRET], "secret-in-arguments"),
        ("Config.Cmd", [f"--hf-token={SECRET}"], "secret-in-arguments"),
        ("Config.Cmd", ["/weights", "--header", f"Bearer {SECRET}"], "secret-in-arguments"),
        ("Config.Cmd", ["hf_abcdefghijklmnopqrstuvwxyz"], "secret-in-arguments"),
    ],
)  # fmt: skip
def test_each_weakness_of_a_container_alone(path: str, to: Any, code: str) -> None:
    assert found(seen(changed(INSPECTED, path, to))) == [("finding", code, "fleet-gpu01.m.0")]


@pytest.mark.parametrize(
    ("path", "to", "code", "subject"),
    [
        ("listening", [{"address": "::", "port": 8105}], "engine-port-everywhere", "port 8105"),
        ("programs.0.secret_arguments", ["--api-key"], "secret-in-arguments", "gpu01.p.0"),
        ("daemon.addresses", ["tcp://0.0.0.0:2375"], "docker-api-open", "dockerd"),
        ("docker_socket.mode", "0666", "docker-socket-open", "/var/run/docker.sock"),
        ("files.0.mode", "0640", "secret-file-open", "/p/launch.json"),
        ("files.1.mode", "0644", "secret-file-open", "/opt/proxy.env"),
        ("admin_key.weakness", "is easy to guess", "admin-key-weak", "/etc/key"),
        ("admin_key.mode", "0644", "admin-key-file-open", "/etc/key"),
        ("firewall", "missing", "firewall-missing", "table inet modelyard"),
        ("firewall", "different", "firewall-changed", "table inet modelyard"),
        ("upgrades", {"how": "dnf-automatic", "names": ["docker-ce"]}, "engine-upgrades-itself", "Docker"),
    ],
)
def test_each_weakness_of_a_host_alone(path: str, to: Any, code: str, subject: str) -> None:
    assert found(seen(facts=changed(CLEAN, path, to))) == [("finding", code, subject)]


def test_every_code_has_a_sentence_and_a_way_out() -> None:
    assert len(CODES) >= 17
    assert (
        len({what for what, _ in CODES.values()}) == len({todo for _, todo in CODES.values()}) == len(CODES)
    )
    for sentences in CODES.values():
        assert all(one.endswith((".", "not.")) for one in sentences)


def test_exactly_the_codes_there_are_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("## Check security")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {code.strip(" `") for row in rows for code in row.split(",")} == set(CODES)


def test_what_is_well_though_it_looks_like_a_weakness() -> None:
    verified = changed(
        CLEAN, "daemon", {"addresses": ["tcp://0.0.0.0:2376"], "verifies": True, "options": []}
    )
    assert found(seen(facts=verified)) == []
    assert found(seen(facts=changed(CLEAN, "docker_socket", None))) == []
    assert found(seen(facts=changed(CLEAN, "firewall", "none"))) == []
    assert found(seen(changed(INSPECTED, "HostConfig.SecurityOpt", []), defaults=["no-new-privileges"])) == []
    assert found(seen(changed(INSPECTED, "Config.Cmd", ["--api-key", "/run/secrets/key"]))) == []
    assert found(seen(changed(INSPECTED, "Config.Cmd", ["--max-tokens", "1000", "--enable-key"]))) == []
    loose = copy.deepcopy(INSPECTED)
    loose["Config"]["Labels"]["modelyard.engine"] = "loose"
    assert found(seen(changed(loose, "HostConfig.ReadonlyRootfs", False))) == []


def test_of_others_only_those_who_rule_over_the_host_are_told() -> None:
    theirs = changed(INSPECTED, "Config.Labels", {})
    theirs["HostConfig"] |= {"Privileged": True, "ReadonlyRootfs": False}
    assert found(seen(theirs)) == []
    theirs["HostConfig"]["Binds"] = ["/var/run/docker.sock:/var/run/docker.sock"]
    assert found(seen(theirs)) == [("finding", "docker-socket-in-container", "fleet-gpu01.m.0")]


def test_an_adopted_container_is_one_of_the_fleet() -> None:
    theirs = changed(changed(INSPECTED, "Config.Labels", {}), "HostConfig.ReadonlyRootfs", False)
    facts = seen(theirs, adopt=["fleet-gpu01.m.0"])
    assert found(facts, {"fleet-gpu01.m.0": "vllm"}) == [("finding", "root-writable", "fleet-gpu01.m.0")]
    assert found(facts, {"fleet-gpu01.m.0": "loose"}) == []


def test_what_could_not_be_found_out_is_unknown() -> None:
    facts = changed(
        {**CLEAN, "containers": []},
        "problems",
        [{"code": "containers", "why": "no answer"}, {"code": "docker-api-open", "why": "denied"}],
    )
    assert found(facts) == [("unknown", HOST, "containers"), ("unknown", "docker-api-open", "gpu01")]
    told = silent("gpu01", {"unreachable": True, "msg": "Connection refused\nmore"})
    assert (told["severity"], told["code"], told["what"]) == (
        "unknown", HOST, "Not known: Connection refused",
    )  # fmt: skip


# --- from outside ---------------------------------------------------------------------------------


def looked(
    result: str, source: str | None = "192.0.2.50", by: str = "the controller", port: int = 8100
) -> Any:
    return {"by": by, "address": ADDRESS, "source": source, "ports": [{"port": port, "result": result}]}


def outside(*looks: Any) -> list[tuple[str, str]]:
    findings = outside_findings("gpu01", {ADDRESS: [8100]}, ["192.0.2.21", "198.51.100.0/24"], looks)
    assert all(item["code"] == "engine-port-reachable" for item in findings)
    return [(item["severity"], item["subject"]) for item in findings]


def test_a_port_that_a_stranger_reaches() -> None:
    assert outside(looked("closed"), looked("open", "192.0.2.12", "gpu02")) == [("finding", "port 8100")]
    (told,) = outside_findings("gpu01", {ADDRESS: [8100]}, [], [looked("open")])
    assert "the controller (192.0.2.50)" in told["what"]


@pytest.mark.parametrize("source", ["192.0.2.21", "198.51.100.7", ADDRESS, "127.0.0.1", None])
def test_who_is_entitled_or_no_stranger_says_nothing(source: str | None) -> None:
    assert outside(looked("open", source)) == [("unknown", "port 8100")]
    assert outside(looked("open", source), looked("closed")) == []


def test_nobody_to_look_from_is_unknown() -> None:
    assert outside() == [("unknown", "port 8100")]
    assert outside(looked("OSError: too many open files")) == [("unknown", "port 8100")]
    assert outside(looked("OSError: too many open files"), looked("closed", by="gpu02")) == []


def test_where_strangers_are_to_try() -> None:
    facts = seen(
        facts=changed(CLEAN, "listening", [{"address": "127.0.0.1", "port": 8101}, {"address": "::", "port": 8102}])
    )  # fmt: skip
    assert to_probe(facts, ADDRESS) == {ADDRESS: [8100, 8102]}
    assert to_probe(facts, "127.0.0.1") == {ADDRESS: [8100]}
    stopped = seen(changed(INSPECTED, "State.Status", "exited"), changed(CLEAN, "listening", []))
    assert to_probe(stopped, ADDRESS) == {}


def test_each_host_tries_the_next_two_of_those_that_answered() -> None:
    facts = {name: seen() for name in ("a", "b", "c", "d")} | {"x": {"msg": "gone"}}
    settings = {name: {"fleet_address": ADDRESS} for name in facts}
    assert [one["host"] for one in neighbours("c", facts, settings)] == ["d", "a"]
    assert neighbours("a", {"a": seen()}, settings) == []
