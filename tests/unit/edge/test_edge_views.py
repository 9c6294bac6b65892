"""The edge as the verbs tell it: what is seen on its hosts, against what is declared."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.action import status as status_action
from ansible_collections.modelyard.fleet.plugins.module_utils import fleet_status, generations
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor import edge as doctor
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.drifted import findings as drifted
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.words import KINDS
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.edge import edge_findings
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.findings import compose as drift
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view import compare, look, rows
from ansible_collections.modelyard.fleet.plugins.module_utils.firewall import proxy_firewall
from ansible_collections.modelyard.fleet.plugins.module_utils.security.edge import (
    edge_findings as security_findings,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.security.edge import ports_behind_edge
from ansible_collections.modelyard.fleet.plugins.module_utils.security.findings import outside_findings
from ansible_collections.modelyard.fleet.plugins.plugin_utils.edge import (
    EdgeHost,
    edge_seen,
    read_certificate,
)

from tests.tools.certificates import Authority
from tests.tools.edge_stage import Stage

ISSUED = Authority().issue("llm.example", "*.models.example", "192.0.2.10")
PEM = ISSUED.certificate + ISSUED.key
PASSWORD = "auth_pass q7-Zk2_w"
HOSTS = [{"name": "edge01", "address": "192.0.2.21"}, {"name": "edge02", "address": "192.0.2.22"}]
STAGE = Stage(
    {
        "edge_hosts": HOSTS,
        "edge_proxies": [{**one, "name": f"proxy0{at}", "port": 8000} for at, one in enumerate(HOSTS, 1)],
        "edge_addresses": [{"address": "192.0.2.10/24", "router_id": 51}],
        "edge_certificates": [
            {
                "name": "main",
                "certificate": ISSUED.certificate,
                "key": ISSUED.key,
                "names": ["llm.example", "192.0.2.10"],
            }
        ],
    }
)
TEXTS = {
    "haproxy": {"haproxy.cfg": STAGE.template("haproxy.cfg.j2")},
    "keepalived": {
        "keepalived.conf": STAGE.template("keepalived.conf.j2"),
        "check-haproxy": STAGE.template("check-haproxy.j2"),
    },
}
SECRETS = {"haproxy": {"certificates/main.pem": PEM}, "keepalived": {"password.conf": PASSWORD}}
UNITS = {"modelyard-edge.service": "[Unit]\nDescription=a\n", "modelyard-edge-address.service": "[Unit]\n"}
DECLARED: dict[str, Any] = {
    **STAGE.value("__edge_declared_common"),
    "problems": [],
    "files": TEXTS,
    "secrets": {part: generations.digests(files) for part, files in SECRETS.items()},
    "unit_files": UNITS,
}
LIMITS = {"certificate_days": 14}
RUNS = {"load": "loaded", "active": "active", "enabled": "enabled", "pid": 7}


def placed(root: Path) -> dict[str, Any]:
    """Both configurations as the module that writes them leaves them, looked at."""
    for part in look.PARTS:
        if not (root / part).exists():
            files = {name: text.encode() for name, text in (TEXTS[part] | SECRETS[part]).items()}
            ended = {name: generations.ended(data) for name, data in files.items()}
            generations.take(root / part, ended, lambda _: None)
            generations.in_force(root / part)
    return {part: look.configuration(root / part) for part in look.PARTS}


def seen(root: Path, **changes: Any) -> dict[str, Any]:
    """An edge host that is well."""
    return copy.deepcopy(
        {
            "units": {"haproxy": RUNS, "address": RUNS},
            "unit_files": UNITS,
            "haproxy": {
                "state": "up",
                "reason": "",
                "generation": 1,
                "proxies": {"proxy01": "up", "proxy02": "up"},
            },
            "addresses": {
                "here": ["127.0.0.1", "192.0.2.10", "192.0.2.21"],
                "interface": "eth0",
                "reason": "",
            },
            "configurations": placed(root),
            "gathered": {},
            "problems": [],
        }
        | changes
    )


def differences(facts: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, Any]]:
    found = list(edge_findings("edge01", facts, DECLARED))
    assert PASSWORD.split()[1] not in json.dumps(found)
    assert "PRIVATE KEY" not in json.dumps(found)
    return {(one["subject"], one["field"]): (one["wanted"], one["found"]) for one in found}


def test_what_is_compared_is_what_the_role_writes() -> None:
    said = STAGE.value("__edge_declared_files")
    assert said["files"] == TEXTS
    assert said["secrets"] == {"haproxy": DECLARED["secrets"]["haproxy"], "keepalived": {}}
    assert list(said["unit_files"]) == list(UNITS)
    assert said["unit_files"]["modelyard-edge.service"] == STAGE.template("haproxy.service.j2")
    assert "PRIVATE KEY" not in json.dumps(said)


def test_what_was_written_by_the_role_is_no_drift(tmp_path: Path) -> None:
    facts = seen(tmp_path)
    assert "@GENERATION@" not in facts["configurations"]["haproxy"]["texts"]["haproxy.cfg"]
    assert differences(facts) == {}
    assert ISSUED.key not in json.dumps(facts)
    assert ISSUED.certificate.strip() in json.dumps(facts).replace("\\n", "\n")


def test_each_change_by_hand_is_found_once_with_the_line(tmp_path: Path) -> None:
    placed(tmp_path)
    haproxy, keepalived = (tmp_path / part / "current" for part in look.PARTS)
    text = (haproxy / "haproxy.cfg").read_text()
    (haproxy / "haproxy.cfg").write_text(text.replace("maxconn 8000", "maxconn 9"))
    (haproxy / "certificates" / "main.pem").write_text(ISSUED.certificate)
    (haproxy / "certificates" / "own.pem").write_text(PEM)
    (keepalived / "password.conf").write_text("auth_pass other")
    (keepalived / "check-haproxy").unlink()
    (keepalived / "keepalived.conf").chmod(0o644)
    line = text.splitlines().index("    maxconn 8000") + 1
    assert differences(seen(tmp_path)) == {
        ("haproxy", "haproxy.cfg"): (f"line {line}: maxconn 8000", f"line {line}: maxconn 9"),
        ("haproxy", "certificates/main.pem"): ("as declared", "another one"),
        ("haproxy", "certificates/own.pem"): (None, "there"),
        (f"{(haproxy / 'certificates' / 'own.pem').resolve()}", "mode"): ("0600", "0644"),
        ("keepalived", "password.conf"): ("as declared", "another one"),
        ("keepalived", "check-haproxy"): ("as declared", None),
        (f"{(keepalived / 'keepalived.conf').resolve()}", "mode"): ("0600", "0644"),
    }


def test_a_line_that_may_hold_a_secret_is_not_shown() -> None:
    wanted, found = compare.lines_that_differ("a\nb\n", "a\n  user admin password hunter2\nc\n")
    assert (wanted, found) == ("line 2: b", "line 2: (not shown) (and 1 more)")
    assert compare.lines_that_differ("a\n", "a  \n") == ("as declared", "blanks or empty lines differ")


def test_a_missing_configuration_and_services_that_do_not_run_or_return(tmp_path: Path) -> None:
    units = {
        "haproxy": RUNS | {"active": "failed"},
        "address": RUNS | {"enabled": "disabled"},
    }
    files = UNITS | {"modelyard-edge.service": "[Unit]\nDescription=b\n"}
    facts = seen(tmp_path, units=units, unit_files=files)
    facts["configurations"]["keepalived"] |= {"number": None, "digests": {}, "texts": {}}
    facts["haproxy"]["generation"] = 9
    assert differences(facts) == {
        ("modelyard-edge.service", "state"): ("active", "failed"),
        ("modelyard-edge.service", "unit file"): ("line 2: Description=a", "line 2: Description=b"),
        ("modelyard-edge-address.service", "starts with the host"): ("enabled", "disabled"),
        ("keepalived", "configuration"): ("as declared", None),
        ("haproxy", "generation in force"): ("1", "9"),
    }
    advice = {one["field"]: one["what"] for one in edge_findings("edge01", facts, DECLARED)}
    assert advice["state"] == "site mends it"
    assert advice["unit file"].startswith("site mends it, in force with its next start")
    assert advice["generation in force"] == "look: systemctl reload haproxy lets it read what is there"


def test_what_cannot_be_seen_is_unknown_and_never_as_declared(tmp_path: Path) -> None:
    facts = seen(tmp_path, units={}, problems=["systemctl: did not answer within 10 s"])
    facts["configurations"]["haproxy"] = {
        **look.configuration(tmp_path / "nowhere"),
        "problem": "not permitted",
    }
    found = list(edge_findings("edge01", facts, DECLARED))
    assert {(one["severity"], one["found"]) for one in found} == {
        ("unknown", "systemctl: did not answer within 10 s"),
        ("unknown", "haproxy: not permitted"),
    }
    # a host that did not answer is one finding, whatever else is wished of it
    (host,) = drift(
        plan={"hosts": {}, "changes": [], "registry": {"models": {}}},
        facts={},
        compared={},
        proxies={},
        asked=["edge01"],
        edge={"edge01": ({"unreachable": True, "msg": "no route"}, {}), "edge02": ({}, {})},
    )
    assert (host["severity"], host["kind"], host["host"], host["found"]) == (
        "unknown",
        "host",
        "edge01",
        "no route",
    )


def test_without_the_vault_nothing_is_compared_and_that_is_told(tmp_path: Path) -> None:
    kept = {key: value for key, value in DECLARED.items() if key not in ("files", "secrets", "unit_files")}
    facts = seen(tmp_path, units={"haproxy": RUNS | {"active": "failed"}, "address": RUNS})
    found = {(one["severity"], one["field"]): one["found"] for one in edge_findings("edge01", facts, kept)}
    assert set(found) == {("drift", "state"), ("unknown", "comparison")}
    assert "cannot be told" in found["unknown", "comparison"]


def test_a_directory_that_may_not_be_looked_into_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed(tmp_path)

    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "Permission denied" in look.configuration(tmp_path / "haproxy")["problem"]


# --- the doctor ------------------------------------------------------------------------------------


def certificate(days: float, **more: Any) -> dict[str, Any]:
    """The certificate of the test as it is read so many days before its end."""
    read = read_certificate("certificates/main.pem", ISSUED.certificate, datetime.now(UTC))
    end = datetime.fromisoformat(read["until"])
    return read_certificate("certificates/main.pem", ISSUED.certificate, end - timedelta(days=days)) | more


def codes(
    facts: dict[str, Any], *certificates: dict[str, Any], declared: dict[str, Any] = DECLARED
) -> dict[str, str]:
    found = list(doctor.findings("edge01", facts, declared, certificates, LIMITS))
    for one in found:
        assert one["kind"] in KINDS
        assert one["text"].endswith("."), one["text"]
        assert ".." not in one["text"]
    assert len({one["code"] for one in found}) == len(found)
    return {one["code"]: f"{one['severity']}: {one['text']}" for one in found}


def test_a_well_edge_has_no_finding(tmp_path: Path) -> None:
    assert codes(seen(tmp_path), certificate(40, began=True)) == {}
    assert list(doctor.address_findings({"edge01": seen(tmp_path)}, ["192.0.2.10"])) == []


def test_days_and_names_are_read_from_the_certificate() -> None:
    read = certificate(20)
    assert read["names"] == ["llm.example", "*.models.example", "192.0.2.10"]
    assert (read["name"], read["days_left"], read["began"]) == ("llm.example", 20, False)
    assert read_certificate("a", "nonsense", datetime.now(UTC))["problem"].startswith("it cannot be read")
    assert read_certificate("a", "", datetime.now(UTC))["days_left"] is None


@pytest.mark.parametrize(
    ("days", "code", "said"),
    [
        (-0.5, "edge_certificate_expired", "critical: The certificate for llm.example ended on"),
        (0.5, "edge_certificate_ends", "warning: The certificate for llm.example ends today"),
        (13.5, "edge_certificate_ends", "ends in 13 days"),
    ],
)
def test_a_certificate_that_ends_is_told(tmp_path: Path, days: float, code: str, said: str) -> None:
    found = codes(seen(tmp_path), certificate(days, began=True))
    assert list(found) == [code]
    assert said in found[code]


def test_a_certificate_for_other_names_not_yet_good_or_unreadable_is_told(tmp_path: Path) -> None:
    facts = seen(tmp_path)
    others = certificate(40, began=True, names=["old.example"], name="old.example")
    found = codes(facts, others)
    assert "is not good for llm.example, 192.0.2.10, only for old.example" in found["edge_certificate_names"]
    assert list(codes(facts, certificate(40))) == ["edge_certificate_early"]
    assert list(codes(facts, read_certificate("certificates/main.pem", "x", datetime.now(UTC)))) == [
        "edge_certificate_unknown"
    ]


def test_a_star_is_good_for_one_label() -> None:
    assert doctor.covers("*.models.example", "A.models.example")
    assert not doctor.covers("*.models.example", "models.example")
    assert not doctor.covers("*.models.example", "a.b.models.example")
    assert doctor.covers("2001:db8::1", "2001:db8:0::1")


def test_services_proxies_and_keys_have_their_own_sentences(tmp_path: Path) -> None:
    facts = seen(tmp_path)
    facts["haproxy"] |= {"state": "down", "reason": "connection refused", "proxies": {}}
    facts["units"] = {"haproxy": RUNS | {"active": "failed"}, "address": RUNS | {"active": "inactive"}}
    found = codes(facts)
    assert set(found) == {"edge_down", "edge_address_service_down"}
    assert "critical: HAProxy does not serve (its unit is failed): connection refused" in found["edge_down"]
    assert "warning" in found["edge_address_service_down"]
    # the same is drift, which the doctor does not say twice
    assert list(drifted(list(edge_findings("edge01", facts, DECLARED)), [])) == []

    facts = seen(tmp_path)
    facts["haproxy"]["proxies"]["proxy02"] = "down"
    assert "warning: The edge has proxy02 as down" in codes(facts)["edge_proxy_down"]
    facts["haproxy"]["proxies"]["proxy01"] = "maintenance"
    assert codes(facts)["edge_no_proxy"].startswith("critical")
    facts["haproxy"]["proxies"] = {}
    assert codes(facts)["edge_proxy_unknown"].startswith("unknown")

    (tmp_path / "haproxy" / "current" / "certificates" / "main.pem").chmod(0o640)
    found = codes(seen(tmp_path))
    assert "mode 0640" in found["edge_key_open"]


def test_a_changed_configuration_is_the_doctors_business(tmp_path: Path) -> None:
    placed(tmp_path)
    (tmp_path / "haproxy" / "current" / "haproxy.cfg").write_text("global\n")
    (one,) = drifted(list(edge_findings("edge01", seen(tmp_path), DECLARED)), [])
    assert (one["code"], one["severity"]) == ("edge_differs", "warning")
    assert one["text"].endswith("Site mends it.")


@pytest.mark.parametrize(
    ("here", "code", "severity"),
    [
        ([["192.0.2.10"], ["192.0.2.10"]], "edge_address_twice", "critical"),
        ([["192.0.2.10"], ["192.0.2.10"], None], "edge_address_twice", "critical"),
        ([["192.0.2.21"], []], "edge_address_nobody", "critical"),
        ([["192.0.2.21"], None], "edge_address_unknown", "unknown"),
        ([["192.0.2.10"], None], None, None),
        ([["192.0.2.10"], []], None, None),
    ],
)
def test_who_has_the_address(
    tmp_path: Path, here: list[list[str] | None], code: str | None, severity: str | None
) -> None:
    hosts = {
        f"edge0{at}": {"unreachable": True}
        if found is None
        else seen(tmp_path, addresses={"here": found, "interface": "eth0", "reason": ""})
        for at, found in enumerate(here, 1)
    }
    found = [(one["code"], one["severity"]) for one in doctor.address_findings(hosts, ["192.0.2.10"] * 2)]
    assert found == ([(code, severity)] if code else [])


# --- security ------------------------------------------------------------------------------------

SAFE = {
    "listening": [
        {"address": "127.0.0.1", "port": 8405},
        {"address": "192.0.2.10", "port": 443},
    ],
    "tls": {"state": "refused", "version": "", "reason": ""},
    "socket": {"path": "/run/modelyard-edge/admin.sock", "mode": "0600"},
}


def weaknesses(facts: dict[str, Any], **declared: Any) -> list[tuple[str, str, str]]:
    found = list(security_findings("edge01", facts, DECLARED | declared))
    return [(one["severity"], one["code"], one["what"]) for one in found]


def test_an_edge_as_declared_has_no_weakness(tmp_path: Path) -> None:
    assert weaknesses(seen(tmp_path, **SAFE)) == []
    # one that has not got the address is not asked for its TLS
    assert weaknesses(seen(tmp_path, **SAFE | {"tls": None})) == []
    plain = [*SAFE["listening"], {"address": "192.0.2.10", "port": 80}]
    assert weaknesses(seen(tmp_path, **SAFE | {"listening": plain}), http_port=80) == []


@pytest.mark.parametrize(
    ("change", "severity", "code", "said"),
    [
        (
            {"listening": [{"address": "192.0.2.10", "port": 80}, {"address": "0.0.0.0", "port": 443}]},
            "finding",
            "edge-listens-wider",
            "192.0.2.10 port 80, 0.0.0.0 port 443",
        ),
        ({"listening": None}, "unknown", "edge-listens-wider", "could not be seen"),
        (
            {"tls": {"state": "accepted", "version": "TLSv1.1", "reason": ""}},
            "finding",
            "edge-old-tls",
            "speaks TLSv1.1 with clients that ask for it; the oldest declared is TLSv1.2",
        ),
        ({"tls": {"state": "unknown", "version": "", "reason": "no"}}, "unknown", "edge-old-tls", "no"),
        ({"socket": {"path": "/s", "mode": "0660"}}, "finding", "edge-socket-open", "0660"),
        ({"problems": ["systemctl: not found"]}, "unknown", "host-unknown", "systemctl: not found"),
    ],
)
def test_each_weakness_of_an_edge(
    tmp_path: Path, change: dict[str, Any], severity: str, code: str, said: str
) -> None:
    ((found, which, what),) = weaknesses(seen(tmp_path, **SAFE | change))
    assert (found, which) == (severity, code)
    assert said in what


def test_keys_and_passwords_that_others_can_read(tmp_path: Path) -> None:
    placed(tmp_path)
    (tmp_path / "haproxy" / "current" / "certificates" / "main.pem").chmod(0o644)
    (tmp_path / "keepalived" / "current" / "password.conf").chmod(0o640)
    found = weaknesses(seen(tmp_path, **SAFE))
    assert [code for _, code, _ in found] == ["secret-file-open", "secret-file-open"]
    assert "the key of a certificate" in found[0][2]
    assert "a password" in found[1][2]
    assert weaknesses({"msg": "no route"})[0][:2] == ("unknown", "host-unknown")


FLEET = {
    "gpu01": {"fleet_address": "192.0.2.11"},
    "proxy01": {
        "fleet_proxy_listen": "192.0.2.21",
        "fleet_proxy_port": 8000,
        "fleet_proxy_access": {"monitoring": ["192.0.2.31"]},
        "fleet_address": "192.0.2.21",
    },
    "edge01": {"fleet_edge_address": "192.0.2.41", "fleet_address": "192.0.2.41"},
}


def past_the_edge(source: str, result: str) -> list[tuple[str, str]]:
    """What is said of a proxy's port after one machine has tried it."""
    (target,) = ports_behind_edge(FLEET, ["edge01"], ["proxy01"])
    look_at = {**target, "by": "gpu01", "source": source, "ports": [{"port": 8000, "result": result}]}
    allowed = [
        one for group in proxy_firewall("proxy01", FLEET, ["edge01"])["allow"].values() for one in group
    ]
    wanted = {target["address"]: target["ports"]}
    found = outside_findings("proxy01", wanted, allowed, [look_at], "proxy-port-reachable")
    return [(one["severity"], one["code"]) for one in found]


