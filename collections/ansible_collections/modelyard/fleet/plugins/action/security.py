"""Say which weaknesses a fleet has. Runs on the controller, from where it also tries the engines' and proxies' ports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils.firewall import (
    engine_firewall,
    proxy_addresses,
    proxy_firewall,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.reach import look
from ansible_collections.modelyard.fleet.plugins.module_utils.security.edge import (
    edge_findings,
    ports_behind_edge,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.security.findings import (
    host_findings,
    in_order,
    outside_findings,
    silent,
    to_probe,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.security.words import CODES, Finding
from ansible_collections.modelyard.fleet.plugins.plugin_utils.edge import edge_seen
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import by_host, count, write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import read_wish

COLOURS = {"finding": "red", "unknown": "yellow"}
CONTROLLER = "the controller"
_TIMEOUT_S = 2.0


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``settings`` (by host), ``engine_hosts``, ``proxy_hosts``, ``edge_hosts`` and ``asked`` (names),
    ``result_file``.

    Reads registered results of each host: ``__security_facts``, of engine hosts ``__security_reach``, and of the edge
    ``__edge_facts`` and ``__edge_declared``.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look from here, compose, print, and write the result file."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args, hostvars = self._task.args, (task_vars or {})["hostvars"]
        asked = sorted(str(host) for host in args["asked"])
        settings = data(args["settings"])
        wish = read_wish(task_vars or {}, self._loader)
        facts = {host: data(hostvars[host].get("__security_facts")) or {} for host in asked}
        seen = {host: one for host, one in facts.items() if "containers" in one}
        findings = [silent(host, one) for host, one in facts.items() if host not in seen]
        engine_hosts = [host for host in args["engine_hosts"] if host in seen]
        for host, one in seen.items():
            findings += host_findings(host, one, wish.engines, adopted_engines(wish.models, host))
        reached = {host: data(hostvars[host].get("__security_reach")) or {} for host in engine_hosts}
        findings += outside(
            seen, reached, settings, engine_hosts, [str(name) for name in args["proxy_hosts"]]
        )
        edges = edge_seen(hostvars, args.get("edge_hosts") or ())
        for host, one in edges.items():
            # a host of which nothing at all is known has been told already
            if host in asked and (host in seen or "configurations" in one.seen):
                findings += edge_findings(host, one.seen, one.declared)
        answered = [str(name) for name in args["proxy_hosts"] if name in seen]
        findings += proxies_outside(reached, settings, list(edges), answered)
        findings = in_order(findings)
        report = {
            "kind": "security",
            "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "hosts": asked,
            "codes": list(CODES),
            "findings": findings,
            "counts": {name: count(findings, name) for name in COLOURS},
        }
        display = Display()
        for line, colour in lines(findings):
            display.display(line, color=colour)
        if args.get("result_file"):
            write_json(str(args["result_file"]), report)
        return result | {"changed": False, "security": report}


def outside(
    seen: Mapping[str, Mapping[str, Any]],
    reached: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
    engine_hosts: list[str],
    proxy_hosts: list[str],
) -> list[Finding]:
    """What this machine and the engine hosts reached of the engines' ports, though they are no proxies."""
    wanted = {host: to_probe(seen[host], str(settings[host]["fleet_address"])) for host in engine_hosts}
    targets = [
        {"host": host, "address": address, "ports": ports}
        for host in engine_hosts
        for address, ports in wanted[host].items()
    ]
    looks = [{**one, "by": CONTROLLER} for one in look(targets, _TIMEOUT_S)]
    looks += [
        {**one, "by": by}
        for by, result in reached.items()
        if by not in proxy_hosts
        for one in result.get("targets") or []
    ]
    found: list[Finding] = []
    for host in engine_hosts:
        allow = engine_firewall(host, settings, proxy_hosts, ())["allow"]
        allowed = [*(one for group in allow.values() for one in group)]
        allowed += [one for name in proxy_hosts for one in proxy_addresses(name, settings[name])[0]]
        theirs = [one for one in looks if one["host"] == host]
        found += outside_findings(host, wanted[host], allowed, theirs)
    return found


def proxies_outside(
    reached: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
    edges: list[str],
    proxy_hosts: list[str],
) -> list[Finding]:
    """What this machine and the engine hosts reached of the proxies' ports behind an edge."""
    targets = ports_behind_edge(settings, edges, proxy_hosts)
    looks = [{**one, "by": CONTROLLER} for one in look(targets, _TIMEOUT_S)]
    looks += [{**one, "by": by} for by, result in reached.items() for one in result.get("targets") or []]
    found: list[Finding] = []
    for target in targets:
        host, wanted = target["host"], {target["address"]: target["ports"]}
        allow = proxy_firewall(host, settings, edges)["allow"]
        allowed = [one for group in allow.values() for one in group]
        theirs = [one for one in looks if one["host"] == host]
        found += outside_findings(host, wanted, allowed, theirs, "proxy-port-reachable")
    return found


def adopted_engines(models: list[dict[str, Any]], host: str) -> dict[str, str]:
    """The engine of each container that a model adopts on a host, by its name or id."""
    return {
        str(item["container"]): str(model["engine"])
        for model in models
        for item in model.get("adopt") or ()
        if item["host"] == host
    }


def lines(findings: list[Finding]) -> list[tuple[str, str | None]]:
    """The findings as text, one host after the other, each line with its colour; the last line sums up."""
    told = by_host(
        findings, lambda item: f"{item['code']}  {item['subject']}: {item['what']}  [{item['todo']}]", COLOURS
    )
    weaknesses, unknown = (count(findings, name) for name in COLOURS)
    colour = COLOURS["finding"] if weaknesses else COLOURS["unknown"] if unknown else "green"
    return [*told, ("", None), (f"Security: {weaknesses} weaknesses found, {unknown} unknown.", colour)]
