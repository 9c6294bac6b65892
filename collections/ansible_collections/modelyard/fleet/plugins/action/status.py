"""Print what is up, down or unknown, and hand it on as data. Runs on the controller and connects to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils import fleet_status as words
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view.rows import address_rows, edge_row
from ansible_collections.modelyard.fleet.plugins.plugin_utils.edge import EdgeHost, edge_seen
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

HOST_COLUMNS = (
    "name", "state", "docker", "gpus", "gpus_used", "gpus_free", "gpus_blocked", "gpus_unwell", "replicas_up",
    "replicas_wished",
)  # fmt: skip
EDGE_COLUMNS = (
    "host", "state", "address_service", "holds", "certificate", "days_left", "proxies_up", "proxies_down", "reason",
)  # fmt: skip
COLOURS = {"up": "green", "ready": "green", "down": "red", "unknown": "yellow", "not ready": "yellow"}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``plan`` (redacted), ``engine_hosts``, ``proxy_hosts``, ``edge_hosts`` and ``asked`` (names),
    ``result_file``.

    Reads registered results of each host: ``__fleet_facts``, ``__replica_probe`` and ``__proxy_probe``, and of the edge
    ``__edge_facts`` and ``__edge_declared``.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compose, print, and write the result file."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        hostvars = (task_vars or {})["hostvars"]

        def registered(name: str, hosts: str) -> dict[str, Any]:
            return {host: data(hostvars[host].get(name)) or {} for host in self._task.args[hosts]}

        plan = data(self._task.args["plan"])
        status = compose(
            plan=plan,
            facts=registered("__fleet_facts", "engine_hosts"),
            probes=registered("__replica_probe", "engine_hosts"),
            proxies=registered("__proxy_probe", "proxy_hosts"),
        )
        status |= edge(edge_seen(hostvars, self._task.args.get("edge_hosts") or ()))
        status["releases"] = releases(Path(str(plan["state_dir"])), plan)
        status["overall"] = words.overall(status, [str(host) for host in self._task.args["asked"]])
        display = Display()
        for title, columns, rows in tables(status):
            for line, colour in render(title, columns, rows):
                display.display(line, color=colour)
        for held in status["holds"]:
            display.display(held["text"], color="bright yellow")
        if self._task.args.get("result_file"):
            write_json(str(self._task.args["result_file"]), status)
        return result | {"changed": False, "status": status}


def compose(
    plan: dict[str, Any],
    facts: dict[str, Any],
    probes: dict[str, Any],
    proxies: dict[str, Any],
) -> dict[str, Any]:
    """The whole status as plain data, keyed hosts, replicas, proxies, endpoints, holds."""
    replicas = words.replica_rows(plan, facts, probes)
    registries = [one["registry"] for one in proxies.values() if one.get("registry")]
    newest: dict[str, Any] = max(registries, key=lambda one: one.get("generation") or 0, default={})
    return {
        "hosts": words.host_rows(facts, replicas, plan.get("hosts") or {}),
        "replicas": replicas,
        "proxies": [words.proxy_row(host, one) for host, one in sorted(proxies.items())],
        "endpoints": words.endpoint_rows(newest, replicas),
        "holds": plan.get("holds", []),
    }


def edge(hosts: dict[str, EdgeHost]) -> dict[str, list[dict[str, Any]]]:
    """The edge, keyed edge (a row for each host) and edge_addresses; both empty without one."""
    seen = {host: one.seen for host, one in hosts.items()}
    moving = [address for one in hosts.values() for address in one.declared.get("addresses") or ()]
    return {
        "edge": [edge_row(host, one.seen, one.declared, one.certificates) for host, one in hosts.items()],
        "edge_addresses": address_rows(seen, moving),
    }


def releases(state_dir: Path, plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The release that each wished model has now, and the one that it is held at; no row before the first deploy."""
    from modelyard.errors import ConfigError
    from modelyard.releases import read_releases

    held = {one["model"]: one["release"] for one in plan.get("holds") or []}
    rows = []
    for model in sorted(plan["registry"]["models"]):
        row: dict[str, Any] = {"model": model, "held_at": held.get(model), "problem": ""}
        try:
            applied = read_releases(state_dir, model).applied
        except ConfigError as error:
            rows.append(row | {"release": None, "at": None, "who": None, "problem": error.message})
            continue
        if applied is not None:
            rows.append(row | {"release": applied.number, "at": applied.at, "who": applied.who})
    return rows


def tables(status: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[dict[str, Any]]]]:
    """Title, columns and rows of each table."""
    proxies = [
        row
        | {
            "ready": "yes" if row["ready"] else "no",
            "endpoints": ", ".join(f"{count} {state}" for state, count in row["endpoints"].items()),
            "models": ", ".join(
                model["id"] if model["available"] else f"{model['id']} (not available)"
                for model in row["models"]
            ),
        }
        for row in status["proxies"]
    ]
    edges = [
        row | {"proxies_up": ", ".join(row["proxies_up"]), "proxies_down": ", ".join(row["proxies_down"])}
        for row in status["edge"]
    ]
    return [
        ("Hosts", HOST_COLUMNS, status["hosts"]),
        ("Replicas", ("replica", "state", "health", "port", "gpus", "reason"), status["replicas"]),
        ("Proxies", ("host", "url", "state", "ready", "generation", "endpoints", "models"), proxies),
        ("Edge", EDGE_COLUMNS, edges),
        ("Edge addresses", ("address", "state", "holders", "reason"), status["edge_addresses"]),
        ("Endpoints", ("model", "id", "url", "state"), status["endpoints"]),
        ("Releases", ("model", "release", "at", "who", "held_at", "problem"), status["releases"]),
    ]


def render(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    """A plain text table as lines with their colours; nothing at all for no rows."""
    if not rows:
        return []

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return ",".join(str(each) for each in value) or "-"
        return "-" if value in (None, "") else str(value)

    grid = [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[place]) for line in grid)) for place, column in enumerate(columns)]

    def joined(cells: list[str] | tuple[str, ...]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip()

    head: list[tuple[str, str | None]] = [("", None), (title, "bright blue"), (joined(columns), None)]
    return head + [
        (joined(line), COLOURS.get(str(row.get("state")))) for line, row in zip(grid, rows, strict=True)
    ]
