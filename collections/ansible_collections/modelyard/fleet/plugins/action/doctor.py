"""Say what is wrong with the fleet, host by host. Runs on the controller and connects to nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.action.drift import lock_notes
from ansible_collections.modelyard.fleet.plugins.module_utils.doctor.findings import compose
from ansible_collections.modelyard.fleet.plugins.plugin_utils.edge import edge_seen
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

COLOURS = {"critical": "red", "unknown": "magenta", "warning": "yellow", "note": "bright gray"}
VERDICTS = {"ill": "red", "unknown": "magenta", "look": "yellow", "well": "green"}
RESULTS = {
    "facts": "__fleet_facts",
    "compared": "__replica_drift",
    "health": "__host_health",
    "gpu_facts": "__gpu_facts",
    "probes": "__replica_probe",
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``plan`` (redacted), ``settings`` (by host), ``engine_hosts``, ``proxy_hosts``, ``edge_hosts`` and
    ``asked`` (names), ``generate`` (whether replicas were asked to), ``result_file``.

    Reads registered results of each host: those of ``RESULTS`` and ``__proxy_probe``, and of the edge ``__edge_facts`` and
    ``__edge_declared``.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compose, print, and write the result file."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args, hostvars = self._task.args, (task_vars or {})["hostvars"]
        engines, proxies = ([str(host) for host in args[group]] for group in ("engine_hosts", "proxy_hosts"))

        def registered(name: str, hosts: list[str]) -> dict[str, Any]:
            return {host: data(hostvars[host].get(name)) or {} for host in hosts}

        plan = data(args["plan"])
        seen = {key: registered(name, engines) for key, name in RESULTS.items()}
        edges = edge_seen(hostvars, args.get("edge_hosts") or ())
        seen["health"] |= registered("__host_health", [*proxies, *edges])
        report = {
            "kind": "doctor",
            "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **compose(
                plan=plan,
                settings=data(args["settings"]),
                proxies=registered("__proxy_probe", proxies),
                asked=[str(host) for host in args["asked"]],
                generate=bool(data(args["generate"])),
                edges={host: (one.seen, one.declared, one.certificates) for host, one in edges.items()},
                **seen,
            ),
            "generate": bool(data(args["generate"])),
            "notes": [*lock_notes(Path(str(plan["state_dir"]))), *(plan.get("notes") or [])],
        }
        display = Display()
        for line, colour in lines(report):
            display.display(line, color=colour)
        if args.get("result_file"):
            write_json(str(args["result_file"]), report)
        return result | {"changed": False, "doctor": report}


def lines(report: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The findings as text, one host after the other, each line with its colour; then a verdict for each host."""
    told: list[tuple[str, str | None]] = []
    host = None
    for item in report["findings"]:
        if item["host"] != host:
            host = item["host"]
            told += [("", None), (host, "bright blue")]
        told.append((f"  {item['severity']}  {item['kind']}  {item['text']}", COLOURS[item["severity"]]))
    told.append(("", None))
    for one in report["hosts"]:
        more = f" ({one['told']})" if one["told"] else ""
        told.append((f"{one['name']}: {one['verdict']}{more}", VERDICTS[one["verdict"]]))
    return told + [(f"Note: {note}", "bright yellow") for note in report["notes"]]