def test_who_can_go_past_the_edge() -> None:
    assert past_the_edge("192.0.2.11", "open") == [("finding", "proxy-port-reachable")]
    assert past_the_edge("192.0.2.11", "closed") == []
    for entitled in ("192.0.2.41", "192.0.2.31", "192.0.2.21"):
        assert past_the_edge(entitled, "open") == [("unknown", "proxy-port-reachable")], entitled
    assert ports_behind_edge(FLEET, [], ["proxy01"]) == []


# --- the status ------------------------------------------------------------------------------------


def overall(hosts: dict[str, EdgeHost], asked: list[str]) -> tuple[str, dict[str, Any]]:
    found: dict[str, Any] = {"hosts": [], "proxies": [], "replicas": [], **status_action.edge(hosts)}
    return fleet_status.overall(found, asked), found


def test_status_tells_who_serves_who_has_the_address_and_what_ends_when(tmp_path: Path) -> None:
    other = seen(tmp_path, addresses={"here": ["192.0.2.22"], "interface": "eth0", "reason": ""})
    other["haproxy"]["proxies"]["proxy02"] = "down"
    hosts = {
        "edge01": EdgeHost(seen(tmp_path), DECLARED, [certificate(40), certificate(9)]),
        "edge02": EdgeHost(other, DECLARED, []),
    }
    word, found = overall(hosts, ["edge01", "edge02"])
    assert word == "up"
    one, two = found["edge"]
    assert (one["state"], one["address_service"], one["holds"]) == ("up", "up", ["192.0.2.10"])
    assert (one["certificate"], one["days_left"], one["proxies_up"]) == (
        "llm.example",
        9,
        ["proxy01", "proxy02"],
    )
    assert (two["holds"], two["certificate"], two["proxies_down"]) == ([], None, ["proxy02"])
    assert found["edge_addresses"] == [
        {"address": "192.0.2.10", "state": "up", "holders": ["edge01"], "reason": ""}
    ]


