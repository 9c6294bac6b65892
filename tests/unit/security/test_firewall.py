"""Ports and addresses as operators write them -> rules as nftables takes them, and who must be let through."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.modelyard.fleet.plugins.module_utils.firewall import (
    FirewallError,
    engine_firewall,
    firewall_problems,
    is_allowed,
    networks,
    port_ranges,
    proxy_addresses,
    proxy_firewall,
    shut_out,
    within,
)
from jinja2 import Environment, StrictUndefined

from tests.tools.role_readmes import ROOT

ROLE = ROOT / "roles" / "host_hardening"


def rules(ports: list[Any], **allow: list[str]) -> str:
    """The file of rules of an engine host."""
    return rendered({"ports": ports, "allow": allow})


def rendered(engines: dict[str, Any], proxy: dict[str, Any] | None = None) -> str:
    """The file of rules, rendered from the role's own template as Ansible would."""
    environment = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)  # noqa: S701
    environment.filters |= {
        "modelyard.fleet.port_ranges": port_ranges,
        "modelyard.fleet.networks": networks,
        "flatten": lambda lists: [item for one in lists for item in one],
    }
    template = environment.from_string((ROLE / "templates" / "modelyard.nft.j2").read_text(encoding="utf-8"))
    return template.render(
        host_hardening_engine_ports=engines,
        host_hardening_proxy_ports=proxy or {},
        __host_hardening_owner="# Fleet: f",
    )


def elements(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "elements" in line]


def test_rules_for_both_versions_of_ip() -> None:
    text = rules(
        ["8100-8199", "9000", "8150-8210"],
        proxies=["192.0.2.22", "192.0.2.21", "2001:db8::21"],
        monitoring=["198.51.100.0/25", "198.51.100.128/25", "192.0.2.21"],
        controllers=[],
    )
    assert elements(text) == [
        "elements = { 8100-8210, 9000 }",
        "elements = { 192.0.2.21, 192.0.2.22, 198.51.100.0/24 }",
        "elements = { 2001:db8::21 }",
    ]
    assert "# monitoring: 198.51.100.0/25" in text
    assert "# controllers" not in text
    assert "# Fleet: f" in text.splitlines()


def test_a_version_of_ip_that_nobody_has_is_an_empty_set() -> None:
    text = rules(["8100"], proxies=["2001:db8::21"])
    assert elements(text) == ["elements = { 8100 }", "elements = { 2001:db8::21 }"]
    assert "set allowed_ipv4" in text


def test_the_rules_name_no_table_but_ours_and_drop_only_at_the_end() -> None:
    text = rules(["8100"], proxies=["192.0.2.21"])
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert "flush" not in text
    assert [line for line in lines if line.startswith(("table", "delete", "add"))] == [
        "table inet modelyard", "delete table inet modelyard", "table inet modelyard {",
    ]  # fmt: skip
    begin = lines.index("chain engines {")
    assert lines[begin:] == [
        "chain engines {",
        "type filter hook prerouting priority -110; policy accept;",
        "meta l4proto != tcp accept",
        "tcp dport != @engine_ports accept",
        'iifname "lo" accept',
        "ct direction reply accept",
        "fib daddr type != local accept",
        "ip saddr @allowed_ipv4 accept",
        "ip6 saddr @allowed_ipv6 accept",
        "counter drop",
        "}",
        "}",
    ]


BEHIND = {
    "ports": ["8000"],
    "allow": {"edge": ["192.0.2.22"], "monitoring": ["2001:db8::31"], "controllers": []},
}


