"""Check the inventory before any host is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.modelyard.fleet.plugins.action.plan import (
    MEMORY,
    entries_of,
    model_of,
    read_memory,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.vendors import VENDOR_OF
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.footprints import key_of_model
from ansible_collections.modelyard.fleet.plugins.plugin_utils import memory
from ansible_collections.modelyard.fleet.plugins.plugin_utils.output import write_json
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import Wish, read_wish


class ActionModule(ActionBase):  # type: ignore[misc]
    """Runs on the controller only; needs no connection."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every problem at once, or return the settings of every host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(argument_spec={"result_file": {"type": "path"}})
        wish = read_wish(task_vars or {}, self._loader)
        problems = [str(problem) for problem in wish.problems]
        if args["result_file"]:
            write_json(
                args["result_file"],
                {
                    "kind": "check",
                    "ok": not problems,
                    "problems": [problem.as_dict() | {"text": str(problem)} for problem in wish.problems],
                    "models": len(wish.models),
                    "hosts": len(wish.hosts),
                    **({} if problems else {"capacity": capacity(wish), "needs": wish.needs()}),
                },
            )
        result["changed"] = False
        if problems:
            count = _count(problems, "problem")
            result["failed"] = True
            result["msg"] = "\n".join([f"The inventory has {count}; no host was touched.", *problems])
            return result
        sound = f"Inventory: {_count(wish.models, 'model')}, {_count(wish.hosts, 'host')}, no problem found."
        Display().display(sound)
        result["msg"] = sound
        result["settings"] = {name: dict(host.settings) for name, host in wish.hosts.items()}
        result["accelerators"] = with_gpus(wish.hosts)
        result["weights"] = weights_to_size(wish, result["accelerators"])
        result["state_dir"] = str(wish.state_dir)
        result["adopt"] = to_look_for(wish.models, remembered(wish.state_dir / MEMORY))
        return result


def to_look_for(models: list[dict[str, Any]], assignments: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By host: names of the containers that models adopt, and ids of those that the last deploy kept as adopted."""
    found: dict[str, set[str]] = {}
    for model in models:
        for item in model.get("adopt") or ():
            found.setdefault(item["host"], set()).add(item["container"])
    for assignment in assignments:
        if assignment.get("adopted"):
            found.setdefault(assignment["host"], set()).add(assignment["adopted"]["id"])
    return {host: sorted(names) for host, names in found.items()}


def capacity(wish: Wish) -> dict[str, Any]:
    """GPUs by host and what models ask of them, with what the last deploy saw of both."""
    known = memory.read_known(wish.state_dir / MEMORY)
    models = {}
    for entry in entries_of(wish):
        model = model_of(entry, wish.patterns)
        engine = wish.engines[model.engine]
        models[model.id] = {
            "measured": known["footprints"].get(key_of_model(model, engine)),
            "config": known["weights"].get(memory.config_name(entry)),
        }
    return wish.capacity(known["gpus"], models)


def with_gpus(hosts: Mapping[str, Any]) -> dict[str, str]:
    """What the hosts compute with that have GPUs for models."""
    return {
        name: host.settings["fleet_accelerator"]
        for name, host in hosts.items()
        if host.runs_engines and host.gpus and host.settings["fleet_accelerator"] in VENDOR_OF
    }


def weights_to_size(wish: Wish, hosts: Iterable[str]) -> dict[str, list[str]]:
    """By host with GPUs the directories, if they are there, whose size says what models need that may be placed on it."""
    found: dict[str, set[str]] = {name: set() for name in hosts}
    for entry in entries_of(wish):
        if not memory.is_estimated(entry):
            continue
        for name in wish.patterns[entry["placement"]["hosts"]]:
            if name in found:
                path = memory.weights_at(entry, str(wish.hosts[name].settings["fleet_weights_dir"]))
                found[name] |= {path} if path else set()
    return {name: sorted(paths) for name, paths in found.items()}


def remembered(path: Path) -> list[dict[str, Any]]:
    """The last deploy's assignments as far as they can be read: whether they can be relied on is the plan's question."""
    try:
        return read_memory(path)
    except AnsibleActionFail:
        return []


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"
