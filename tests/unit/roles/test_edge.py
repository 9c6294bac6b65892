"""The role edge: what it refuses, and what it writes on every platform, judged by HAProxy where that can be had."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import edge

from modelyard.gateway.routes import ROUTES
from tests.tools.certificates import Authority
from tests.tools.edge_stage import Stage, haproxy

HOSTS = [{"name": "edge01", "address": "192.0.2.21"}, {"name": "edge02", "address": "192.0.2.22"}]
PROXIES = [{**one, "name": f"proxy0{at}", "port": 8000} for at, one in enumerate(HOSTS, 1)]
ADDRESS = {"address": "192.0.2.10/24", "router_id": 51}
AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("edge.example", "192.0.2.10")
CERTIFICATE = {"name": "main", "certificate": ISSUED.certificate, "key": ISSUED.key}
WISH: dict[str, Any] = {
    "host": "edge01", "hosts": HOSTS, "proxies": PROXIES, "addresses": [ADDRESS], "certificates": [CERTIFICATE], "acme": {},
    "password": "", "advert_s": 0.25, "port": 443, "http_port": 0, "local_port": 8405,
}  # fmt: skip
ROLE_WISH = {
    "edge_hosts": HOSTS,
    "edge_proxies": PROXIES,
    "edge_addresses": [ADDRESS],
    "edge_certificates": [CERTIFICATE],
}
PLATFORMS = [
    ("Debian", "12.11"),
    ("Ubuntu", "22.04"),
    ("Ubuntu", "24.04"),
    ("Rocky", "9.5"),
    ("RedHat", "9.4"),
]


def test_a_sound_wish_has_no_problem() -> None:
    assert edge.edge_problems(WISH) == []
    assert edge.edge_problems(WISH | {"password": "q7-Zk2_w", "advert_s": 1}) == []
    on_host = {"name": "main", "certificate_path": "/etc/ssl/a.pem", "key_path": "/etc/ssl/a.key"}
    assert edge.edge_problems(WISH | {"certificates": [on_host]}) == []
    assert edge.edge_problems(WISH | {"hosts": HOSTS[:1], "addresses": []}) == []
    acme = {"names": ["llm.example.org"], "email": "ops@example.org"}
    assert edge.edge_problems(WISH | {"certificates": [], "acme": acme, "http_port": 80}) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hosts": []}, "edge_hosts is empty"),
        ({"host": "edge09"}, "edge_hosts does not name this host (edge09)"),
        ({"hosts": [*HOSTS, HOSTS[0]]}, "edge01 is named twice"),
        ({"hosts": [{"name": "edge01", "address": "127.0.0.1"}, HOSTS[1]]}, "'127.0.0.1'; it must be an IP"),
        ({"hosts": [{"name": "edge01", "address": "edge01.example"}, HOSTS[1]]}, "'edge01.example'; it must be"),
        ({"proxies": []}, "edge_proxies is empty"),
        ({"proxies": [{"name": "a b", "address": "192.0.2.1", "port": 1}]}, "'a b' is no name"),
        ({"hosts": HOSTS[:1]}, "one edge host only"),
        ({"addresses": [{**ADDRESS, "address": "192.0.2.10"}]}, "'192.0.2.10' is no address with the length"),
        ({"addresses": [{**ADDRESS, "address": "192.0.2.21/24"}]}, "192.0.2.21 is an edge host's own address"),
        ({"addresses": [{**ADDRESS, "address": "2001:db8::1/64"}]}, "2001:db8::1 is IPv6"),
        ({"addresses": [{**ADDRESS, "router_id": 256}]}, "needs a router_id from 1 to 255"),
        ({"addresses": [{"address": "192.0.2.10/24"}]}, "needs a router_id from 1 to 255"),
        ({"addresses": [ADDRESS, {**ADDRESS, "address": "192.0.2.11/24"}]}, "have the same router_id 51"),
        ({"addresses": [ADDRESS, {**ADDRESS, "router_id": 52}]}, "192.0.2.10 stands there twice"),
        ({"addresses": [{**ADDRESS, "prefer": "edge09"}]}, "prefers edge09, which is no edge host"),
        ({"certificates": []}, "There is no certificate"),
        ({"certificates": [CERTIFICATE, CERTIFICATE]}, "main stands there twice"),
        ({"certificates": [{**CERTIFICATE, "name": "../x"}]}, "'../x' is no name"),
        ({"certificates": [{"name": "main"}]}, "main needs either certificate and key"),
        ({"certificates": [{**CERTIFICATE, "certificate_path": "/a.pem"}]}, "main needs either certificate and key"),
        ({"certificates": [{"name": "main", "key_path": "/a"}]}, "has a key_path and no certificate_path"),
        ({"certificates": [{"name": "main", "certificate_path": "a.pem"}]}, "is not an absolute path"),
        ({"certificates": [{**CERTIFICATE, "key": ""}]}, "main has no private key"),
        ({"certificates": [{**CERTIFICATE, "certificate": "nonsense"}]}, "is no PEM text"),
        ({"certificates": [{**CERTIFICATE, "key": "-----BEGIN ENCRYPTED PRIVATE KEY-----"}]}, "key of main is encrypted"),
        ({"acme": {"names": ["a.example"]}, "http_port": 80}, "needs an email address"),
        ({"acme": {"names": ["a.example"], "email": "a@b.example"}}, "edge_acme needs edge_http_port"),
        ({"advert_s": 0}, "edge_advert_s is 0"),
        ({"password": "short", "advert_s": 1}, "must have exactly 8 characters"),
        ({"password": "long-enough-to-be-cut", "advert_s": 1}, "must have exactly 8 characters"),
        ({"password": "q7 Zk2_w", "advert_s": 1}, "must have no blanks"),
        ({"password": "q7-Zk2_w"}, "whole seconds"),
        ({"port": 0}, "edge_port is 0, which is no port"),
        ({"http_port": 443}, "edge_http_port and edge_port are both 443"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(change: dict[str, Any], said: str) -> None:
    problems = edge.edge_problems(WISH | change)
    assert any(said in problem for problem in problems), problems
    assert ISSUED.key not in "".join(problems)


@pytest.mark.parametrize(
    "password", ["changeme", "Password", "PASSW0RD", "12345678", "aaaaaaaa", "abababab", "k@l!ve1p"]
)
def test_a_password_that_everybody_knows_is_refused_and_not_repeated(password: str) -> None:
    (problem,) = [
        one
        for one in edge.edge_problems(WISH | {"password": password, "advert_s": 1})
        if "everybody knows" in one
    ]
    assert password not in problem


def test_the_preferred_host_comes_first_then_the_order_of_the_list() -> None:
    hosts = [{"name": name} for name in ("a", "b", "c")]
    assert [edge.vrrp_priority(name, hosts, "") for name in "abc"] == [200, 199, 198]
    assert [edge.vrrp_priority(name, hosts, "c") for name in "abc"] == [199, 198, 200]


SETTINGS = {
    "edge01": {"fleet_proxy_listen": "127.0.0.1", "fleet_address": "192.0.2.31", "fleet_proxy_port": 8000},
    "proxy01": {
        "fleet_proxy_listen": "198.51.100.21",
        "fleet_address": "192.0.2.21",
        "fleet_proxy_port": 8000,
    },
    "proxy02": {"fleet_proxy_listen": "0.0.0.0", "fleet_address": "192.0.2.22", "fleet_proxy_port": 8001},
}


def test_hosts_and_proxies_come_from_the_fleets_settings() -> None:
    assert edge.edge_wiring(SETTINGS, ["edge01", "proxy01"], ["proxy01", "proxy02"]) == {
        "hosts": [
            {"name": "edge01", "address": "192.0.2.31"},
            {"name": "proxy01", "address": "198.51.100.21"},
        ],
        "proxies": [
            {"name": "proxy01", "address": "198.51.100.21", "port": 8000},
            {"name": "proxy02", "address": "192.0.2.22", "port": 8001},
        ],
        "problems": [],
    }
    given = {**SETTINGS, "edge01": {**SETTINGS["edge01"], "fleet_edge_address": "198.51.100.31"}}
    assert edge.edge_sources(given, ["edge01", "proxy01"]) == ["198.51.100.21", "198.51.100.31"]
    assert edge.edge_sources(given, []) == []


def test_a_proxy_on_loopback_and_an_edge_host_without_an_address_are_told() -> None:
    settings = {**SETTINGS, "gw": {"fleet_proxy_listen": "127.0.0.1", "fleet_address": "gw.example"}}
    problems = edge.edge_wiring(settings, ["gw"], ["edge01"])["problems"]
    assert [problem.partition(":")[0] for problem in problems] == ["gw", "edge01"]
    assert "Set fleet_edge_address" in problems[0]
    assert "Set fleet_proxy_listen" in problems[1]
    # what is not known is trusted by nobody
    assert edge.edge_sources(settings, ["gw"]) == []


def test_what_is_asked_again_generates_or_reads() -> None:
    repeatable = Stage({}).value("__edge_repeatable")
    posted = {route.path for route in ROUTES if route.method == "POST" and not route.admin}
    covered = {
        path
        for path in posted
        if path in repeatable
        or any(path.startswith(one) for one in repeatable if one != "/" and one.endswith("/"))
    }
    # each of them leaves something behind, or ends something
    assert posted - covered == {"/v1/responses", "/v1/responses/{response_id}/cancel"}
    assert [
        path for path in repeatable if path != "/" and not path.endswith("/") and path not in posted
    ] == []
    assert not any(route.path.startswith(tuple(covered - {"/"})) for route in ROUTES if route.admin)


@pytest.mark.parametrize(("distribution", "version"), PLATFORMS)
@pytest.mark.parametrize("more", ["plain", "all"])
def test_haproxy_takes_what_is_written(distribution: str, version: str, more: str, tmp_path: Path) -> None:
    own = {
        "edge_hosts": [{"name": "edge01", "address": "2001:db8::21"}],
        "edge_addresses": [],
        "edge_http_port": 80,
    }
    acme = {"edge_acme": {"names": ["llm.example.org"], "email": "ops@example.org"}}
    stage = Stage(ROLE_WISH | (own | acme if more == "all" else {}), distribution, version)
    user, group = stage.value("__edge_platform")["user"], stage.value("__edge_platform")["group"]
    me = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
    path = stage.write(
        tmp_path, {f"user {user}\n": f"user {me[0]}\n", f"group {group}\n": f"group {me[1]}\n"}
    )
    if more == "all":
        (tmp_path / "certificates" / "acme.pem").write_text(ISSUED.certificate + ISSUED.key)
    text = path.read_text()
    # longer than a tab stop of blanks in a row, or two empty lines, are slips of the template
    assert "\n\n\n" not in text
    program = haproxy()
    if program is None:
        pytest.skip("HAProxy is not here and cannot be fetched")
    done = subprocess.run(
        [*program.command, "-c", "-f", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr.upper()


def test_keepalived_gets_subsecond_adverts_or_a_password_from_a_file_of_its_own() -> None:
    text = Stage(ROLE_WISH).template("keepalived.conf.j2")
    assert "vrrp_version 3" in text
    assert "advert_int 0.25" in text
    assert "nopreempt" in text
    assert "192.0.2.22 min_ttl 255" in text
    assert "192.0.2.21 min_ttl" not in text
    preferring = [{**ADDRESS, "prefer": "edge02"}]
    stage = Stage(
        {**ROLE_WISH, "edge_vrrp_password": "q7-Zk2_w", "edge_advert_s": 1, "edge_addresses": preferring}
    )
    text = stage.template("keepalived.conf.j2")
    assert "vrrp_version 2" in text
    assert "include password.conf" in text
    assert "preempt_delay" in text
    assert "priority 199" in text
    assert "nopreempt" not in text
    assert "q7-Zk2_w" not in text
    assert stage.value("__edge_secrets_keepalived") == {"password.conf": "auth_pass q7-Zk2_w"}


def test_certificates_keep_their_order_and_their_texts_out_of_what_is_shown() -> None:
    second = {"name": "aaa", "certificate_path": "/etc/ssl/a.pem", "key_path": "/etc/ssl/a.key"}
    stage = Stage(ROLE_WISH | {"edge_certificates": [CERTIFICATE, second]})
    files = stage.value("__edge_certificate_files")
    assert files["gathered"] == {"certificates/aaa.pem": ["/etc/ssl/a.pem", "/etc/ssl/a.key"]}
    assert files["secrets"] == {"certificates/main.pem": ISSUED.certificate + ISSUED.key}
    text = stage.template("haproxy.cfg.j2")
    assert "crt certificates/main.pem crt certificates/aaa.pem" in text
    assert "PRIVATE KEY" not in text