def test_the_port_of_a_proxy_has_rules_of_its_own_beside_those_of_engines() -> None:
    alone = rules(["8100"], proxies=["192.0.2.21"])
    both = rendered({"ports": ["8100"], "allow": {"proxies": ["192.0.2.21"]}}, BEHIND)
    assert elements(both) == [
        *elements(alone),
        "elements = { 8000 }",
        "elements = { 192.0.2.22 }",
        "elements = { 2001:db8::31 }",
    ]
    # what is said of engines stays as it is, to the letter
    chain = alone[alone.index("\tset engine_ports") : alone.rindex("}")]
    assert chain in both
    assert "# edge: 192.0.2.22" in both.splitlines()
    only = rendered({}, BEHIND)
    assert "engine" not in only.replace("Docker", "")
    lines = [line.strip() for line in only.splitlines()]
    begin = lines.index("chain proxies {")
    assert lines[begin + 3] == "tcp dport != @proxy_ports accept"
    assert lines[begin + 7 : begin + 10] == [
        "ip saddr @edge_ipv4 accept",
        "ip6 saddr @edge_ipv6 accept",
        "counter drop",
    ]


@pytest.mark.parametrize("port", ["", "0", "65536", "8199-8100", "x", "-1", "1-2-3"])
def test_what_is_no_port(port: str) -> None:
    with pytest.raises(FirewallError, match="is no port"):
        port_ranges([port])


def test_ports_that_touch_become_one_range() -> None:
    assert port_ranges([8101, "8100", "8102-8110", 22]) == ["22", "8100-8110"]
    assert (within(8110, ["8102-8110"]), within(8111, ["8102-8110", 9])) == (True, False)


@pytest.mark.parametrize(
    "address", ["proxy01", "0.0.0.0/0", "::/0", "0.0.0.0", "::", "", "fe80::1%eth0", "10.0.0.300"]
)
def test_what_may_not_be_let_through(address: str) -> None:
    with pytest.raises(FirewallError):
        networks([address], 4)
    assert firewall_problems({"ports": ["8100"], "allow": {"proxies": ["192.0.2.1", address]}})


def test_addresses_in_order_each_once() -> None:
    assert networks(["192.0.2.9", "192.0.2.10/24", "[2001:db8::1]"], 4) == ["192.0.2.0/24"]
    assert networks(["2001:db8::1", "2001:db8::/64", "192.0.2.1"], 6) == ["2001:db8::/64"]
    assert is_allowed("192.0.2.7", ["nonsense", "192.0.2.0/28"])
    assert not is_allowed("2001:db8::1", ["192.0.2.0/28"])


@pytest.mark.parametrize(
    ("firewall", "says"),
    [
        ({}, "No ports"),
        ({"ports": ["8100"]}, "Nobody is allowed"),
        ({"ports": ["8100"], "allow": {"proxies": [], "monitoring": []}}, "Nobody is allowed"),
        ({"ports": ["8100"], "allow": {"friends": ["192.0.2.1"]}}, "'friends' is not known"),
        (
            {"ports": ["8100", "20-30"], "allow": {"proxies": ["192.0.2.1"]}},
            "20-30 holds 22, the port of SSH",
        ),
        ({"ports": ["many"], "allow": {"proxies": ["192.0.2.1"]}}, "'many' is no port"),
    ],
)
def test_what_the_role_refuses(firewall: dict[str, Any], says: str) -> None:
    assert any(says in problem for problem in firewall_problems(firewall))
    good = {"ports": ["8100-8199"], "allow": {"monitoring": ["192.0.2.1"]}}
    assert firewall_problems(good) == []
    assert firewall_problems(good, 8122) == [
        "8100-8199 holds 8122, the port of SSH, which is never closed here."
    ]


def test_what_the_role_refuses_of_a_proxys_port() -> None:
    assert firewall_problems(BEHIND, first="edge") == []
    assert firewall_problems(BEHIND | {"ports": ["22"]}, first="edge") == [
        "22 holds 22, the port of SSH, which is never closed here."
    ]
    (nobody,) = firewall_problems({"ports": ["8000"], "allow": {"edge": []}}, first="edge")
    assert nobody == "Nobody is allowed to reach the proxy: name the edge hosts' addresses."
    (unknown,) = firewall_problems(
        {"ports": ["8000"], "allow": {"edge": ["192.0.2.1"], "proxies": []}}, first="edge"
    )
    assert unknown == "'proxies' is not known: allow has edge, monitoring, controllers."


