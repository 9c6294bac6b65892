"""Say how what runs differs from what is declared. Runs on the controller and connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.findings import compose
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.words import KINDS, Finding
from ansible_collections.modelyard.fleet.plugins.plugin_utils.edge import edge_seen
from ansible_collections.modelyard.fleet.plugins.plugin_utils.locking import (
    DEAD,
    LOCK,
    LockError,
    judge,
    process_start,
    read_lock,
    this_machine,
)
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import by_host, count, write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

COLOURS = {"drift": "red", "unknown": "yellow", "note": "bright gray"}


class ActionModule(ActionBase):  # type: ignore[misc]
    """Arguments: ``plan`` (redacted), ``engine_hosts``, ``proxy_hosts``, ``edge_hosts`` and ``asked`` (names),
    ``result_file``.

    Reads registered results of each host: ``__fleet_facts``, ``__replica_drift`` and ``__proxy_probe``, and of the edge
    ``__edge_facts`` and ``__edge_declared``.
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Compose, print, and write the result file."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args, hostvars = self._task.args, (task_vars or {})["hostvars"]

        def registered(name: str, hosts: str) -> dict[str, Any]:
            return {host: data(hostvars[host].get(name)) or {} for host in args[hosts]}

        plan = data(args["plan"])
        asked = [str(host) for host in args["asked"]]
        findings = compose(
            plan=plan,
            facts=registered("__fleet_facts", "engine_hosts"),
            compared=registered("__replica_drift", "engine_hosts"),
            proxies=registered("__proxy_probe", "proxy_hosts"),
            asked=asked,
            edge={
                host: (one.seen, one.declared)
                for host, one in edge_seen(hostvars, args.get("edge_hosts") or ()).items()
            },
        )
        report = {
            "kind": "drift",
            "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "hosts": sorted(asked),
            "kinds": [kind for kind in KINDS if kind not in ("host", "adopted", "foreign")],
            "findings": findings,
            "counts": {name: count(findings, name) for name in COLOURS},
            "notes": [*lock_notes(Path(str(plan["state_dir"]))), *(plan.get("notes") or [])],
        }
        display = Display()
        for line, colour in lines(findings):
            display.display(line, color=colour)
        for note in report["notes"]:
            display.display(f"Note: {note}", color="bright yellow")
        if args.get("result_file"):
            write_json(str(args["result_file"]), report)
        return result | {"changed": False, "drift": report}


def lock_notes(state_dir: Path) -> list[str]:
    """Who changes the fleet now, if somebody does: what is found may be half of a change."""
    try:
        held = read_lock(state_dir)
    except LockError as error:
        return [str(error)]
    if held is None:
        return []
    if held.owner is None:
        return [f"{state_dir / LOCK} cannot be understood: a run may be changing the fleet"]
    owner = held.owner
    told = f"{owner.playbook} of {owner.who} on {owner.host}, since {owner.started}"
    if judge(owner, this_machine(), -1, process_start) == DEAD:
        return [f"{told}, ended without giving its lock back: the next run goes on from what is there"]
    return [f"{told}, may be changing the fleet now: what was found may be half of it"]


def lines(findings: list[Finding]) -> list[tuple[str, str | None]]:
    """The findings as text, one host after the other, each line with its colour; the last line sums up."""
    told = by_host(findings, _words, COLOURS)
    drift, unknown, notes = (count(findings, name) for name in COLOURS)
    colour = COLOURS["drift"] if drift else COLOURS["unknown"] if unknown else "green"
    return [*told, ("", None), (f"Drift: {drift} found, {unknown} unknown, {notes} notes.", colour)]


def _words(item: Mapping[str, Any]) -> str:
    found = "nothing" if item["found"] is None else item["found"]
    wanted = "nothing" if item["wanted"] is None else item["wanted"]
    against = f", declared {wanted}" if item["severity"] == "drift" else ""
    return f"{item['kind']}  {item['subject']}  {item['field']}: {found}{against}  [{item['what']}]"