def test_a_silent_edge_host_is_unknown_and_a_stopped_one_down(tmp_path: Path) -> None:
    silent = EdgeHost({"unreachable": True, "msg": "no route\nmore"}, {}, [])
    word, found = overall(
        {"edge01": EdgeHost(seen(tmp_path), DECLARED, []), "edge02": silent}, ["edge01", "edge02"]
    )
    assert word == "unknown"
    assert (found["edge"][1]["state"], found["edge"][1]["reason"]) == ("unknown", "no route")
    assert found["edge_addresses"][0]["state"] == "up"

    facts = seen(tmp_path, addresses={"here": [], "interface": "", "reason": ""})
    word, found = overall({"edge01": EdgeHost(facts, DECLARED, []), "edge02": silent}, ["edge01"])
    assert word == "up", "nobody asked about the other host, which may have the address"
    facts["units"]["address"] = RUNS | {"active": "inactive"}
    assert overall({"edge01": EdgeHost(facts, DECLARED, [])}, ["edge01"])[0] == "down"
    assert overall({}, [])[0] == "up"
    assert rows.address_rows({}, []) == []


def test_hosts_of_which_no_edge_is_wished_are_left_out(tmp_path: Path) -> None:
    hostvars = {
        "edge01": {"__edge_facts": seen(tmp_path), "__edge_declared": DECLARED},
        "edge02": {"__edge_facts": {"skipped": True, "changed": False}},
        "edge03": {},
    }
    found = edge_seen(hostvars, hostvars)
    assert list(found) == ["edge01", "edge03"]
    assert [one["file"] for one in found["edge01"].certificates] == ["certificates/main.pem"]
    assert found["edge03"].seen == {}