# --- from the inventory ---------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "gpu01": {
        "fleet_address": "192.0.2.11",
        "fleet_ports": "8100-8199",
        "fleet_engine_access": {"monitoring": ["192.0.2.31"]},
    },
    "proxy01": {"fleet_address": "192.0.2.21"},
    "proxy02": {"fleet_address": "proxy02.example", "fleet_proxy_addresses": ["192.0.2.22", "2001:db8::22"]},
}


def test_the_inventory_says_who_is_let_through() -> None:
    replicas = [
        {"spec": {"publish": {"port": 8100}}},
        {"adopted": {}, "spec": {"publish": {"port": 8000}}},
        {"port": 7000, "spec": {}},
        {"port": None},
    ]
    assert engine_firewall("gpu01", SETTINGS, ["proxy01", "proxy02"], replicas) == {
        "ports": ["8100-8199", "7000", "8000"],
        "allow": {
            "proxies": ["192.0.2.21", "192.0.2.22", "2001:db8::22"],
            "monitoring": ["192.0.2.31"],
            "controllers": [],
        },
        "problems": [],
    }


@pytest.mark.parametrize("address", ["proxy01.example", "127.0.0.1", "0.0.0.0", "::1"])
def test_a_proxy_whose_address_is_not_known_is_a_problem_and_no_open_port(address: str) -> None:
    settings = SETTINGS | {"proxy01": {"fleet_address": address}}
    found = engine_firewall("gpu01", settings, ["proxy01"], [])
    assert found["allow"]["proxies"] == []
    (problem,) = found["problems"]
    assert problem.startswith("proxy01: the address from which this proxy reaches the engines is not known.")
    assert "Set fleet_proxy_addresses" in problem
    assert proxy_addresses("proxy01", settings["proxy01"])[0] == []


def test_a_proxy_on_the_engines_own_host_needs_no_address() -> None:
    settings = {"gpu01": SETTINGS["gpu01"] | {"fleet_address": "127.0.0.1"}}
    found = engine_firewall("gpu01", settings, ["gpu01"], [])
    assert (found.pop("problems"), firewall_problems(found)) == ([], [])


def test_a_proxy_that_comes_from_elsewhere_than_declared() -> None:
    def target(source: str | None) -> list[dict[str, Any]]:
        return [{"host": "gpu01", "source": source}]

    assert shut_out(target("192.0.2.21"), "proxy01", SETTINGS) == []
    assert shut_out(target("192.0.2.31"), "proxy01", SETTINGS) == []  # monitoring is let through as well
    assert shut_out(target(None), "proxy01", SETTINGS) == []
    (problem,) = shut_out(target("198.51.100.21"), "proxy01", SETTINGS)
    assert "proxy01 reaches gpu01 from 198.51.100.21" in problem


def test_platforms_are_data() -> None:
    platforms = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__host_hardening_platforms"]
    assert {name: one["package"] for name, one in platforms.items()} == dict.fromkeys(
        ("Debian", "Ubuntu", "RedHat"), "nftables"
    )


EDGE = SETTINGS | {
    "proxy01": {
        "fleet_proxy_listen": "192.0.2.21",
        "fleet_proxy_port": 8000,
        "fleet_proxy_access": {"monitoring": ["192.0.2.31"]},
        "fleet_address": "10.0.0.21",
    },
    "edge01": {"fleet_edge_address": "198.51.100.41", "fleet_address": "edge01.example"},
}


def test_a_proxy_behind_an_edge_answers_the_edge_and_whom_the_inventory_names() -> None:
    assert proxy_firewall("proxy01", EDGE, ["edge01", "proxy01"]) == {
        "ports": ["8000"],
        "allow": {"edge": ["198.51.100.41", "192.0.2.21"], "monitoring": ["192.0.2.31"], "controllers": []},
        "problems": [],
    }


def test_an_edge_host_whose_address_is_not_known_is_a_problem_and_no_open_port() -> None:
    settings = EDGE | {"edge01": {"fleet_address": "edge01.example"}}
    found = proxy_firewall("proxy01", settings, ["edge01"])
    assert found["allow"]["edge"] == []
    assert "Set fleet_edge_address" in found["problems"][0]
